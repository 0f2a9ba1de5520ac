"""The tests in this folder need what those of tests/host need, and a browser."""

from importlib.metadata import PackageNotFoundError, version

from capface.tests.host.conftest import comfyui

__all__ = ["FRONTEND", "NO_DOM_WIDGETS_IN_NODES_2", "comfyui"]

try:
    FRONTEND = tuple(int(number) for number in version("comfyui_frontend_package").split(".")[:2])
except PackageNotFoundError:  # without a ComfyUI every test here is skipped
    FRONTEND = (0, 0)
NO_DOM_WIDGETS_IN_NODES_2 = FRONTEND < (1, 28) and (
    f"in frontend {FRONTEND} Nodes 2.0 were an experiment that showed no pack's own widgets"
)
"""Why not, or False; 1.27 and 1.35 are what was looked at."""
