"""Writing files so that they are complete or absent, whatever happens in between."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path

PARTIAL = ".part"
"""What the names of unfinished files end in."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name beside its place, flush it to the disk, and rename it.

    Args:
        path: The file; one of that name is replaced.
        write: Writes to the path that it is given. What it raises is passed on, and nothing is left behind.

    Raises:
        OSError: The folder or the disk does not allow it.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Remove what writes that were killed have left in a folder."""
    for partial in folder.glob(f"*{PARTIAL}"):
        partial.unlink()
