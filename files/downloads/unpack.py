"""Archives, unpacked without trusting them: their names, their sizes, and what they claim to unpack to."""

import fnmatch
import os
import shutil
import stat
import uuid
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ...errors import BadFile, DownloadFailed
from ..atomic import PARTIAL, publish
from ..sizes import size_text

LARGEST = 2_000_000_000
"""Bytes. Most that an archive of the catalogue may unpack to."""
MOST_RATIO = 20
"""Weights hardly compress; an archive that unpacks to more than this many times its size is not one of weights."""
MOST_FILES = 1000
BLOCK = 1 << 20


def unpack(archive: Path, folder: Path, pattern: str, largest: int = LARGEST) -> list[Path]:
    """Unpack the files of an archive that a pattern names, flat, into a folder. Existing files are kept.

    Args:
        archive: A zip file.
        folder: Where the files go; it is made if it does not exist.
        pattern: Pattern of the names, such as "*.onnx".
        largest: Most bytes to unpack.

    Returns:
        The files that were unpacked.

    Raises:
        BadFile: The archive is broken, unsafe, or holds no such file. Nothing is unpacked.
        DownloadFailed: The disk is too small.
    """
    temporary = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(archive, opened, pattern, min(largest, MOST_RATIO * archive.stat().st_size))
            total = sum(member.file_size for member in members.values())
            folder.parent.mkdir(parents=True, exist_ok=True)
            if (free := shutil.disk_usage(folder.parent).free) < total:
                raise DownloadFailed(
                    f"{archive.name} unpacks to {size_text(total)}, but the disk of {folder.parent} has {size_text(free)} "
                    "free. Make room and run the same command again."
                )
            temporary.mkdir()
            for name, member in members.items():
                _write(opened, member, temporary / name)
        if not folder.exists():
            temporary.rename(folder)
            return [folder / name for name in members]
        unpacked = [folder / name for name in members if not (folder / name).exists()]
        for path in unpacked:
            publish(temporary / path.name, path)
        return unpacked
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise BadFile(f"{archive.name} is a broken archive ({error}). Remove it and fetch it again.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _members(archive: Path, opened: zipfile.ZipFile, pattern: str, budget: int) -> dict[str, zipfile.ZipInfo]:
    """Choose what to unpack, by the name that it gets; reject the archive if any of its names is unsafe."""
    entries = opened.infolist()
    if len(entries) > MOST_FILES:
        raise BadFile(f"{archive.name} has {len(entries)} entries; expected at most {MOST_FILES}. It is not unpacked.")
    chosen: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        path = PurePosixPath(entry.filename)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        unsafe = path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in entry.filename
        if unsafe or "\0" in entry.orig_filename or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BadFile(f"{archive.name} has an unsafe entry, {entry.filename!r}. It is not unpacked.")
        if entry.is_dir() or not fnmatch.fnmatchcase(path.name, pattern):
            continue
        if path.name.lower() in {name.lower() for name in chosen}:
            raise BadFile(f"{archive.name} has two files named {path.name}. It is not unpacked.")
        chosen[path.name] = entry
    if not chosen:
        raise BadFile(f"Expected files {pattern} in {archive.name}, got {len(entries)} other entries.")
    if (total := sum(entry.file_size for entry in chosen.values())) > budget:
        raise BadFile(
            f"{archive.name} unpacks to {size_text(total)}; expected at most {size_text(budget)}. It is not unpacked."
        )
    return chosen


def _write(opened: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Unpack one file, no longer than the archive states."""
    left = member.file_size
    with opened.open(member) as source, path.open("xb") as file:
        while block := source.read(min(BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                raise zipfile.BadZipFile(f"{member.filename} is longer than stated")
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if left:
        raise zipfile.BadZipFile(f"{member.filename} is shorter than stated")
