"""TensorFlow Lite, protobuf and zip files from elsewhere: read as written, and refused quickly where they lie."""

import contextlib
import io
import random
import struct
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch

from capface.errors import BadFile
from capface.files.bundle import LARGEST_BUNDLE, member_names, read_bundle
from capface.files.protobuf import read_fields
from capface.files.tflite import MOST_TENSORS, read_tflite
from capface.tests.files.tflite_writer import buffer_table, model, tensor_table, write_tflite

CONSTANTS = {
    "kernel": np.arange(24, dtype=np.float16).reshape(2, 3, 4) / 7,
    "bias;fused with it": np.linspace(-1, 1, 5, dtype=np.float32),
    "axes": np.array([1, 0], np.int32),
    "one number": np.array(0.5, np.float16),
}
FILE = write_tflite(CONSTANTS)
SECONDS, BYTES = 1.0, 200_000_000
"""What a malformed file may cost."""


def refused(read, *arguments, match="cannot be read"):
    """Read a malformed file: it must be refused within the limit of time."""
    start = time.process_time()
    with pytest.raises(BadFile, match=match):
        read(*arguments)
    assert time.process_time() - start < SECONDS


@pytest.fixture
def frugal():
    """The test must keep to the limit of memory."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < BYTES


def test_constants_are_read_by_name():
    found = read_tflite(FILE, "x")
    assert list(found) == list(CONSTANTS)
    for name, array in CONSTANTS.items():
        expected = torch.from_numpy(array)
        expected = expected.float() if expected.is_floating_point() else expected
        assert found[name].dtype == expected.dtype
        assert torch.equal(found[name], expected), name


def lying(**replaced):
    """A file with one tensor of six numbers, some of whose fields are others."""
    tensor = tensor_table("t", np.zeros((2, 3), np.float32), 1, **replaced)
    return model([tensor], [lambda b: b.table({}), buffer_table(bytes(24))])


def shape(*sides):
    return lambda b: b.content(struct.pack(f"<{len(sides)}i", *sides), len(sides))


def after(data, place, kind, number):
    return data[:place] + struct.pack(kind, number) + data[place + struct.calcsize(kind) :]


MALFORMED = {
    "empty": b"",
    "another file": b"PK\x03\x04" + bytes(60),
    "only its name": b"\x00\x00\x00\x00TFL3",
    "the root beyond the end": after(FILE, 0, "<I", 0xFFFFFFF0),
    "the root at the last byte": after(FILE, 0, "<I", len(FILE) - 1),
    "another version": model([], [], version=2),
    "no subgraph": model([], [], subgraphs=[]),
    "a shape larger than its data": lying(**{"0": shape(2, 4)}),
    "a shape that overflows": lying(**{"0": shape(2**31 - 1, 2**31 - 1, 2**31 - 1)}),
    "a negative shape": lying(**{"0": shape(-2, -3)}),
    "too many axes": lying(**{"0": shape(*[1] * 9)}),
    "a count beyond the end": lying(**{"0": lambda b: b.content(bytes(8), 2**32 - 1)}),
    "a name beyond the end": lying(**{"3": lambda b: b.content(b"t", 2**31)}),
    "a name of megabytes": lying(**{"3": lambda b: b.content(b"t" * 5000)}),
    "a buffer that is not there": lying(**{"2": ("<I", 7)}),
    "a quantised tensor": lying(**{"1": ("<b", 9)}),
    "a negative type": lying(**{"1": ("<b", -1)}),
    "a sparse tensor": lying(**{"6": lambda b: b.table({})}),
    "weights outside the file": model(
        [tensor_table("t", np.zeros(1, np.float32), 0)], [lambda b: b.table({1: ("<Q", 4096), 2: ("<Q", 4)})]
    ),
    "two tensors of one name": model([tensor_table("t", np.zeros(1, np.float32), 0)] * 2, [buffer_table(bytes(4))]),
    "tensors that share more than the file has": model(
        [tensor_table(f"t{i}", np.zeros(2000, np.float32), 0) for i in range(100)], [buffer_table(bytes(8000))]
    ),
    "too many tensors": model(
        [], [], subgraphs=[lambda b: b.table({0: lambda b: b.content(bytes(4 * MOST_TENSORS + 4), MOST_TENSORS + 1)})]
    ),
    "a subgraph that is its own reference": model([], [buffer_table(bytes(4))], subgraphs=[None]),
    "a tensor that is its own reference": model([None], [buffer_table(bytes(4))]),
    "a root that is its own reference": after(FILE, 0, "<I", 0),
    "backward references": after(FILE, 0, "<I", 2**32 - 4),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_network_is_refused(name, frugal):
    refused(read_tflite, MALFORMED[name], "x", match=r"^x cannot be read: ")


def test_a_truncated_network_is_refused():
    for length in range(0, len(FILE), 3):
        refused(read_tflite, FILE[:length], "x")


def test_damaged_bytes_end_in_tensors_or_a_refusal():
    dice = random.Random(0)
    for _ in range(2000):
        data = bytearray(FILE)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        with contextlib.suppress(BadFile):
            read_tflite(bytes(data), "x")


def test_many_tensors_cost_little():
    tensors = [tensor_table(f"t{i}", np.zeros(1, np.float32), 0) for i in range(MOST_TENSORS)]
    data = model(tensors, [buffer_table(bytes(4 * MOST_TENSORS))])
    refused(read_tflite, data, "x", match="shape")
    refused(read_tflite, model(tensors * 2, [buffer_table(bytes(4))]), "x", match="elements")


@pytest.mark.parametrize(
    "data",
    [b"\x0a", b"\x0a\x05abc", b"\x08", b"\x08" + b"\xff" * 11, b"\x0a" + b"\xff" * 9 + b"\x01x", b"\x0d\x00\x00", b"\x0b"],
    ids=["no length", "too short", "no number", "endless number", "a length beyond the end", "a short float", "a group"],
)
def test_a_malformed_message_is_refused(data):
    refused(lambda: list(read_fields(data, "x")), match="protobuf")


def test_a_messages_fields_are_read():
    data = b"\x08\x96\x01" + b"\x12\x02hi" + b"\x1d" + struct.pack("<f", 1.5) + b"\x21" + bytes(8)
    fields = [(number, value if isinstance(value, int) else bytes(value)) for number, value in read_fields(data, "x")]
    assert fields == [(1, 150), (2, b"hi"), (3, struct.pack("<f", 1.5)), (4, bytes(8))]


def archive(members, compression=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def bundle_refused(tmp_path, data, match="cannot be read"):
    path = tmp_path / "x.task"
    path.write_bytes(data)
    refused(read_bundle, path, match=match)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_bundle_is_unpacked(tmp_path, compression):
    members = {"a": b"1" * 1000, "folder/b": b"2"}
    (tmp_path / "x").write_bytes(b"\0\0" + archive(members, compression))  # MediaPipe's begin with two zeros
    assert member_names(tmp_path / "x") == list(members)
    assert read_bundle(tmp_path / "x") == members


def test_a_truncated_bundle_is_refused(tmp_path, frugal):
    data = archive({"a": bytes(range(256)) * 40, "b": b"2"})
    for length in range(0, len(data), max(1, len(data) // 40)):
        bundle_refused(tmp_path, data[:length])
    assert member_names(tmp_path / "x.task") == []


def test_a_bomb_is_refused(tmp_path, frugal):
    bundle_refused(tmp_path, archive({"a": bytes(4 * LARGEST_BUNDLE)}), "more than")


def test_a_bomb_that_states_a_small_size_is_refused(tmp_path, frugal):
    data = archive({"a": bytes(4 * LARGEST_BUNDLE)})
    true = struct.pack("<I", 4 * LARGEST_BUNDLE)
    bundle_refused(tmp_path, data.replace(true, struct.pack("<I", 100)))


def test_a_bundle_of_many_members_is_refused(tmp_path, frugal):
    bundle_refused(tmp_path, archive({f"a rather long name to fill the list {i}": b"" for i in range(1500)}), "list of members")


def test_a_list_that_states_a_small_size_through_zip64_is_refused(tmp_path, frugal):
    data = archive({"a": b"1"})
    end = data.rfind(b"PK\x05\x06")
    bundle_refused(tmp_path, data[:end] + b"PK\x06\x07" + bytes(16) + data[end:], "4 GB")


def test_a_file_that_is_too_large_is_refused(tmp_path, frugal):
    path = tmp_path / "x.task"
    with path.open("wb") as file:
        file.truncate(LARGEST_BUNDLE + 1)
    refused(read_bundle, path, match="at most")


def test_a_damaged_bundle_is_refused_or_read(tmp_path):
    data = archive({"a": zlib.compress(bytes(1000)) * 3, "b": b"2"})
    dice = random.Random(0)
    path = tmp_path / "x.task"
    for _ in range(300):
        damaged = bytearray(data)
        damaged[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(BadFile):
            read_bundle(path)
