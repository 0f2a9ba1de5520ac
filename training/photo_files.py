"""A folder of photos: paths, identities, captions and duplicates."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput, MissingFile
from .progress import Progress
from .shards import digest

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
BY_FOLDER, BY_PHOTO = "folder", "photo"
IDENTITIES = (BY_FOLDER, BY_PHOTO)
"""Ways to group photos by person, see `find_photos`."""
THREADS = 8
"""Number of threads that read files to find duplicates."""


@dataclass(frozen=True)
class Photo:
    """A photo file, before it is decoded."""

    source: str
    """Path relative to the folder of photos, with slashes."""
    identity: str
    """Name of the person; equal for photos of the same person."""
    digest: str
    """SHA-256 of the file."""
    size: int
    """Size of the file, in bytes."""
    changed: int
    """Modification time of the file, in nanoseconds."""
    same_as: str | None = None
    """Source of an earlier photo with the same contents."""


def find_photos(folder: Path, identities: str = BY_FOLDER, known: Iterable[Photo] = ()) -> list[Photo]:
    """Find the photos in a folder and its subfolders, sorted by path.

    Args:
        folder: The folder. Names that begin with a dot are skipped.
        identities: "folder": all photos in a subfolder show one person, and each photo beside the subfolders another one;
            "photo": each photo shows a different person.
        known: Photos that were found before; files with the same size and modification time are not read again.

    Raises:
        MissingFile: The folder does not exist or contains no photo.
        BadInput: `identities` is not one of `IDENTITIES`.
    """
    if identities not in IDENTITIES:
        raise BadInput(f"Expected identities by {' or '.join(IDENTITIES)}, got {identities!r}.")
    if not folder.is_dir():
        raise MissingFile(f"There is no folder {folder}. Expected a folder of photos.")
    paths = sorted(
        (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()),
        key=lambda path: path.as_posix(),
    )
    paths = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    if not paths:
        raise MissingFile(f"There is no photo in {folder}. Expected files that end in {', '.join(ENDINGS)}.")
    before = {photo.source: photo for photo in known}
    progress = Progress("files read", len(paths))
    photos: list[Photo] = []
    first: dict[str, str] = {}  # source of the first photo with a digest
    with ThreadPoolExecutor(THREADS) as pool:
        for path, (found, size, changed) in zip(paths, pool.map(lambda p: _inspect(folder, p, before), paths), strict=True):
            source = path.as_posix()
            identity = path.parent.as_posix() if identities == BY_FOLDER and path.parent.parts else source
            photos.append(Photo(source, identity, found, size, changed, first.get(found)))
            first.setdefault(found, source)
            if len(photos) < len(paths):
                progress.at(len(photos))
    return photos


def _inspect(folder: Path, path: Path, before: dict[str, Photo]) -> tuple[str, int, int]:
    """Return digest, size and modification time of a file. If it cannot be read, its digest is unique."""
    stat = (folder / path).stat()
    known = before.get(path.as_posix())
    if known is not None and (known.size, known.changed) == (stat.st_size, stat.st_mtime_ns):
        return known.digest, stat.st_size, stat.st_mtime_ns
    try:
        return digest(folder / path), stat.st_size, stat.st_mtime_ns
    except OSError:
        return "unreadable " + hashlib.sha256(path.as_posix().encode()).hexdigest(), stat.st_size, stat.st_mtime_ns


def caption_of(photo: Path, default: str) -> str:
    """Read the caption of a photo from the text file beside it, as one line.

    Args:
        photo: Path of the photo.
        default: Caption if the text file is missing or empty.

    Raises:
        UnicodeDecodeError: The file is not UTF-8 text.
    """
    file = photo.with_suffix(".txt")
    if not file.is_file():
        return default
    return " ".join(file.read_text(encoding="utf-8-sig").split()) or default
