"""Torch's checkpoints: the zip archives of today, and the pickles before torch 1.6.

Both hold a pickle of nested containers in which a tensor refers to a storage, and the storages' bytes. The pickle is read
by `pickles`, so nothing in it runs, and every tensor is checked against its storage before it is made. A zip's storages are
mapped, as `torch.load` does with `mmap=True`: a tensor costs memory only when it is used.

Source: torch/serialization.py and torch/_utils.py, which write these files.
"""

import mmap
import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BadFile, quote
from .budgets import LARGEST_PICKLE, MOST_INFLATION, MOST_MEMBERS, check_view
from .pickles import Data, Kept, Name, read_pickle

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""The two numbers with which the format before torch 1.6 begins, each in a pickle of its own."""
COUNT_BYTES = 8
"""A storage in that format begins with its count of numbers."""
LOCAL_HEADER, LOCAL_BEGIN = 30, b"PK\x03\x04"
"""Bytes of a zip member's own header before its name, and how it begins."""
_ALIGNED = 16
"""Bytes at whose multiples the numbers of any type may begin in memory."""
_ENCRYPTED = 1
"""Bit of a zip member's flags."""
_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
    "QUInt4x2Storage": torch.uint8,
    "QUInt2x4Storage": torch.uint8,
    "UntypedStorage": torch.uint8,
}
"""Types of numbers by the class of the storage, which is in `torch` or `torch.storage`."""
_VIEWS = {
    "torch._utils._rebuild_tensor": 4,
    "torch._utils._rebuild_tensor_v2": 4,
    "torch._utils._rebuild_tensor_v3": 7,
}
"""Functions that make a tensor, with the number of arguments that matter: storage, offset, size, stride; in v3 the type."""
_WRAPPED = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_SUBCLASSES = ("torch._tensor._rebuild_from_type", "torch._tensor._rebuild_from_type_v2")


@dataclass(frozen=True, eq=False)
class Storage:
    """A reference to bytes in the file, or to a part of them."""

    key: str
    dtype: torch.dtype
    """Type of the numbers, if the tensor has none of its own."""
    whole: int
    """Bytes in the storage."""
    start: int
    """First byte of the part."""
    length: int
    """Bytes in the part."""


@dataclass(frozen=True, eq=False)
class View:
    """A tensor that is not made yet."""

    storage: Storage
    dtype: torch.dtype
    offset: Any
    size: Any
    stride: Any


@dataclass(frozen=True, eq=False)
class TorchFile:
    """The contents of a file."""

    content: Any
    """Nested containers with `View` in place of tensors, and `pickles.Kept` in place of foreign objects."""
    open: Callable[[Storage], torch.UntypedStorage]
    """Returns the bytes of a whole storage; raises a BadFile with a clause."""
    size: int
    """Bytes of the file."""


