"""Atomic writing of files: each is either complete or absent, even if writing is interrupted."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path

PARTIAL = ".part"
"""Extension of unfinished files."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name in the same folder, flush it to the disk, and rename it.

    Args:
        path: The file; an existing one is replaced.
        write: Writes to the given path. Its errors are passed on, and no file is left behind.

    Raises:
        OSError: The folder or the disk cannot be written to.
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
    """Remove the unfinished files of killed processes from a folder."""
    for partial in folder.glob(f"*{PARTIAL}"):
        partial.unlink()
