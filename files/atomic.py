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


def publish(partial: Path, path: Path) -> None:
    """Flush a finished file to the disk and give it its name, unless a file of that name exists.

    Args:
        partial: The finished file, in the same folder.
        path: Its name.

    Raises:
        FileExistsError: A file of that name exists; both are kept.
        OSError: The folder or the disk cannot be written to.
    """
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    try:
        path.hardlink_to(partial)  # unlike a rename, this never replaces a file
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # file systems without links, such as exFAT
        if path.exists():
            raise FileExistsError(f"{path} exists.") from None
        partial.rename(path)
    else:
        partial.unlink()


def remove_partial_files(folder: Path) -> None:
    """Remove the unfinished files of killed processes from a folder."""
    for partial in folder.glob(f"*{PARTIAL}"):
        partial.unlink()