def read_zip(path: Path) -> TorchFile:
    """Read the pickle of a zip archive, and find its storages.

    Raises:
        BadFile: The archive is malformed, beyond a budget, or not one of tensors. The message is a clause without the file's
            name, unless it states another kind of file. Other errors are left to `boundary.reading`.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        pickles = [name for name in members if name.endswith("data.pkl")]
        if not pickles:
            held = ", ".join(quote(name) for name in list(members)[:3])
            raise BadFile(f"{quote(path.name)} is a zip archive, not a checkpoint: unpack it. It holds {held}.")
        if any("/code/" in name for name in members):
            raise BadFile(
                f"{quote(path.name)} is a TorchScript program, as OpenAI's own CLIP files are, which is never run. Get the "
                "same weights as safetensors."
            )
        if len(members) > MOST_MEMBERS:
            raise BadFile(f"it has {len(members):,} members, expected at most {MOST_MEMBERS:,}")
        data = _member(archive, members[pickles[0]], LARGEST_PICKLE)
        root = pickles[0].removesuffix("data.pkl")
        order = members.get(f"{root}byteorder")
        if order is not None and _member(archive, order, 16).strip() != b"little":
            raise BadFile("its numbers are in the order of another kind of machine")
    content, _ = read_pickle(data, made=_made, persistent=_storage)
    begins = _begins(path, size, {name: one for name, one in members.items() if name.startswith(f"{root}data/")})
    opened: list[Any] = []

    def find(storage: Storage) -> torch.UntypedStorage:
        name = f"{root}data/{storage.key}"
        if name not in begins:
            raise BadFile(f"the numbers of {quote(storage.key)} are missing")
        member, begin = members[name], begins[name]
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
            raise BadFile("its tensors are compressed or encrypted")
        if begin + storage.whole > size or storage.whole > member.file_size:
            raise BadFile("it ends within a tensor")
        if not opened:
            opened.append(torch.UntypedStorage.from_file(os.fspath(path), False, size))
        return opened[0][begin : begin + storage.whole]

    return TorchFile(content, find, size)


def _begins(path: Path, size: int, members: dict[str, zipfile.ZipInfo]) -> dict[str, int]:
    """Return where the contents of members begin: behind their own headers, whose length the archive's list does not state."""
    begins: dict[str, int] = {}
    with path.open("rb") as file:
        for name, member in members.items():
            if not 0 <= member.header_offset < size:
                raise BadFile("a member lies outside the file")
            file.seek(member.header_offset)
            header = file.read(LOCAL_HEADER)
            if len(header) < LOCAL_HEADER or not header.startswith(LOCAL_BEGIN):
                raise BadFile("a member's header is malformed")
            name_and_more = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            begins[name] = member.header_offset + LOCAL_HEADER + name_and_more
    return begins


