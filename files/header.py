"""The header of a file: how it begins, and the names and shapes of its tensors. No tensor is read, and nothing is unpickled."""

import json
import os
import zipfile
from pathlib import Path

from ..errors import BadFile, MissingFile, quote
from .boundary import reading
from .budgets import LARGEST_HEADER, LARGEST_PICKLE, LONGEST_NAME, MOST_AXES, MOST_MEMBERS, MOST_TENSORS

ZIP_BEGIN = b"PK\x03\x04"
PICKLE_BEGIN = b"\x80"
ONNX_BEGIN = b"\x08"
"""The field `ir_version`, with which every ONNX writer begins."""
LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header, little-endian, followed by the header as JSON."""
BEGIN_BYTES = 512
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
    name = quote(path.name)
    with reading(path, "a file"):
        if not path.is_file():
            raise MissingFile(f"There is no file {quote(os.fspath(path), 200)}.")
        with path.open("rb") as file:
            begin = file.read(BEGIN_BYTES)
    if not begin:
        raise BadFile(f"{name} is empty. Download it again.")
    if begins_as_safetensors(begin) or begin.startswith((ZIP_BEGIN, PICKLE_BEGIN)):
        return begin  # some begin like a text
    if begin.lstrip()[:1] == b"<":
        raise BadFile(f"{name} is a web page: the download gave a login or error page. Download it again in a browser.")
    if begin.startswith(b"version https://git-lfs"):
        raise BadFile(f"{name} is a Git LFS pointer, not the file itself. Run `git lfs pull` or download the file.")
    return begin


def begins_as_safetensors(begin: bytes) -> bool:
    """Whether a file with these first bytes is meant as safetensors, complete or truncated."""
    length = int.from_bytes(begin[:LENGTH_BYTES], "little")
    return begin[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" and length <= LARGEST_HEADER


def is_safetensors(path: Path) -> bool:
    """Whether a file exists, begins as safetensors does, and is long enough for its header."""
    try:
        with reading(path, "a safetensors file"), path.open("rb") as file:
            begin = file.read(LENGTH_BYTES + 1)
            return begins_as_safetensors(begin) and int.from_bytes(begin[:LENGTH_BYTES], "little") < path.stat().st_size
    except (BadFile, MissingFile):
        return False


def tensor_names(path: str | os.PathLike[str]) -> bytes:
    """Read the part of a file that names its tensors.

    Args:
        path: Any file.

    Returns:
        Bytes that contain the names verbatim; empty if the file names no tensors or is broken.
    """
    try:
        with reading(path, "a checkpoint"), Path(path).open("rb") as file:
            begin = file.read(LENGTH_BYTES + 1)
            if begin.startswith(ZIP_BEGIN):
                with zipfile.ZipFile(path) as archive:
                    members = archive.infolist()
                    pickles = [member for member in members if member.filename.endswith("data.pkl")]
                    if not pickles or len(members) > MOST_MEMBERS:
                        return b""
                    with archive.open(pickles[0]) as stream:
                        return stream.read(LARGEST_PICKLE)
            if begins_as_safetensors(begin):
                length = int.from_bytes(begin[:LENGTH_BYTES], "little")
                return b"{" + file.read(length - 1)
            return begin + file.read(PICKLE_BYTES) if begin.startswith(PICKLE_BEGIN) else b""
    except (BadFile, MissingFile):
        return b""


def tensor_shapes(path: str | os.PathLike[str]) -> dict[str, list[int]]:
    """Read the shapes of a safetensors file's tensors by name.

    Args:
        path: Any file.

    Returns:
        Shapes by name; empty for other formats and broken files.
    """
    names = tensor_names(path)
    if not names.startswith(b"{") or names.count(b"{") > MOST_TENSORS:
        return {}
    try:
        with reading(path, "a safetensors file"):
            entries = json.loads(names)
            shapes = {name: entry["shape"] for name, entry in entries.items() if name != "__metadata__"}
    except BadFile:
        return {}
    return {name: shape for name, shape in shapes.items() if len(name) <= LONGEST_NAME and _is_shape(shape)}


def _is_shape(shape: object) -> bool:
    return isinstance(shape, list) and len(shape) <= MOST_AXES and all(type(n) is int and n >= 0 for n in shape)
