"""Nothing of one test's accelerator is left to the next."""

import pytest


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Forget the process-wide state of accelerate, which allows one precision in a process."""
    state = pytest.importorskip("accelerate.state")
    yield
    state.AcceleratorState._reset_state(reset_partial_state=True)
