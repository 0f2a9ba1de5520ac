"""Nothing of a test's accelerator is left to the next, and all compute on one core: sums depend on how many there are."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_core():
    """Compute as the processes do that some tests start."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Forget the process-wide state of accelerate, which allows one precision in a process."""
    state = pytest.importorskip("accelerate.state")
    yield
    state.AcceleratorState._reset_state(reset_partial_state=True)
