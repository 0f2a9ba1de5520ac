"""CapFace Check inside ComfyUI: its model folders, its device, and the report on them."""

import platform
import sys
from pathlib import Path

import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch

from ..files.capabilities import Inventory
from ..files.scan import SearchPaths, scan
from ..files.scan_report import report
from ..files.sizes import size_text
from ..files.weights import command
from ..flame.io.inspection import INSPECTORS
from . import model_folders
from .capface_model import SUPPORTED_DTYPES

NO_MODELS = ("custom_nodes", "configs")
"""Kinds of ComfyUI's folders that hold no models."""


def check(verify: bool = False) -> str:
    """Look at everything and report.

    Args:
        verify: Whether to compute the checksums of the files that are found, with progress, and interruptible.
    """
    bar = []

    def progress(done: int, total: int):
        mm.throw_exception_if_processing_interrupted()
        if not bar:
            bar.append(comfy.utils.ProgressBar(total))
        bar[0].update_absolute(done)

    found = scan(search_paths(), inspectors=INSPECTORS, verify=verify, progress=progress)
    return report(machine(), Inventory(found, _listed("checkpoints"), _listed("clip_vision")), fetch_line)


def fetch_line(*names: str) -> str:
    """Return the line for a terminal that fetches files into this ComfyUI. Nothing here runs it.

    Args:
        names: Names of files, or "portrait".
    """
    base, models = Path(folder_paths.base_path), Path(folder_paths.models_dir)
    own = (base / "folder_paths.py").is_file() and models == base / "models"
    return command("get", *names, *(("--comfyui", str(base)) if own else ("--models", str(models))))


def search_paths() -> SearchPaths:
    """Return ComfyUI's model folders, those of extra_model_paths.yaml too, as they are now."""
    model_folders.register_folders()
    kinds = [kind for kind in folder_paths.folder_names_and_paths if kind not in NO_MODELS]
    folders = {kind: [Path(path) for path in folder_paths.get_folder_paths(kind)] for kind in kinds}
    roots = dict.fromkeys([Path(folder_paths.models_dir), *(folder for paths in folders.values() for folder in paths)])
    return SearchPaths(folders, {kind: _listed(kind) for kind in kinds}, [root for root in roots if root.is_dir()])


def _listed(kind: str) -> list[Path]:
    """The files that ComfyUI lists for a kind."""
    paths = (folder_paths.get_full_path(kind, name) for name in folder_paths.get_filename_list(kind))
    return [Path(path) for path in paths if path is not None]


def machine() -> list[str]:
    """Describe versions, device and type of the weights."""
    import comfyui_version

    device = mm.get_torch_device()
    dtype = mm.unet_dtype(device=device, model_params=-1, supported_dtypes=SUPPORTED_DTYPES)
    return [
        f"CapFace in ComfyUI {comfyui_version.__version__}, Python {platform.python_version()} on {sys.platform}, "
        f"torch {torch.__version__}",
        f"Device: {mm.get_torch_device_name(device)}, {size_text(mm.get_total_memory(device))} of memory; "
        f"CapFace's weights in {str(dtype).removeprefix('torch.')} (Load CapFace, dtype auto)",
    ]
