"""A ComfyUI for the tests in this folder: its modules in this process, and separate processes with HTTP access."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from capface.tests.host import pipeline
from capface.tools.comfy import find_host, host_version, import_host
from capface.tools.standins import make_standins

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items):
    """Mark all tests here, so that `-m "not host"` excludes them."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.host)


@pytest.fixture(scope="session")
def comfyui():
    """Folder of the ComfyUI to test against."""
    folder = find_host()
    if folder is None:
        pytest.skip("no ComfyUI: set COMFYUI_PATH, or put one into ~/comfy/ComfyUI")
    return folder


@pytest.fixture(scope="session")
def standins():
    """A folder laid out like ComfyUI's `models` with the stand-in weights, cached between runs of the same code."""
    return make_standins()


@pytest.fixture(scope="session")
def in_host(comfyui, standins, tmp_path_factory):
    """Make ComfyUI's modules importable in this process (`import comfy.sd`, …), on the CPU.

    Has `nodes` and `folder_paths`, the host's own modules, and its `version` as a tuple of numbers.
    """
    nodes, folder_paths = import_host(comfyui, tmp_path_factory.mktemp("comfyui"))
    for folder in standins.iterdir():
        if folder.is_dir():
            folder_paths.add_model_folder_path(folder.name, str(folder))
    version = tuple(int(n) for n in host_version(comfyui).split(".")[:3])
    return SimpleNamespace(nodes=nodes, folder_paths=folder_paths, version=version)


@pytest.fixture(scope="module")
def denoiser(in_host):
    """The golden cases' denoiser as the host's MODEL."""
    return pipeline.small_denoiser()


@pytest.fixture(scope="module")
def capface(in_host):
    """The golden cases' CapFace as the pack's CAPFACE."""
    return pipeline.small_capface()


@pytest.fixture(scope="module")
def someone(in_host):
    """A head condition, an identity and a text."""
    return pipeline.person(300)


@pytest.fixture
def calls(capface):
    """The evaluations of the network during a test."""
    with pipeline.Calls(capface.network) as calls:
        yield calls
