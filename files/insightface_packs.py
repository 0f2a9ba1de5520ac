"""The folders of insightface's model packs."""

import logging
import os
from pathlib import Path

from ..errors import MissingFile
from .catalogue import INSIGHTFACE

PACKS = ("buffalo_l", "antelopev2")
DETECTOR_FILES = ("det_*.onnx", "scrfd_*.onnx")  # det_10g.onnx in buffalo_l, scrfd_10g_bnkps.onnx in antelopev2
LANDMARK_FILE = "1k3d68.onnx"
RECOGNITION_FILES = ("w600k_*.onnx", "glintr100.onnx", "arcface_*.onnx")  # of buffalo_l, of antelopev2, and of older packs

log = logging.getLogger("capface")


def find_pack(root: str | os.PathLike[str], name: str) -> Path:
    """Find the folder of an insightface pack.

    An archive that was unpacked into a folder of its own name (`antelopev2/antelopev2`) or beside `models` is also found.

    Args:
        root: The folder that contains `models/<name>`.
        name: The pack's name.

    Returns:
        The folder that contains its detector.

    Raises:
        MissingFile: No folder contains a detector. The message states the folder, the missing files and their source.
    """
    root = Path(root)
    usual = root / "models" / name
    folders = (usual, usual / name, root / name, root / name / name)
    for folder in folders:
        if pack_files(folder)[0] is not None:
            if folder != usual:
                log.warning("insightface's %s is in %s; its usual place is %s.", name, folder, usual)
            return folder
    lying = sorted(path.name for folder in folders if folder.is_dir() for path in folder.iterdir())
    there = f" That folder holds {', '.join(lying[:6])}." if lying else ""
    raise MissingFile(
        f"insightface's {name} is not in {usual}: expected a detector ({' or '.join(DETECTOR_FILES)}) and the landmarks "
        f"({LANDMARK_FILE}).{there} Unpack {name}.zip from {INSIGHTFACE.provenance} into that folder; "
        "nothing is downloaded automatically."
    )


def pack_files(folder: Path) -> tuple[Path | None, Path | None]:
    """Return the detector and the landmark network of a folder; None for a missing one."""
    found = sorted(path for pattern in DETECTOR_FILES for path in folder.glob(pattern))
    landmarks = folder / LANDMARK_FILE
    return (found[0] if found else None), (landmarks if landmarks.is_file() else None)
