"""Safe reading of a TensorFlow Lite file: its constants, which are the weights. No operator is read, and nothing is run.

The file is a FlatBuffer, little-endian. A table is a position; the distance stored there leads back to its list of fields,
which gives each field's distance from the table. Strings, vectors and tables in a field are distances from the field onwards.
Every position, count and size is checked against the file before it is used, so a malformed file costs no time or memory.

Source: the schema of TensorFlow Lite, version 3 (tables Model, SubGraph, Tensor, Buffer), and the FlatBuffers format.
"""

import math
import struct

import numpy as np
import torch
from torch import Tensor

from ..errors import BadFile

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
LARGEST_FILE = 1 << 26
"""Bytes."""
MOST_TENSORS = 1 << 12
LONGEST_NAME = 1 << 12
"""Bytes. The converter joins the names of all operators that it fused into one."""
MOST_AXES = 8

MODEL_VERSION, MODEL_SUBGRAPHS, MODEL_BUFFERS = 0, 2, 4
SUBGRAPH_TENSORS = 0
TENSOR_SHAPE, TENSOR_TYPE, TENSOR_BUFFER, TENSOR_NAME, TENSOR_SPARSITY = 0, 1, 2, 3, 6
BUFFER_DATA, BUFFER_OFFSET = 0, 1
"""Numbers of fields. A buffer with an offset keeps its data behind the FlatBuffer, as files above 2 GB do."""
TYPES = {0: "<f4", 1: "<f2", 2: "<i4", 4: "<i8"}
"""Types of constants that are read, by their number in the schema, as numpy writes them."""


def is_tflite(begin: bytes) -> bool:
    """Whether a file with these first bytes is a TensorFlow Lite network."""
    return begin[4:8] == IDENTIFIER


def read_tflite(data: bytes, name: str) -> dict[str, Tensor]:
    """Read the constants of the first subgraph.

    Args:
        data: The complete file.
        name: Its name, for messages.

    Returns:
        Tensors by name, in the order of the file: float32 (converted if the file has half precision) or integers.

    Raises:
        BadFile: The file is another, truncated or malformed, beyond the limits above, or has quantised weights.
    """
    file = _FlatBuffer(data, name)
    if not is_tflite(data):
        raise file.bad(f"expected a TensorFlow Lite network, got a file that begins with {data[:8]}")
    if len(data) > LARGEST_FILE:
        raise file.bad(f"expected at most {LARGEST_FILE:,} bytes, got {len(data):,}")
    model = file.follow(0)
    if (version := file.number(model, MODEL_VERSION, "<I")) != SCHEMA_VERSION:
        raise file.bad(f"expected version {SCHEMA_VERSION} of the format, got {version}")
    buffers = file.vector(model, MODEL_BUFFERS, 4, MOST_TENSORS)
    subgraphs = file.vector(model, MODEL_SUBGRAPHS, 4, MOST_TENSORS)
    if not subgraphs:
        raise file.bad("it has no subgraph")
    constants: dict[str, Tensor] = {}
    left = names_left = len(data)
    for place in file.vector(file.follow(subgraphs[0]), SUBGRAPH_TENSORS, 4, MOST_TENSORS):
        table = file.follow(place)
        number = file.number(table, TENSOR_BUFFER, "<I")
        if number >= len(buffers):
            raise file.bad(f"a tensor lies in buffer {number} of {len(buffers)}")
        buffer = file.follow(buffers[number])
        if file.number(buffer, BUFFER_OFFSET, "<Q"):
            raise file.bad("its weights lie outside the FlatBuffer, which is not supported")
        content = file.content(buffer, BUFFER_DATA)
        if not content:
            continue  # a result, which has a shape and no data
        # tensors may share a buffer, so each is counted: together they must not exceed what the file can hold
        left -= len(content)
        if left < 0:
            raise file.bad("its tensors are larger than the file")
        name_bytes = file.content(table, TENSOR_NAME, LONGEST_NAME)
        names_left -= len(name_bytes)
        if names_left < 0:
            raise file.bad("its tensors' names are longer than the file")
        key = bytes(name_bytes).decode("utf-8", errors="replace")
        if key in constants:
            raise file.bad(f"two tensors are called {key[:80]}")
        constants[key] = _tensor(file, table, key, content)
    return constants


def _tensor(file: "_FlatBuffer", table: int, key: str, content: memoryview) -> Tensor:
    kind = file.number(table, TENSOR_TYPE, "<b")
    if kind not in TYPES:
        raise file.bad(f"{key[:80]} is of type {kind}; expected float32, float16 or integers of 32 or 64 bits (not quantised)")
    if file.field(table, TENSOR_SPARSITY):
        raise file.bad(f"{key[:80]} is sparse, which is not supported")
    shape = [file.at(place, "<i") for place in file.vector(table, TENSOR_SHAPE, 4, MOST_AXES)]
    dtype = np.dtype(TYPES[kind])
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != len(content):
        raise file.bad(f"{key[:80]} has shape {shape} of {dtype.itemsize}-byte numbers, but {len(content):,} bytes")
    values = torch.from_numpy(np.frombuffer(content, dtype).astype(dtype.newbyteorder("=")))
    return (values.float() if values.is_floating_point() else values).reshape(shape)


class _FlatBuffer:
    """Bytes that are read at positions which the file itself states."""

    def __init__(self, data: bytes, name: str):
        self.data = memoryview(data)
        self.name = name

    def bad(self, problem: str) -> BadFile:
        return BadFile(f"{self.name} cannot be read: {problem}. Download the file again.")

    def at(self, place: int, kind: str) -> int:
        """Read one number."""
        if not 0 <= place <= len(self.data) - struct.calcsize(kind):
            raise self.bad(f"it points to byte {place:,} of {len(self.data):,}; it is truncated or malformed")
        return struct.unpack_from(kind, self.data, place)[0]

    def follow(self, place: int) -> int:
        """Return the position that the distance at a position leads to."""
        return place + self.at(place, "<I")

    def field(self, table: int, number: int) -> int:
        """Return the position of a table's field, or 0 if the table lacks it."""
        fields = table - self.at(table, "<i")
        inside, length = 4 + 2 * number, self.at(fields, "<H")
        if length < 4:
            raise self.bad(f"the table at byte {table:,} of {len(self.data):,} is malformed")
        if inside + 2 > length:
            return 0
        distance = self.at(fields + inside, "<H")
        return table + distance if distance else 0

    def number(self, table: int, number: int, kind: str) -> int:
        """Read a field that is a number; 0 is the default of all that are read here."""
        place = self.field(table, number)
        return self.at(place, kind) if place else 0

    def vector(self, table: int, number: int, width: int, most: int) -> range:
        """Return the positions of a vector's elements, which are `width` bytes wide."""
        place = self.field(table, number)
        if not place:
            return range(0)
        start = self.follow(place)
        count = self.at(start, "<I")
        if count > most or count * width > len(self.data) - start - 4:
            raise self.bad(
                f"it states {count:,} elements at byte {start:,} of {len(self.data):,}, where at most {most:,} may be; "
                "it is truncated or malformed"
            )
        return range(start + 4, start + 4 + count * width, width)

    def content(self, table: int, number: int, most: int = LARGEST_FILE) -> memoryview:
        """Return the bytes of a vector or string without a copy."""
        place = self.vector(table, number, 1, most)
        return self.data[place.start : place.stop]
