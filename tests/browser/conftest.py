"""The tests in this folder have the requirements of tests/host, and need a browser."""

from capface.tests.host.conftest import comfyui
from capface.tools.comfy import find_frontend, frontend_version

__all__ = ["FRONTEND", "NO_DOM_WIDGETS_IN_NODES_2", "comfyui"]

# Version of the served frontend; without a ComfyUI, every test here is skipped.
FRONTEND = tuple(int(number) for number in (frontend_version(find_frontend()) or "0.0").split(".")[:2])
NO_DOM_WIDGETS_IN_NODES_2 = FRONTEND < (1, 28) and (
    f"in frontend {FRONTEND} Nodes 2.0 were an experiment that showed no pack's own widgets"
)
"""The reason to skip, or False; 1.27 and 1.35 are the tested versions."""
