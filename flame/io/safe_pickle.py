"""Reading the arrays in a pickle without running any of its code.

FLAME's files are pickles of numpy arrays, scipy's sparse matrices, chumpy's arrays and torch tensors, some of them written by
Python 2. `files.pickles` reads them: no class that the file names is loaded, not even numpy's. Here only names on an allowlist
are accepted, and `to_array` extracts the arrays. Every size in the file is compared with its data.
"""

import math
import re
from typing import Any

import numpy as np

from ...errors import BadFile, quote
from ...files.budgets import MOST_AXES, MOST_LISTED, MOST_NESTING, MOST_REPEATED, MOST_SPARSE
from ...files.pickles import Kept, read_pickle
from ...files.torch_files import Storage, View, legacy_contents, make_tensors, repeated_bytes

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
    return read_pickle(data, found=_check_name)[0]


def _check_name(kind: str) -> None:
    if not _ALLOWED.fullmatch(kind):
        raise BadFile(f"it holds Python code ({quote(kind)}), which is never run")


def to_array(value: object) -> np.ndarray:
    """Convert an unpickled value to an array.

    Args:
        value: A result of `unpickle`: an array of numpy, scipy, chumpy or torch, a number, or a list of numbers.

    Returns:
        A numpy array of numbers; a sparse matrix becomes dense.

    Raises:
        BadFile: The value is not an array of numbers, or it has none. The message is a clause without the file's name.
    """
    try:
        array = _Reader().read(value)
    except BadFile:
        raise
    except Exception:  # nothing of the file has run, so any error means that it is malformed
        raise BadFile("a malformed array") from None
    if array.dtype.kind not in "biuf":
        raise BadFile("expected an array of numbers, got something else")
    if not array.size:
        raise BadFile(f"an array without numbers, of shape {quote(str(array.shape))}")
    return array if array.flags.writeable else array.copy()


def sole_object(value: object) -> object:
    """Unwrap the object in an array of one object, as `np.save` stores a dictionary; return anything else unchanged."""
    if isinstance(value, Kept) and value.kind.endswith("_reconstruct") and isinstance(value.state, tuple) and value.state:
        data = value.state[-1]
        if isinstance(data, list) and len(data) == 1:
            return data[0]
    return value


class _Reader:
    """Converts a value once, however often it occurs in another."""

    def __init__(self):
        self.done: dict[int, np.ndarray] = {}
        self.depth = 0

    def read(self, value: Any) -> np.ndarray:
        if id(value) in self.done:
            return self.done[id(value)]
        self.depth += 1
        if self.depth > MOST_NESTING:
            raise BadFile("an array that is nested too deeply")
        array = self.kept(value) if isinstance(value, Kept) else _listed(value)
        self.depth -= 1
        self.done[id(value)] = array
        return array

    def kept(self, value: Kept) -> np.ndarray:
        # Protocols 0 and 1 make an object by _reconstructor(its class, object, None).
        kind: str = value.args[0].kind if value.kind.endswith("._reconstructor") else value.kind
        name = kind.rpartition(".")[2]
        if name == "_reconstruct":
            *_, shape, dtype, fortran, data = value.state
            return _plain(data, dtype, shape, "F" if fortran else "C")
        if name == "_frombuffer":
            data, dtype, shape, order = value.args
            return _plain(data, dtype, shape, order)
        if name == "scalar":
            return _plain(value.args[1], value.args[0], (), "C")
        if re.fullmatch(_SPARSE, kind):
            return self.dense(value.state, by_rows=name == "csr_matrix")
        if re.match(_CHUMPY, kind):
            # chumpy stores a plain array as x, and a part of another array by flat positions.
            if "x" in value.state:
                return self.read(value.state["x"])
            whole, positions = self.read(value.state["a"]), self.read(value.state["idxs"])
            return whole.ravel()[positions].reshape(_shape(value.state["preferred_shape"]))
        if name.startswith("_rebuild_tensor"):
            return _tensor(*value.args[:4])
        raise BadFile(f"expected an array, got {quote(kind)}")

    def dense(self, state: dict[str, Any], by_rows: bool) -> np.ndarray:
        """Expand a compressed sparse matrix: entries, their positions along each line, and where each line's entries begin."""
        shape = _shape(state.get("_shape", state.get("shape", ())))
        if len(shape) != 2 or math.prod(shape) > MOST_SPARSE:
            raise BadFile(f"a sparse matrix of shape {list(shape)}, expected two axes and at most {MOST_SPARSE:,} numbers")
        data, minor, starts = (self.read(state[name]) for name in ("data", "indices", "indptr"))
        lines, across = shape if by_rows else shape[::-1]
        counts = np.diff(starts.astype(np.int64))
        inside = minor.min(initial=0) >= 0 and minor.max(initial=0) < across
        if starts.shape != (lines + 1,) or starts[0] or (counts < 0).any() or counts.sum() != len(data) or not inside:
            raise BadFile("a sparse matrix whose positions do not fit its numbers")
        major = np.repeat(np.arange(lines), counts)
        dense = np.zeros(shape, data.dtype)
        np.add.at(dense, (major, minor) if by_rows else (minor, major), data)
        return dense


def _shape(value: Any) -> tuple[int, ...]:
    shape = tuple(int(size) for size in value[: MOST_AXES + 1])
    if len(shape) > MOST_AXES or min(shape, default=0) < 0:
        raise BadFile("an array whose shape is malformed")
    return shape


def _listed(value: Any) -> np.ndarray:
    """Convert a number or nested lists of numbers, whose count is checked before anything is made of them."""
    levels, count = [value], 0
    for _ in range(MOST_AXES):
        if all(isinstance(level, int | float) for level in levels):
            return np.asarray(value)
        if not all(isinstance(level, list | tuple) for level in levels):
            raise BadFile("expected an array of numbers, got something else")
        count = sum(map(len, levels))
        if count > MOST_LISTED:
            raise BadFile(f"an array of more than {MOST_LISTED:,} numbers in lists")
        levels = [entry for level in levels for entry in level]
    raise BadFile("an array whose lists are nested too deeply")


def _plain(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Return an array of raw bytes, which Python 2 and old protocols write as text."""
    if isinstance(data, Kept):  # _codecs.encode(text, "latin1") or bytearray(bytes)
        data = data.args[0]
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(raw, bytes):
        raise BadFile("an array without numbers")
    return np.frombuffer(raw, _dtype(dtype)).reshape(_shape(shape), order=order)


def _dtype(value: Kept) -> np.dtype:
    code = value.args[0]
    if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
        raise BadFile(f"expected an array of numbers, got one of type {quote(code)}")
    order = value.state[1] if value.state else "="
    return np.dtype(code).newbyteorder(order if order in ("<", ">") else "=")


def _tensor(storage: Kept, offset: Any, size: Any, stride: Any) -> np.ndarray:
    data = storage.args[0]  # a file of torch within the pickle
    if isinstance(data, Kept):
        data = data.args[0]
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data) if isinstance(data, bytes) else b""
    file = legacy_contents(raw, len(raw))
    if not isinstance(file.content, Storage):
        raise BadFile("a tensor without numbers")
    tensor = make_tensors(file, {"": View(file.content, file.content.dtype, offset, size, stride)})[""]
    if repeated_bytes([tensor]) > MOST_REPEATED:
        raise BadFile("a tensor that repeats a few numbers")
    return tensor.numpy().copy()
