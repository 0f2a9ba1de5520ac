"""Fixtures that isolate tests: each has its own accelerator, and all use one core, since sums depend on the number of cores."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_core():
    """Use as many threads as the processes that some tests start."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Reset the process-wide state of accelerate, which allows only one precision per process."""
    state = pytest.importorskip("accelerate.state")
    yield
    state.AcceleratorState._reset_state(reset_partial_state=True)
