"""Writes TensorFlow Lite files that hold constants alone, as far as the pack reads them."""

import struct

import numpy as np

TYPES = {np.dtype("float32"): 0, np.dtype("float16"): 1, np.dtype("int32"): 2, np.dtype("uint8"): 3, np.dtype("int64"): 4}


class FlatBuffer:
    """A FlatBuffer that grows forwards: a parent is written before its children, and each reference is filled in later."""

    def __init__(self):
        self.data = bytearray(8)

    def align(self):
        """Fill up to a multiple of four bytes."""
        self.data += bytes(-len(self.data) % 4)

    def refer(self, place, child):
        """Write a child and let the reference at `place` lead to it. A child of None leads to the reference itself."""
        struct.pack_into("<I", self.data, place, child(self) - place if child else 0)

    def table(self, fields):
        """Write a table; `fields` has a pair (format, number) or a function that writes a child, by field number."""
        self.align()
        count = max(fields, default=-1) + 1
        start = len(self.data)
        distances = {number: 4 + 8 * i for i, number in enumerate(fields)}
        self.data += struct.pack("<HH", 4 + 2 * count, 4 + 8 * len(fields))
        self.data += b"".join(struct.pack("<H", distances.get(number, 0)) for number in range(count))
        self.align()
        table = len(self.data)
        self.data += struct.pack("<i", table - start) + bytes(8 * len(fields))
        for number, value in fields.items():
            place = table + distances[number]
            if callable(value):
                self.refer(place, value)
            else:
                struct.pack_into(value[0], self.data, place, value[1])
        return table

    def content(self, raw, count=None):
        """Write a vector of numbers or a string."""
        self.align()
        place = len(self.data)
        self.data += struct.pack("<I", len(raw) if count is None else count) + raw
        return place

    def tables(self, children):
        """Write a vector of tables."""
        self.align()
        place = len(self.data)
        self.data += struct.pack("<I", len(children)) + bytes(4 * len(children))
        for i, child in enumerate(children):
            self.refer(place + 4 + 4 * i, child)
        return place


def tensor_table(name, array, buffer, **replaced):
    """Return the writer of a tensor's table."""
    shape = np.asarray(array.shape, "<i4").tobytes()
    fields = {
        0: lambda b: b.content(shape, array.ndim),
        1: ("<b", TYPES.get(array.dtype, 9)),
        2: ("<I", buffer),
        3: lambda b: b.content(name.encode()),
    }
    return lambda b: b.table(fields | {int(number): value for number, value in replaced.items()})


def model(tensors, buffers, *, version=3, subgraphs=None):
    """Return a file of tensor tables and buffers, each as its writer."""
    file = FlatBuffer()
    graphs = [lambda b: b.table({0: lambda b: b.tables(tensors)})] if subgraphs is None else subgraphs
    file.data[4:8] = b"TFL3"
    fields = {0: ("<I", version), 2: lambda b: b.tables(graphs), 4: lambda b: b.tables(buffers)}
    file.refer(0, lambda b: b.table(fields))
    return bytes(file.data)


def buffer_table(raw):
    """Return the writer of a buffer's table."""
    return lambda b: b.table({0: lambda b: b.content(raw)})


def write_tflite(constants):
    """Return a file with constants, given as arrays by name, and one result without data."""
    arrays = {name: np.asarray(array) for name, array in constants.items()}
    tensors = [tensor_table("a result", np.zeros((1, 4), np.float32), 0)]
    tensors += [tensor_table(name, array, number) for number, (name, array) in enumerate(arrays.items(), start=1)]
    return model(tensors, [lambda b: b.table({}), *(buffer_table(array.tobytes()) for array in arrays.values())])