def read_legacy(path: Path) -> TorchFile:
    """Read the pickles of a file in the format before torch 1.6, and find its storages.

    Raises:
        BadFile: The file is malformed or beyond a budget. The message is a clause without the file's name.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return legacy_contents(data, size)


def legacy_contents(data: Data, size: int) -> TorchFile:
    """Read the pickles of a file in the format before torch 1.6.

    Args:
        data: The file.
        size: Its length.

    Raises:
        BadFile: As `read_legacy`.
    """
    place = 0
    begins = []
    for _ in range(3):
        begin, place = read_pickle(data, place)
        begins.append(begin)
        if begins[0] != MAGIC:
            raise BadFile("it is a pickle, but not one of torch")
    about = begins[2]
    if begins[1] != PROTOCOL or not isinstance(about, dict) or about.get("little_endian") is not True:
        raise BadFile("it is of another version, or of another kind of machine")
    known: dict[str, Storage] = {}

    def remember(reference: Any) -> Any:
        storage = _storage(reference)
        if isinstance(storage, Storage):
            known.setdefault(storage.key, storage)
        return storage

    content, place = read_pickle(data, place, made=_made, persistent=remember)
    keys, place = read_pickle(data, place)
    if not isinstance(keys, list):
        raise BadFile("its list of tensors is malformed")
    places: dict[str, int] = {}
    for key in keys:
        storage = known.get(key) if isinstance(key, str) else None
        count = int.from_bytes(data[place : place + COUNT_BYTES], "little")
        if storage is None or count * storage.dtype.itemsize != storage.whole:
            raise BadFile("its list of tensors does not fit its contents")
        places[key] = place + COUNT_BYTES
        place += COUNT_BYTES + storage.whole
        if place > size:
            raise BadFile("it ends within a tensor")

    def find(storage: Storage) -> torch.UntypedStorage:
        if storage.key not in places:
            raise BadFile(f"the numbers of {quote(storage.key)} are missing")
        begin = places[storage.key]
        copied = bytearray(data[begin : begin + storage.whole])
        return torch.frombuffer(copied, dtype=torch.uint8).untyped_storage() if copied else torch.UntypedStorage(0)

    return TorchFile(content, find, size)


def make_tensors(file: TorchFile, views: dict[str, View]) -> dict[str, Tensor]:
    """Make tensors of a file, without a copy of their numbers.

    Args:
        file: The file.
        views: The tensors by name.

    Returns:
        Tensors by the same names, which share their storages as in the file. Their numbers may repeat (`repeated_bytes`).

    Raises:
        BadFile: A tensor does not lie in its storage. The message is a clause without the file's name.
    """
    for view in views.values():
        if not isinstance(view.size, tuple | list) or not isinstance(view.stride, tuple | list):
            raise BadFile("a tensor whose shape is malformed")
        check_view(view.size, view.stride, view.offset, view.storage.length // view.dtype.itemsize)
    opened: dict[str, torch.UntypedStorage] = {}
    tensors: dict[str, Tensor] = {}
    for name, view in views.items():
        storage, width = view.storage, view.dtype.itemsize
        if storage.key not in opened:
            opened[storage.key] = _aligned(file.open(storage))
        base = opened[storage.key]
        if storage.start + storage.length > base.nbytes() or storage.start % width:
            raise BadFile("a tensor's storage is larger than its bytes")
        tensors[name] = torch.empty(0, dtype=view.dtype).set_(
            base, storage.start // width + view.offset, view.size, view.stride
        )
    return tensors


def repeated_bytes(tensors: Iterable[Tensor]) -> int:
    """Return how many bytes more than their storages tensors would have if they were copied: expanded ones repeat numbers."""
    return sum(max(t.numel() * t.element_size() - t.untyped_storage().nbytes(), 0) for t in tensors if not t.is_meta)


def _aligned(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    return storage if storage.data_ptr() % _ALIGNED == 0 else storage.clone()


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """Unpack a member that may not be larger than allowed, nor much larger than what it is packed into."""
    if member.file_size > MOST_INFLATION * max(member.compress_size, 1):
        raise BadFile("its list of tensors states more bytes than it can have")
    with archive.open(member) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise BadFile(f"its list of tensors has more than {most:,} bytes")
    return data


def _made(kind: str, args: Any) -> Any:
    """Return what a call in the pickle makes: a `View`, a dictionary, or a `Kept`."""
    if kind == "collections.OrderedDict" and not args:
        return {}
    first: Any = args[0] if args else None
    if kind in _WRAPPED and isinstance(first, View):
        return first
    if kind in _SUBCLASSES and len(args) >= 3 and isinstance(first, Name) and isinstance(args[2], tuple):
        return _made(first.kind, args[2])
    if kind not in _VIEWS or len(args) < _VIEWS[kind] or not isinstance(first, Storage):
        return Kept(kind, args)
    dtype: Any = first.dtype
    if kind.endswith("_v3"):
        named: Any = args[6]
        dtype = getattr(torch, named.kind.removeprefix("torch."), None) if isinstance(named, Name) else None
        if not isinstance(dtype, torch.dtype):
            return Kept(kind, args)
    return View(first, dtype, args[1], args[2], args[3])


def _storage(reference: Any) -> Any:
    """Return the storage that a reference means; other references are kept."""
    if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
        return Kept("a reference", reference if isinstance(reference, tuple) else ())
    _, kind, key, _, count, *view = reference
    dtype = _STORAGES.get(kind.kind.rpartition(".")[2]) if isinstance(kind, Name) and kind.kind.startswith("torch.") else None
    if not isinstance(key, str) or type(count) is not int or not 0 <= count < 1 << 60:
        raise BadFile("a tensor's storage is malformed")
    if dtype is None:
        return Kept("a storage", reference)
    width, start, length = dtype.itemsize, 0, count
    if view and view[0] is not None:
        _, start, length = view[0]
        if not all(type(number) is int and 0 <= number <= count for number in (start, length)) or start + length > count:
            raise BadFile("a tensor's storage is malformed")
    return Storage(key, dtype, count * width, start * width, length * width)
