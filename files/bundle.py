"""Safe reading of a small zip archive, such as MediaPipe's `.task` files, which are zip archives of networks."""

import zipfile
from pathlib import Path

from ..errors import BadFile, MissingFile, quote
from .boundary import reading, reads

LARGEST_BUNDLE = 1 << 25
"""Bytes of the archive, and of its members together after unpacking. face_landmarker.task has 3.8 million."""
LARGEST_DIRECTORY = 1 << 16
"""Bytes of the archive's list of members."""
_AGAIN = "Download the file again."
END, END_BYTES, ZIP64_BEFORE, LONGEST_COMMENT = b"PK\x05\x06", 22, b"PK\x06\x07", 1 << 16
"""The record that ends a zip archive and its length; the one in front of it in archives above 4 GB."""


def member_names(path: Path) -> list[str]:
    """List the members of a zip archive; empty for other, broken and very large archives."""
    try:
        with _open(path) as archive:
            return archive.namelist()
    except (BadFile, MissingFile):
        return []


def read_bundle(path: Path) -> dict[str, bytes]:
    """Unpack a small zip archive into memory.

    Args:
        path: The archive.

    Returns:
        The members' contents by name.

    Raises:
        BadFile: The file is not a zip archive, is truncated or malformed, or exceeds the limits above.
    """
    contents: dict[str, bytes] = {}
    left = LARGEST_BUNDLE
    with _open(path) as archive:
        for member in archive.infolist():
            with (
                reading(f"{path.name} ({quote(member.filename)})", "a file in an archive", _AGAIN),
                archive.open(member) as stream,
            ):
                content = stream.read(left + 1)  # what is unpacked counts, not the size that the archive states
            left -= len(content)
            if left < 0:
                raise _bad(path, f"its members have more than {LARGEST_BUNDLE:,} bytes")
            contents[member.filename] = content
    return contents


@reads("a zip archive", _AGAIN)
def _open(path: Path) -> zipfile.ZipFile:
    size = path.stat().st_size
    if size > LARGEST_BUNDLE:
        raise _bad(path, f"expected at most {LARGEST_BUNDLE:,} bytes, got {size:,}")
    # zipfile holds the whole list of members in memory, so its stated length is checked first
    with path.open("rb") as file:
        file.seek(max(0, size - END_BYTES - 20 - LONGEST_COMMENT))
        tail = file.read()
    place = tail.rfind(END)
    if place < 0 or len(tail) - place < END_BYTES:
        raise _bad(path, "it is not a zip archive, or it is truncated")
    if tail[max(0, place - 20) :].startswith(ZIP64_BEFORE):
        raise _bad(path, "it is a zip archive for more than 4 GB")
    if (length := int.from_bytes(tail[place + 12 : place + 16], "little")) > LARGEST_DIRECTORY:
        raise _bad(path, f"its list of members has {length:,} bytes, expected at most {LARGEST_DIRECTORY:,}")
    return zipfile.ZipFile(path)


def _bad(path: Path, problem: str) -> BadFile:
    return BadFile(f"{quote(path.name)} cannot be read: {problem}. {_AGAIN}")
