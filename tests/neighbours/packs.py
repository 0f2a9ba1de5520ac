"""Finding the other packs, their versions, and loading them as ComfyUI does. Only `load` needs a ComfyUI."""

import asyncio
import os
import subprocess
import sys
import types
from pathlib import Path

FOLDERS = {
    "Ultimate SD Upscale": "ComfyUI_UltimateSDUpscale",
    "Tiled Diffusion": "ComfyUI-TiledDiffusion",
    "TiledKSampler": "ComfyUI_TiledKSampler",
    "Efficiency Nodes": "efficiency-nodes-comfyui",
    "AnimateDiff-Evolved": "ComfyUI-AnimateDiff-Evolved",
    "Advanced-ControlNet": "ComfyUI-Advanced-ControlNet",
    "Impact Pack": "ComfyUI-Impact-Pack",
    "Inspire Pack": "ComfyUI-Inspire-Pack",
    "Inpaint Crop and Stitch": "ComfyUI-Inpaint-CropAndStitch",
    "IPAdapter plus": "ComfyUI_IPAdapter_plus",
    "ControlNet Auxiliary": "comfyui_controlnet_aux",
    "DeepCache": "ComfyUI-deepcache",
    "DeepCache Fix": "ComfyUI-DeepCache-Fix",
    "KJNodes": "ComfyUI-KJNodes",
    "rgthree": "rgthree-comfy",
    "Use Everywhere": "cg-use-everywhere",
}
"""The common name of a pack -> the name of its folder."""


class PackMissing(Exception):
    """A pack's folder is missing."""


def pack_folder(name):
    """Return the folder of a pack in one of the folders listed in PACKS, else in ~/comfy/packs."""
    roots = os.environ.get("PACKS", "").split(os.pathsep) if os.environ.get("PACKS") else [Path.home() / "comfy" / "packs"]
    for root in roots:
        folder = Path(root).expanduser() / FOLDERS[name]
        if (folder / "__init__.py").is_file():
            return folder
    raise PackMissing(f"no {FOLDERS[name]} in {', '.join(map(str, roots))}: set PACKS to the folder that holds the packs")


def pack_version(name):
    """Return the version that a pack states and the checked-out commit, such as "1.7.1, 34a3c2c"."""
    folder = pack_folder(name)
    project = folder / "pyproject.toml"
    lines = project.read_text(encoding="utf-8").splitlines() if project.is_file() else []
    found = [line.partition("=")[2].strip().strip("\"'") for line in lines if line.replace(" ", "").startswith("version=")]
    commit = folder / "COMMIT"
    if commit.is_file():
        found.append(commit.read_text(encoding="utf-8").strip())
    elif (folder / ".git").exists():
        git = ["git", "-C", str(folder), "log", "-1", "--format=%h"]
        found.append(subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip())
    return ", ".join(part for part in found if part) or "unknown"


def load(nodes, names):
    """Load packs into the host in this process.

    Args:
        nodes: The host's module of that name.
        names: Keys of `FOLDERS`, loaded in this order.

    Returns:
        Name -> error, for the packs that did not load.
    """
    import server

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server.PromptServer(loop)
    loop.run_until_complete(nodes.init_builtin_extra_nodes())  # as in ComfyUI: some packs import them in another order
    # Impact's detectors are a separate pack that needs ultralytics; its detailers do not use them.
    detectors = types.ModuleType("impact.subpack_nodes")
    vars(detectors).update(NODE_CLASS_MAPPINGS={}, NODE_DISPLAY_NAME_MAPPINGS={})
    sys.modules["impact.subpack_nodes"] = detectors
    failed = {}
    for name in names:
        folder = pack_folder(name)
        argv, sys.argv = sys.argv, sys.argv[:1]  # some parse the command line
        try:
            if not loop.run_until_complete(nodes.load_custom_node(str(folder), module_parent="custom_nodes")):
                failed[name] = "did not load: see the log"
        except SystemExit as e:
            failed[name] = f"ended the process: {e}"
        finally:
            sys.argv = argv
    return failed
