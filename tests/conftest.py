"""What all tests share. They import the pack as `capface`, which `pip install -e .` provides."""

from pathlib import Path

import numpy as np
import pytest
import torch

import capface

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"

if Path(capface.__file__).resolve().parent != ROOT:
    raise pytest.UsageError(
        f"`capface` is the checkout {Path(capface.__file__).parent}, but these tests are those of {ROOT}. "
        "Run `pip install -e . --no-deps` there, or let `python tasks.py test` make an environment."
    )


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  third-party code under test reads the global state


@pytest.fixture(scope="session")
def golden():
    """The folder of golden numbers (see its README)."""
    return GOLDEN
