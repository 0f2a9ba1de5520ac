"""Reading of numpy's files with the header parsed strictly: it is a text of Python that numpy evaluates, however long it takes.

Source: numpy/lib/format.py, "NumPy format", versions 1 to 3.
"""

import math
import re
from typing import Protocol, runtime_checkable

import numpy as np

from ..errors import BadFile, quote
from .budgets import LONGEST_NPY_HEADER, MOST_AXES

MAGIC = b"\x93NUMPY"
_TYPE = re.compile(r"""['"]descr['"]\s*:\s*['"]([<>|=]?[biufO]\d{0,2})['"]""")
_ORDER = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)""")
_SHAPE = re.compile(r"""['"]shape['"]\s*:\s*\(([\d\sL,]*)\)""")
_LONGEST_LENGTH = 18
"""Digits of one length in a shape."""


@runtime_checkable
class Stream(Protocol):
    """Anything that bytes are read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Read at most so many bytes."""
        ...


def read_header(stream: Stream) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of an array.

    Args:
        stream: The file, from which the array's data can be read next.

    Returns:
        Shape, whether the order is Fortran's, and the type: numbers, or objects, which are a pickle.

    Raises:
        BadFile: The header is malformed, or states another type. The message is a clause without the file's name.
    """
    begin = stream.read(len(MAGIC) + 2)
    version = begin[len(MAGIC)] if len(begin) == len(MAGIC) + 2 else 0
    if not begin.startswith(MAGIC) or version not in (1, 2, 3):
        raise BadFile("it is not an array of numpy")
    length = int.from_bytes(stream.read(2 if version == 1 else 4), "little")
    if length > LONGEST_NPY_HEADER:
        raise BadFile(f"its header has {length:,} bytes, expected at most {LONGEST_NPY_HEADER:,}")
    data = stream.read(length)
    text = data.decode("latin1")
    kind, order, shape = (pattern.search(text) for pattern in (_TYPE, _ORDER, _SHAPE))
    if len(data) < length or kind is None or order is None or shape is None:
        raise BadFile(f"its header is malformed or of another type: {quote(text)}")
    lengths = [part.strip().rstrip("L") for part in shape[1].split(",")]
    lengths = lengths[:-1] if lengths[-1] == "" else lengths
    if len(lengths) > MOST_AXES or not all(part.isdecimal() and len(part) <= _LONGEST_LENGTH for part in lengths):
        raise BadFile(f"its shape is malformed: {quote(shape[0])}")
    try:
        dtype = np.dtype(kind[1])
    except TypeError:
        raise BadFile(f"its type is malformed: {quote(kind[1])}") from None
    return tuple(map(int, lengths)), order[1] == "True", dtype


def read_array(stream: Stream, left: int) -> np.ndarray:
    """Read an array of numbers.

    Args:
        stream: The file.
        left: Bytes in the file.

    Raises:
        BadFile: The header is malformed, or the file does not have as many bytes as it states. The message is a clause.
    """
    shape, fortran, dtype = read_header(stream)
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or not dtype.itemsize or not 0 < size <= left:
        raise BadFile(f"expected an array of numbers, got shape {quote(str(shape))} of type {dtype} in {left:,} bytes")
    data = stream.read(size)
    if len(data) < size:
        raise BadFile("it ends too early")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
