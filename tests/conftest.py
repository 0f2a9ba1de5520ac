"""Fixtures for all tests. They import the pack as `capface`, which `pip install -e .` provides."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import config, install_import_hook

# Checks types and shapes at each call in these rooms. An int is accepted for a float, as in type checkers. The hook must be
# installed before the first import of the pack.
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
install_import_hook(["capface.flame", "capface.models"], CHECKER)

import capface  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"

assert capface.__file__ is not None
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


@pytest.fixture
def without_type_checks():
    """Allow a test to pass wrong types and shapes, to test the pack's own messages about them."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def golden():
    """The folder of golden numbers (see its README)."""
    return GOLDEN


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 kB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
