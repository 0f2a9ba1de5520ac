"""Third-party packs that some workflows need: which packs, where they are installed, and what they need to load.

The packs are searched for in the folders listed in PACKS (separated like PATH), else in ~/comfy/packs.

Needs the standard library only.
"""

import importlib.util
import os
import shutil
from pathlib import Path

IMPACT = "ComfyUI-Impact-Pack"
INSTANTID = "ComfyUI_InstantID"
NEEDS = {"face_detailer_impact": IMPACT, "sdxl_instantid": INSTANTID}
"""Workflow -> the pack that it needs. All other workflows use only core nodes and nodes of this pack."""
NODES = {
    IMPACT: {"DetailerForEach", "MaskToSEGS"},
    INSTANTID: {"ApplyInstantID", "InstantIDFaceAnalysis", "InstantIDModelLoader"},
}
"""Pack -> those of its nodes that the workflows use."""
PACKAGES = {
    IMPACT: ("piexif", "dill", "segment_anything", "skimage", "cv2", "git"),
    INSTANTID: ("insightface", "onnxruntime", "cv2"),
}
"""Pack -> the Python packages that it needs to load."""
OTHER_MODELS = ("qwen_image_head", "sdxl_instantid")
"""Workflows that drive other models than SD 1.5. There are no stand-ins for these models."""
NO_DETECTORS = "NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = {}, {}\n"


def folder_of(pack):
    """Return the pack's folder, or None."""
    roots = [Path(p) for p in os.environ.get("PACKS", "").split(os.pathsep) if p] or [Path.home() / "comfy" / "packs"]
    return next((root / pack for root in roots if (root / pack).is_dir()), None)


def why_not(pack):
    """Return the reason why the pack cannot run here, or None."""
    if folder_of(pack) is None:
        return f"no {pack}: put it into ~/comfy/packs, or name the folder with the packs in PACKS"
    lacks = [name for name in PACKAGES.get(pack, ()) if importlib.util.find_spec(name) is None]
    return f"{pack} needs the packages {', '.join(lacks)}" if lacks else None


def copy_of(pack, folder):
    """Copy a pack for loading into a ComfyUI, without its frontend scripts, because the bundled ones break newer frontends.

    Before version 8, the Impact Pack downloads its detectors as a separate pack. They need ultralytics, and its detailers do
    not use them, so a module without detectors takes their place.

    Args:
        pack: The pack's name.
        folder: The folder that receives the copy.

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
