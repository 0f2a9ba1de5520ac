"""The header of a file: how it begins, and the names and shapes of its tensors. No tensor is read, and nothing is unpickled."""

import json
import os
import zipfile
from pathlib import Path

from ..errors import BadFile, MissingFile

ZIP_BEGIN = b"PK\x03\x04"
PICKLE_BEGIN = b"\x80"
ONNX_BEGIN = b"\x08"
"""The field `ir_version`, with which every ONNX writer begins."""
LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header, little-endian, followed by the header as JSON."""
BEGIN_BYTES = 512
LARGEST_HEADER = 100_000_000
PICKLE_BYTES = 8_000_000
"""Bytes read of a pickle of the format before torch 1.6, which names all tensors first."""


def read_begin(path: Path) -> bytes:
    """Read the first 512 bytes of a file, and reject the usual broken downloads by name.

    Args:
        path: Any file.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is empty, a web page or a Git LFS pointer.
    """
    if not path.is_file():
        raise MissingFile(f"There is no file {path}.")
    with path.open("rb") as file:
        begin = file.read(BEGIN_BYTES)
    if not begin:
        raise BadFile(f"{path.name} is empty. Download it again.")
    if begin.lstrip()[:1] == b"<":
        raise BadFile(f"{path.name} is a web page: the download gave a login or error page. Download it again in a browser.")
    if begin.startswith(b"version https://git-lfs"):
        raise BadFile(f"{path.name} is a Git LFS pointer, not the file itself. Run `git lfs pull` or download the file.")
    return begin


def begins_as_safetensors(begin: bytes) -> bool:
    """Whether a file with these first bytes is meant as safetensors, complete or truncated."""
    return begin[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"


def is_safetensors(path: Path) -> bool:
    """Whether a file exists, begins as safetensors does, and is long enough for its header."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        begin = file.read(LENGTH_BYTES + 1)
    return begins_as_safetensors(begin) and int.from_bytes(begin[:LENGTH_BYTES], "little") < path.stat().st_size


def tensor_names(path: str | os.PathLike[str]) -> bytes:
    """Read the part of a file that names its tensors.

    Args:
        path: Any file.

    Returns:
        Bytes that contain the names verbatim; empty if the file names no tensors or is broken.
    """
    try:
        with Path(path).open("rb") as file:
            begin = file.read(LENGTH_BYTES + 1)
            if begin.startswith(ZIP_BEGIN):
                with zipfile.ZipFile(path) as archive:
                    pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
                    return archive.read(pickles[0]) if pickles else b""
            if begins_as_safetensors(begin):
                length = min(int.from_bytes(begin[:LENGTH_BYTES], "little"), LARGEST_HEADER)
                return b"{" + file.read(length - 1)
            return begin + file.read(PICKLE_BYTES) if begin.startswith(PICKLE_BEGIN) else b""
    except (OSError, zipfile.BadZipFile):
        return b""


def tensor_shapes(path: str | os.PathLike[str]) -> dict[str, list[int]]:
    """Read the shapes of a safetensors file's tensors by name.

    Args:
        path: Any file.

    Returns:
        Shapes by name; empty for other formats and broken files.
    """
    names = tensor_names(path)
    if not names.startswith(b"{"):
        return {}
    try:
        return {name: entry["shape"] for name, entry in json.loads(names).items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError):
        return {}
