"""Reading the arrays in a pickle without running any of its code.

FLAME's files are pickles of numpy arrays, scipy's sparse matrices, chumpy's arrays and torch tensors, some of them written by
Python 2. No class that the file names is loaded, not even numpy's. Every object of such a class becomes a `Kept`, which only
stores its arguments, and only names on an allowlist are accepted. `to_array` then extracts the arrays.
"""

import io
import math
import pickle
import re
from typing import Any, ClassVar

import numpy as np
import torch

from ...errors import BadFile

_NUMPY = r"numpy\.(_?core\.)?"
_CHUMPY = r"chumpy\."
_SPARSE = r"scipy\.sparse\.(_?cs[cr]\.)?cs[cr]_matrix"
_ALLOWED = re.compile(
    rf"{_NUMPY}(ndarray|dtype|multiarray\._reconstruct|multiarray\.scalar|numeric\._frombuffer)"
    rf"|{_CHUMPY}[a-zA-Z_.]+"
    rf"|{_SPARSE}"
    r"|(copy_reg|copyreg)\._reconstructor|(__builtin__|builtins)\.(object|set|bytearray)|collections\.OrderedDict|_codecs\.encode"
    r"|torch\._utils\._rebuild_tensor(_v2)?|torch\.storage\._load_from_bytes"
)
_NUMBERS = re.compile(r"[biuf][1248]")


class Kept:
    """An object in the file: its arguments and state, unprocessed."""

    kind: ClassVar[str]
    """Module and name of its class in the file."""
    __slots__ = ("args", "state")

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **_kwargs: Any) -> "Kept":
        """Store the arguments."""
        self = super().__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Returns a `Kept` for each name on the allowlist and rejects every other."""

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream, encoding="latin1")
        self.kinds: dict[str, type[Kept]] = {}

    def find_class(self, module: str, name: str) -> type:
        kind = f"{module}.{name}"
        if not _ALLOWED.fullmatch(kind):
            raise BadFile(f"it holds Python code ({kind}), which is never run")
        if kind not in self.kinds:
            self.kinds[kind] = type("Kept", (Kept,), {"kind": kind, "__slots__": ()})
        return self.kinds[kind]


def unpickle(data: bytes) -> object:
    """Read a pickle of any protocol, written by Python 2 or 3.

    Args:
        data: The pickle.

    Returns:
        Numbers, strings, lists and dictionaries unchanged; everything else as `Kept`.

    Raises:
        BadFile: The pickle names anything other than arrays, or is broken. The message is a clause without the file's name,
            which the caller adds.
    """
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except BadFile:
        raise
    except Exception as error:  # no code in the file has run, so any error means that it is malformed
        raise BadFile(f"it is not a pickle, or it is truncated ({error})") from None


def to_array(value: object) -> np.ndarray:
    """Convert an unpickled value to an array.

    Args:
        value: A result of `unpickle`: an array of numpy, scipy, chumpy or torch, a number, or a list of numbers.

    Returns:
        A numpy array of numbers; a sparse matrix becomes dense.

    Raises:
        BadFile: The value is not an array of numbers.
    """
    try:
        array = _read(value)
    except BadFile:
        raise
    except Exception as error:
        raise BadFile(f"a malformed array ({error})") from None
    if array.dtype.kind not in "biuf":
        raise BadFile("expected an array of numbers, got something else")
    return array if array.flags.writeable else array.copy()


def sole_object(value: object) -> object:
    """Unwrap the object in an array of one object, as `np.save` stores a dictionary; return anything else unchanged."""
    if isinstance(value, Kept) and value.kind.endswith("_reconstruct") and isinstance(value.state, tuple):
        data = value.state[-1]
        if isinstance(data, list) and len(data) == 1:
            return data[0]
    return value


def _read(value: object) -> np.ndarray:
    if not isinstance(value, Kept):
        return np.asarray(value)
    # Protocols 0 and 1 make an object by _reconstructor(its class, object, None).
    kind = value.args[0].kind if value.kind.endswith("._reconstructor") else value.kind
    name = kind.rpartition(".")[2]
    if name == "_reconstruct":
        *_, shape, dtype, fortran, data = value.state
        return np.frombuffer(_bytes(data), _dtype(dtype)).reshape(shape, order="F" if fortran else "C")
    if name == "_frombuffer":
        data, dtype, shape, order = value.args
        return np.frombuffer(_bytes(data), _dtype(dtype)).reshape(shape, order=order)
    if name == "scalar":
        return np.frombuffer(_bytes(value.args[1]), _dtype(value.args[0])).reshape(())
    if re.fullmatch(_SPARSE, kind):
        return _dense(value.state, by_rows=name == "csr_matrix")
    if re.match(_CHUMPY, kind):
        # chumpy stores a plain array as x, and a part of another array by flat positions.
        if "x" in value.state:
            return _read(value.state["x"])
        return _read(value.state["a"]).ravel()[_read(value.state["idxs"])].reshape(value.state["preferred_shape"])
    if name.startswith("_rebuild_tensor"):
        return _tensor(*value.args[:4])
    raise BadFile(f"expected an array, got {kind}")


def _bytes(value: Any) -> bytes:
    """Return raw bytes, which Python 2 and old protocols write as text."""
    if isinstance(value, Kept):  # _codecs.encode(text, "latin1") or bytearray(bytes)
        value = value.args[0]
    return value.encode("latin1") if isinstance(value, str) else bytes(value)


def _dtype(value: Kept) -> np.dtype:
    code = value.args[0]
    if not _NUMBERS.fullmatch(code):
        raise BadFile(f"expected an array of numbers, got one of type {code}")
    order = value.state[1] if value.state else "="
    return np.dtype(code).newbyteorder(order if order in "<>" else "=")


def _dense(state: dict[str, Any], by_rows: bool) -> np.ndarray:
    """Expand a compressed sparse matrix: entries, their positions along each line, and where each line's entries begin."""
    shape = tuple(int(size) for size in state.get("_shape", state.get("shape", ())))
    if math.prod(shape) > 10**7:  # FLAME's joint regressor has 25,000 entries
        raise BadFile(f"a sparse matrix of {shape[0]} × {shape[1]} is too large")
    data, minor, starts = (_read(state[name]) for name in ("data", "indices", "indptr"))
    major = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    dense = np.zeros(shape, data.dtype)
    np.add.at(dense, (major, minor) if by_rows else (minor, major), data)
    return dense


def _tensor(storage: Kept, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
    # The storage is a torch file within the pickle; torch reads it with its own allowlist.
    flat = torch.load(io.BytesIO(_bytes(storage.args[0])), map_location="cpu", weights_only=True)
    return torch.empty(0, dtype=flat.dtype).set_(flat).as_strided(size, stride, offset).numpy().copy()
