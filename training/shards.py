"""A training set on disk: WebDataset shards, an index beside each, and one file that says what the whole is.

A shard is an uncompressed tar that the package webdataset reads as it is. The members of the sample KEY:

    KEY.jpg          the portrait, RGB
    KEY.json         caption, identity, source, the head (as Save Head writes it, in degrees) and how well it fits
    KEY.global.npy   float32 [512], FaceNet's embedding
    KEY.local.npy    float16 [257, 1024], CLIP's tokens before the last layer norm
    KEY.parsing.png  the face parser's labels, where it was there

The index of a shard, a JSON file of its name, says where each member lies, so that samples can be read in any order, what was
rejected while it was made, and the time that took. A shard is finished when its index is there; both appear whole or not at
all.
"""

import hashlib
import io
import json
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import BadFile, MissingFile
from ..files.atomic import write_atomically

FORMAT, VERSION = "capface.training-set", 1
DATASET = "dataset.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Sample:
    """A sample as files."""

    key: str
    """Its name in the shard."""
    identity: str
    source: str
    """The photo that it was made of, relative to the folder of photos."""
    members: dict[str, bytes]
    """What each file, named by its ending, holds."""


@dataclass(frozen=True)
class Place:
    """A sample in a shard."""

    key: str
    identity: str
    source: str
    members: dict[str, tuple[int, int]]
    """Where each file begins in the tar, and how long it is, in bytes."""


def shard_name(number: int) -> str:
    """Name of a shard's tar."""
    return f"{number:06d}.tar"


def write_shard(folder: Path, number: int, samples: list[Sample], about: dict) -> None:
    """Write a shard and its index. Equal samples give equal bytes.

    Args:
        folder: The training set's.
        number: Of the shard.
        samples: What goes in; without any, the shard is its index alone.
        about: What else the index says.
    """
    path = folder / shard_name(number)
    index = {"samples": [], **about}
    if samples:
        write_atomically(path, lambda partial: _write_tar(partial, samples))
        with tarfile.open(path) as tar:
            places = {member.name: (member.offset_data, member.size) for member in tar}
        for sample in samples:
            members = {ending: places[f"{sample.key}.{ending}"] for ending in sample.members}
            index["samples"].append(asdict(Place(sample.key, sample.identity, sample.source, members)))
        index |= {"shard": path.name, "bytes": path.stat().st_size, "sha256": digest(path)}
    write_json(index_path(folder, number), index, indent=None)


def _write_tar(path: Path, samples: list[Sample]) -> None:
    with tarfile.open(path, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            for ending, content in sample.members.items():
                member = tarfile.TarInfo(f"{sample.key}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def index_path(folder: Path, number: int) -> Path:
    """Path of a shard's index."""
    return folder / shard_name(number).replace(".tar", ".json")


def read_index(folder: Path, number: int) -> dict | None:
    """Read a finished shard's index; None for a shard that is not finished."""
    path = index_path(folder, number)
    return read_json(path) if path.is_file() else None


def read_member(folder: Path, shard: str, place: tuple[int, int]) -> bytes:
    """Read one file of a sample.

    Raises:
        MissingFile: The shard is not there.
        BadFile: It ends before the file does.
    """
    offset, size = place
    path = folder / shard
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
    except FileNotFoundError:
        raise MissingFile(f"There is no {path}. Copy the whole folder of the training set, or prepare it again.") from None
    if len(content) != size:
        raise BadFile(f"{path} is truncated: expected {size} bytes at {offset}, got {len(content)}. Copy or prepare it again.")
    return content


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def write_json(path: Path, content: dict, indent: int | None = 1) -> None:
    """Write a JSON file, complete or not at all."""
    text = json.dumps(content, ensure_ascii=False, indent=indent)
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict:
    """Read a JSON file.

    Raises:
        MissingFile: There is none.
        BadFile: It is broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFile(f"There is no file {path}.") from None
    except ValueError as error:
        raise BadFile(f"{path} is no readable JSON ({error}). Remove it, and prepare the training set again.") from None
