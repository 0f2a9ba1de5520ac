"""Loads the pack the way ComfyUI does, by path, under the name `capface`, whatever its folder is called."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"

if "capface" not in sys.modules:
    spec = importlib.util.spec_from_file_location("capface", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    pack = importlib.util.module_from_spec(spec)
    sys.modules["capface"] = pack
    spec.loader.exec_module(pack)


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  third-party code under test reads the global state


@pytest.fixture(scope="session")
def golden():
    """The folder of golden numbers (see its README)."""
    return GOLDEN
