"""Atomic writing of files: each is either complete or absent, even if writing is interrupted.

A file is written under a temporary name in the same folder, flushed to the disk, and then given its name. Temporary names are
made for one file each (O_EXCL), so that they are never those of a user's file.
"""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from ..errors import BadInput, CannotWrite, CapFaceError
from .sizes import size_text

PARTIAL = ".part"
"""Extension of unfinished files."""
LONGEST_NAME = 255
"""Bytes of a name in UTF-8. Hardly any file system takes longer ones."""

_TEMPORARY = re.compile(r"capface-[0-9a-f]{32}\.part|\d{6}\.tar\.part|.+\.[0-9a-f]{8}\.part")
"""Temporary names: today's, and those of older versions."""
_ALMOST_FULL = 1 << 20
"""Bytes. A writer that does not say why it failed, on a disk with less than this left, has filled the disk."""


def check_name(path: str) -> None:
    """Refuse a relative path that no file system takes.

    Raises:
        BadInput: A part of it is too long, or it holds a null character or half of a surrogate pair.
    """
    try:
        longest = max(len(part.encode()) for part in re.split(r"[/\\]", path))
    except UnicodeEncodeError:
        raise BadInput(
            f"Expected a file name of valid characters, got one with half of a surrogate pair: {path[:80]!a}."
        ) from None
    if "\0" in path:
        raise BadInput(f"Expected a file name of valid characters, got one with a null character: {path[:80]!r}.")
    if longest > LONGEST_NAME:
        raise BadInput(f"Expected file names of at most {LONGEST_NAME} bytes, got one of {longest}: {path[:40]!r}… Shorten it.")


def write_atomically(path: Path, write: Callable[[Path], object], *, replace: bool = True) -> None:
    """Write a file.

    Args:
        path: The file.
        write: Writes to the given path, where an empty file is. If it fails, no file is left behind.
        replace: Whether an existing file is replaced.

    Raises:
        CannotWrite: The folder or the disk cannot be written to, or the file exists and is not to be replaced.
    """
    with _errors_of(path), _temporary(path.parent) as partial:
        _write(partial, write)
        if replace:
            _flush(partial)
            partial.replace(path)
        else:
            publish(partial, path)


def write_numbered(path_of: Callable[[int], Path], first: int, write: Callable[[Path], object]) -> Path:
    """Write the next file of a series. Several processes may do so at once: each file gets a number of its own.

    Args:
        path_of: Returns the path with a number; all are in one folder.
        first: The number to try first. Numbers that are taken are skipped.
        write: As for `write_atomically`.

    Returns:
        The path.

    Raises:
        CannotWrite: As `write_atomically`.
    """
    path = path_of(first)
    with _errors_of(path), _temporary(path.parent) as partial:
        _write(partial, write)
        for number in count(first):
            path = path_of(number)
            with suppress(FileExistsError):
                publish(partial, path)
                break
    return path


def publish(partial: Path, path: Path) -> None:
    """Flush a finished file to the disk and give it its name, unless a file of that name exists.

    Args:
        partial: The finished file, in the same folder.
        path: Its name.

    Raises:
        FileExistsError: A file of that name exists; both are kept.
        OSError: The folder or the disk cannot be written to.
    """
    _flush(partial)
    try:
        path.hardlink_to(partial)  # unlike a rename, this never replaces a file
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # file systems without links, such as exFAT: an empty file reserves the name
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            partial.replace(path)
        except OSError:
            path.unlink()
            raise
    else:
        partial.unlink()


def remove_partial_files(folder: Path) -> None:
    """Remove the unfinished files of killed processes from a folder. Files of other names are kept."""
    for partial in folder.glob(f"*{PARTIAL}"):
        if _TEMPORARY.fullmatch(partial.name):
            partial.unlink()


def cannot_write(path: Path, error: Exception) -> CannotWrite:
    """Return the error that says why a file cannot be written, and what to do.

    Args:
        path: The file.
        error: The error of the operating system, or of a library that writes files.
    """
    number = error.errno if isinstance(error, OSError) else None
    if found := re.search(r"os error (\d+)", str(error)):  # safetensors
        number = int(found[1])
    folder, free = path.parent, None
    with suppress(OSError, ValueError):
        free = shutil.disk_usage(folder).free
    if number is None and free is not None and free < _ALMOST_FULL:
        number = errno.ENOSPC
    left = "" if free is None else f" ({size_text(free)} free)"
    reasons = {
        (errno.ENOSPC, getattr(errno, "EDQUOT", None)): f"the disk of {folder} is full{left}. Make room, or use another folder",
        (
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
        ): f"{folder} may not be written to. Change its permissions, or use another folder",
        (errno.ENAMETOOLONG,): f"its path is too long. Use a name of at most {LONGEST_NAME} bytes, and fewer folders",
        (errno.EFBIG,): f"the disk of {folder} or a limit of the system takes no file of this size. Use another folder",
        (errno.ENOENT, errno.ENOTDIR): f"there is no folder {folder}. Make it, or use another folder",
        (errno.EEXIST,): "a file of this name exists. Choose another name, or turn on overwrite",
        (errno.EISDIR,): "a folder has this name. Choose another name",
    }
    for numbers, reason in reasons.items():
        if number is not None and number in numbers:
            return CannotWrite(f"{_shown(path)} was not written: {reason}.")
    what = errno.errorcode.get(number or 0) or type(error).__name__
    return CannotWrite(f"{_shown(path)} was not written ({what}){left}. Check the disk, or use another folder.")


def _shown(path: Path) -> str:
    name = path.name.encode(errors="replace").decode()
    return name if len(name) <= 80 else f"{name[:60]}…"


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Raise `CannotWrite` for errors of the system and of libraries that write files."""
    try:
        yield
    except CapFaceError:
        raise
    except Exception as error:
        # torch raises RuntimeError; this module must not import safetensors
        if isinstance(error, OSError | ValueError | RuntimeError) or type(error).__name__ == "SafetensorError":
            raise cannot_write(path, error) from error
        raise


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """Make an empty file with a name of its own in a folder, and remove it in the end if it still has this name."""
    partial = folder / f"capface-{uuid.uuid4().hex}{PARTIAL}"
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield partial
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _write(partial: Path, write: Callable[[Path], object]) -> None:
    """Write a temporary file and keep its permissions: safetensors would let only its owner read it."""
    mode = partial.stat().st_mode
    write(partial)
    partial.chmod(mode)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
