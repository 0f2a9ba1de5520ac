"""Files of a training set: WebDataset shards, an index beside each shard, and a description of the whole set.

A shard is an uncompressed tar that the package webdataset can read. The members of the sample KEY:

    KEY.jpg          the portrait, RGB
    KEY.json         caption, identity, source, the head (as Save Head writes it, in degrees) and the error of its fit
    KEY.global.npy   float32 `[512]`, FaceNet's embedding
    KEY.local.npy    float16 `[257, 1024]`, CLIP's tokens before the last layer norm
    KEY.parsing.png  the face parser's labels, if there was a face parser

The index of a shard is a JSON file of the same name. It lists the position of each member, so that samples can be read in any
order, the photos that were rejected, and the time of each stage. A shard is finished when its index exists. Both are written
atomically.
"""

import hashlib
import io
import json
import re
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import BadFile, quote
from ..files.atomic import write_atomically
from ..files.boundary import reading
from ..files.budgets import LARGEST_JSON, MOST_JSON_PARTS, at_most

FORMAT, VERSION = "capface.training-set", 1
DATASET = "dataset.json"
_CHUNK = 1 << 20
_SHARD = re.compile(r"\d{6,9}\.tar")
_AGAIN = "Copy the whole folder of the training set, or prepare it again."


@dataclass(frozen=True)
class Sample:
    """The files of a sample."""

    key: str
    """Name of the sample in the shard."""
    identity: str
    """Name of the person."""
    source: str
    """Path of its photo, relative to the folder of photos."""
    members: dict[str, bytes]
    """Contents of each file by its ending."""


@dataclass(frozen=True)
class Place:
    """Position of a sample's files in a shard."""

    key: str
    """Name of the sample in the shard."""
    identity: str
    """Name of the person."""
    source: str
    """Path of its photo, relative to the folder of photos."""
    members: dict[str, tuple[int, int]]
    """Offset in the tar and size of each file by its ending, in bytes."""


def shard_name(number: int) -> str:
    """Return the name of a shard's tar."""
    return f"{number:06d}.tar"


def write_shard(folder: Path, number: int, samples: list[Sample], about: dict[str, Any]) -> None:
    """Write a shard and its index. Equal samples give equal bytes.

    Args:
        folder: Folder of the training set.
        number: Number of the shard.
        samples: The samples; without samples only the index is written.
        about: Further entries of the index.
    """
    path = folder / shard_name(number)
    index: dict[str, Any] = {"samples": [], **about}
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
    """Return the path of a shard's index."""
    return folder / shard_name(number).replace(".tar", ".json")


def shard_number(name: object) -> int:
    """Return the number of a shard by its name in `dataset.json`.

    Raises:
        BadFile: It is no name that `shard_name` returns, such as a path to another folder. The message is a clause.
    """
    if not isinstance(name, str) or not _SHARD.fullmatch(name) or shard_name(int(name[: -len(".tar")])) != name:
        raise BadFile(f"a shard is called {quote(name)}, expected a name such as {shard_name(0)}")
    return int(name[: -len(".tar")])


def read_index(folder: Path, number: int) -> dict[str, Any] | None:
    """Read the index of a shard; None if the shard is not finished."""
    path = index_path(folder, number)
    if not path.is_file():
        return None
    _refuse_link(path)
    return read_json(path)


def read_places(folder: Path, number: int, index: dict[str, Any]) -> list[Place]:
    """Return the samples of a shard's index.

    Args:
        folder: Folder of the training set.
        number: Number of the shard.
        index: The result of `read_index`.

    Raises:
        BadFile: An entry is malformed.
    """
    name = quote(index_path(folder, number).name)
    samples = index.get("samples")
    if not isinstance(samples, list):
        raise BadFile(f"{name} lists no samples. {_AGAIN}")
    places = []
    for sample in samples:
        entry = sample if isinstance(sample, dict) else {}
        texts = [entry.get(part) for part in ("key", "identity", "source")]
        members = entry.get("members")
        if not all(isinstance(text, str) for text in texts) or not isinstance(members, dict):
            raise BadFile(f"{name} has a malformed sample. {_AGAIN}")
        for ending, place in members.items():
            whole = isinstance(place, list) and len(place) == 2 and all(type(part) is int and part >= 0 for part in place)
            if not whole:
                raise BadFile(f"{name} has a malformed place of {quote(ending)}. {_AGAIN}")
        key, identity, source = map(str, texts)
        places.append(Place(key, identity, source, {ending: (place[0], place[1]) for ending, place in members.items()}))
    return places


def read_member(folder: Path, shard: str, place: tuple[int, int]) -> bytes:
    """Read one file of a sample.

    Args:
        folder: Folder of the training set.
        shard: Name of the shard's tar.
        place: Offset and size of the file, in bytes.

    Raises:
        MissingFile: The shard is missing.
        BadFile: The shard is truncated or a link, or a file lies outside it.
    """
    offset, size = place
    path = folder / shard_name(shard_number(shard))
    with reading(path, "a shard of a training set", _AGAIN), path.open("rb") as file:
        _refuse_link(path)
        length = path.stat().st_size
        if offset + size > length:
            raise BadFile(
                f"{quote(path.name)} is truncated: expected {size:,} bytes at {offset:,}, got {length:,} in all. {_AGAIN}"
            )
        file.seek(offset)
        return file.read(size)


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise BadFile(f"{quote(path.name)} is a link, expected a file in the folder of the training set. {_AGAIN}")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def write_json(path: Path, content: dict[str, Any], indent: int | None = 1) -> None:
    """Write a JSON file atomically."""
    text = json.dumps(content, ensure_ascii=False, indent=indent)
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        MissingFile: The file is missing.
        BadFile: The file is not valid JSON.
    """
    name = quote(path.name)
    with reading(path, "JSON", _AGAIN):
        at_most(path.stat().st_size, LARGEST_JSON, "bytes", name)
        data = path.read_bytes()
    at_most(data.count(b"{") + data.count(b"["), MOST_JSON_PARTS, "parts", name)
    try:
        with reading(path, "JSON"):
            content = json.loads(data)
    except BadFile:
        content = None
    if not isinstance(content, dict):
        raise BadFile(f"{name} is not readable JSON. Remove it and prepare the training set again.")
    return content
