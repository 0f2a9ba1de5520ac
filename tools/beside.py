"""Packs of others that a workflow needs beside this one: which, where they lie, and what they need to load.

They are looked for in the folders that PACKS names (separated as PATH is), else in ~/comfy/packs.

Needs the standard library only.
"""

import importlib.util
import os
import shutil
from pathlib import Path

IMPACT = "ComfyUI-Impact-Pack"
NEEDS = {"face_detailer_impact": IMPACT}
"""Workflow -> the pack that it needs. All others are of core nodes and this pack's alone."""
NODES = {IMPACT: {"DetailerForEach", "MaskToSEGS"}}
"""Pack -> its nodes that workflows use."""
PACKAGES = {IMPACT: ("piexif", "dill", "segment_anything", "skimage", "cv2", "git")}
"""Pack -> the Python packages without which it does not load."""
NO_DETECTORS = "NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = {}, {}\n"


def folder_of(pack):
    """The pack's folder, or None."""
    roots = [Path(p) for p in os.environ.get("PACKS", "").split(os.pathsep) if p] or [Path.home() / "comfy" / "packs"]
    return next((root / pack for root in roots if (root / pack).is_dir()), None)


def why_not(pack):
    """Why the pack cannot run here, or None."""
    if folder_of(pack) is None:
        return f"no {pack}: put it into ~/comfy/packs, or name the folder with the packs in PACKS"
    lacks = [name for name in PACKAGES.get(pack, ()) if importlib.util.find_spec(name) is None]
    return f"{pack} needs the packages {', '.join(lacks)}" if lacks else None


def copy_of(pack, folder):
    """A copy of the pack to load into a ComfyUI, without its scripts for the canvas: the stored ones break newer frontends.

    An Impact Pack from before its version 8 fetches its detectors as a pack of their own; they need ultralytics, and its
    detailers do not use them. A module without detectors takes their place.

    Args:
        pack: The pack's name.
        folder: Where the copy goes.

    Returns:
        The copy's folder.
    """
    copy = Path(folder) / pack
    source = folder_of(pack)
    assert source is not None, "only a pack that was found is copied"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", "*.js"))
    detectors = copy / "modules" / "impact" / "subpack_nodes.py"
    if pack == IMPACT and not detectors.exists():
        detectors.write_text(NO_DETECTORS, encoding="utf-8")
    return copy
