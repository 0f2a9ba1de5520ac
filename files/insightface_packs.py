"""The folders that insightface's model packs are unpacked into."""

import logging
from pathlib import Path

from ..errors import MissingFile

PACKS = ("buffalo_l", "antelopev2")
INSIGHTFACE_SOURCE = "github.com/deepinsight/insightface, releases (weights for non-commercial research only)"
DETECTOR_FILES = ("det_*.onnx", "scrfd_*.onnx")  # det_10g.onnx in buffalo_l, scrfd_10g_bnkps.onnx in antelopev2
LANDMARK_FILE = "1k3d68.onnx"
RECOGNITION_FILES = ("w600k_*.onnx", "glintr100.onnx", "arcface_*.onnx")  # of buffalo_l, of antelopev2, and of older packs

log = logging.getLogger("capface")


def find_pack(root, name):
    """The folder of an insightface pack.

    An archive unpacked into a folder of its own name (`antelopev2/antelopev2`) or next to `models` is found as well.

    Args:
        root: The folder that holds `models/<name>`.
        name: The pack's name.

    Returns:
        The folder that holds its detector.

    Raises:
        MissingFile: When none does: says where was looked, what is missing and where it comes from.
    """
    root = Path(root)
    usual = root / "models" / name
    folders = (usual, usual / name, root / name, root / name / name)
    for folder in folders:
        if pack_files(folder)[0] is not None:
            if folder != usual:
                log.warning("insightface's %s lies in %s; its usual place is %s.", name, folder, usual)
            return folder
    lying = sorted(path.name for folder in folders if folder.is_dir() for path in folder.iterdir())
    there = f" That folder holds {', '.join(lying[:6])}." if lying else ""
    raise MissingFile(
        f"insightface's {name} is not in {usual}: expected a detector ({' or '.join(DETECTOR_FILES)}) and the landmarks "
        f"({LANDMARK_FILE}).{there} Unpack {name}.zip from {INSIGHTFACE_SOURCE} into that folder; "
        "nothing is downloaded by itself."
    )


def pack_files(folder):
    """Detector and landmark network of a folder, None for what is not there."""
    found = sorted(path for pattern in DETECTOR_FILES for path in folder.glob(pattern))
    landmarks = folder / LANDMARK_FILE
    return (found[0] if found else None), (landmarks if landmarks.is_file() else None)
