"""Files that a user has downloaded in a browser, found in a Downloads folder by their content and copied into place."""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ...errors import DownloadFailed
from ..atomic import write_atomically
from ..catalogue import Asset
from ..header import PICKLE_BEGIN, ZIP_BEGIN
from ..sizes import size_text
from .transfer import digests, mismatch

LARGEST = 10_000_000_000
"""Bytes. No file of the catalogue is larger."""
MOST_UNPACKED = 20_000_000_000
"""Bytes. Most that is unpacked of archives to look into them."""
BEGINS = (PICKLE_BEGIN, b"c", b"(", b"}", ZIP_BEGIN)
"""First bytes of the files in question: pickles, old ones too, and archives, which those of torch and numpy are as well."""


@dataclass(frozen=True)
class Download:
    """A file in the Downloads folder, or in an archive there."""

    path: Path
    member: str = ""
    """Its name in the archive, if it is in one."""

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open it for reading."""
        if self.member:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                yield file
        else:
            with self.path.open("rb") as file:
                yield file

    def __str__(self) -> str:
        return f"{self.path} ({self.member})" if self.member else str(self.path)


def recognise(assets: list[Asset], folder: Path, say: Callable[[str], object] = print) -> dict[Asset, Download]:
    """Search a folder, and the archives in it, for files with the assets' checksums, whatever their names.

    Args:
        assets: The files to search for. Those without a checksum cannot be recognised.
        folder: The folder; the folders in it are not searched.
        say: Takes a line about what is read.
    """
    wanted = {checksum: asset for asset in assets for checksum in (asset.sha256, asset.md5) if checksum}
    found: dict[Asset, Download] = {}
    if not wanted or not folder.is_dir():
        return found
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.stat().st_size <= LARGEST]
    kinds = [kind for kind, known in (("SHA-256", "sha256"), ("MD5", "md5")) if any(getattr(asset, known) for asset in assets)]
    sizes = {asset.size for asset in wanted.values()}
    files = [path for path in files if path.stat().st_size in sizes or _begin(path).startswith(BEGINS)]
    if files:
        total = sum(path.stat().st_size for path in files)
        say(f"looking into {len(files)} files of {folder} ({size_text(total)})")
    budget = MOST_UNPACKED
    for path in files:
        if set(wanted.values()) <= set(found):
            break
        with path.open("rb") as file:
            _note(found, wanted, digests(file, kinds), Download(path))
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if member.is_dir() or not 0 < member.file_size <= min(LARGEST, budget):
                        continue
                    with archive.open(member) as file:
                        if not file.read(4).startswith(BEGINS):
                            continue
                    with archive.open(member) as file:
                        budget -= member.file_size
                        got = digests(file, kinds, most=member.file_size)
                        _note(found, wanted, got, Download(path, member.filename))
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError):
            continue  # not an archive, or one that cannot be read: not the file in question
    return found


def copy(download: Download, asset: Asset, target: Path) -> None:
    """Copy a recognised file into place, and compare it once more.

    Raises:
        DownloadFailed: A file is in its place, or the copy differs.
        CannotWrite: The disk cannot be written to.
    """
    if target.exists():
        raise DownloadFailed(f"{target} exists and is kept.")
    target.parent.mkdir(parents=True, exist_ok=True)

    def write(partial: Path) -> None:
        with download.open() as source, partial.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 22)
        if problem := mismatch(partial, asset.sha256, asset.md5):
            raise DownloadFailed(f"{download} has changed while it was copied ({problem}). Run the same command again.")

    write_atomically(target, write, replace=False)


def _note(found: dict[Asset, Download], wanted: dict[str, Asset], got: dict[str, str], download: Download) -> None:
    for checksum in got.values():
        if asset := wanted.get(checksum):
            found.setdefault(asset, download)


def _begin(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError:
        return b""
