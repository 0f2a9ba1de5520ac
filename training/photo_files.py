"""A folder of photos: which there are, whose, what is said of them, and which are the same."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput, MissingFile
from .progress import Progress
from .shards import digest

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
BY_FOLDER, BY_PHOTO = IDENTITIES = ("folder", "photo")
THREADS = 8
"""That read files at once, to tell the same from others."""


@dataclass(frozen=True)
class Photo:
    """A photo, before anybody looked at it."""

    source: str
    """Path relative to the folder of photos, with slashes."""
    identity: str
    """Who it shows: equal for photos of one person."""
    digest: str
    """SHA-256 of the file."""
    size: int
    """Of the file, in bytes."""
    changed: int
    """When the file was last changed, in nanoseconds."""
    same_as: str | None = None
    """The photo before it that is the same file."""


def find_photos(folder: Path, identities: str = BY_FOLDER, known: Iterable[Photo] = ()) -> list[Photo]:
    """The photos in a folder and the folders in it, in the order of their names.

    Args:
        folder: Where they are. Names that begin with a dot are left out.
        identities: "folder": the photos in a folder within it show one person, each of those beside them somebody else;
            "photo": each photo shows somebody else, wherever it lies.
        known: What was found before; files of the same size and time are not read again.

    Raises:
        MissingFile: There is no such folder, or no photo in it.
        BadInput: For another way to tell identities.
    """
    if identities not in IDENTITIES:
        raise BadInput(f"Identities are told by {' or '.join(IDENTITIES)}, got {identities!r}.")
    if not folder.is_dir():
        raise MissingFile(f"There is no folder {folder}. Expected one of photos.")
    paths = sorted(
        (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()),
        key=lambda path: path.as_posix(),
    )
    paths = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    if not paths:
        raise MissingFile(f"There is no photo in {folder}. Expected files that end in {', '.join(ENDINGS)}.")
    before = {photo.source: photo for photo in known}
    progress = Progress("files read", len(paths))
    photos, first = [], {}
    with ThreadPoolExecutor(THREADS) as pool:
        for path, (found, size, changed) in zip(paths, pool.map(lambda p: _look(folder, p, before), paths), strict=True):
            source = path.as_posix()
            identity = path.parent.as_posix() if identities == BY_FOLDER and path.parent.parts else source
            photos.append(Photo(source, identity, found, size, changed, first.get(found)))
            first.setdefault(found, source)
            if len(photos) < len(paths):
                progress.at(len(photos))
    return photos


def _look(folder: Path, path: Path, before: dict[str, Photo]) -> tuple[str, int, int]:
    """Digest, size and time of change of a file; of one that cannot be read, a digest that only it has."""
    stat = (folder / path).stat()
    known = before.get(path.as_posix())
    if known is not None and (known.size, known.changed) == (stat.st_size, stat.st_mtime_ns):
        return known.digest, stat.st_size, stat.st_mtime_ns
    try:
        return digest(folder / path), stat.st_size, stat.st_mtime_ns
    except OSError:
        return "unreadable " + hashlib.sha256(path.as_posix().encode()).hexdigest(), stat.st_size, stat.st_mtime_ns


def caption_of(photo: Path, default: str) -> str:
    """What the text file of a photo's name says, in one line; the default where there is none or it is empty.

    Raises:
        UnicodeDecodeError: The file is no UTF-8 text.
    """
    text = photo.with_suffix(".txt")
    return (" ".join(text.read_text(encoding="utf-8-sig").split()) if text.is_file() else "") or default
