"""Small files that state much end in the pack's own error at once; sound files with odd contents are read."""

import collections
import functools
import io
import pickle
import resource
import struct
import time
import zipfile

import numpy as np
import pytest
import torch
import torch._utils
from safetensors.torch import save_file

from capface.errors import BadFile
from capface.files.checkpoint import read_state_dict, unwrap
from capface.files.header import read_begin, tensor_shapes
from capface.files.npy import read_array
from capface.files.onnx import check_onnx
from capface.files.pickles import Kept, Opaque, read_pickle
from capface.flame.io.safe_pickle import to_array, unpickle


def doubled(depth, first, combine):
    """A pickle of an object that holds an object twice that holds an object twice ..."""
    out = b"\x80\x02" + first + b"q\x00"
    for i in range(depth):
        out += combine(b"h" + bytes([i])) + b"q" + bytes([i + 1])
    return out


TUPLE = functools.partial(doubled, first=b"K\x00", combine=lambda last: last + last + b"\x86")
LIST = functools.partial(doubled, first=b"(K\x00l", combine=lambda last: b"(" + last + last + b"l")
DICT = functools.partial(doubled, first=b"}U\x01xK\x01s", combine=lambda last: b"}(U\x01a" + last + b"U\x01b" + last + b"u")


def zipped(data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/byteorder", b"little")
    return file.getvalue()


@pytest.fixture
def cheap():
    """The test takes less than a second of the processor, and less than 200 MB."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


CHECKPOINTS = {
    "a hashed key": TUPLE(40) + b"}h\x28K\x01s.",
    "dictionaries that double": DICT(40) + b".",
    "a dictionary in itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    "deep dictionaries": b"\x80\x02}" + b"X\x01\x00\x00\x00a}" * 5000 + b"s" * 5000 + b".",
    "many classes": b"\x80\x02(" + b"".join(b"cm%d\nX\n" % i for i in range(3000)) + b"l.",
    "a long integer": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "long names": b"\x80\x02}X\x20\x4e\x00\x00" + b"n" * 20_000 + b"}X\x01\x00\x00\x00a}ss.",
}


@pytest.mark.parametrize("what", CHECKPOINTS)
@pytest.mark.usefixtures("cheap")
def test_a_small_checkpoint_costs_little(tmp_path, what):
    (tmp_path / "x.ckpt").write_bytes(zipped(CHECKPOINTS[what]))
    try:
        assert read_state_dict(tmp_path / "x.ckpt") == {}
    except BadFile as error:
        assert len(str(error)) < 300


PICKLES = {
    "a position of the memo": b"\x80\x02}p300000000\n.",
    "a binary position of the memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a hashed key": TUPLE(40) + b"}h\x28K\x01s.",
    "lists that double": LIST(40) + b".",
    "a bytearray": b"\x80\x05\x96\x00\x00\x00\x00\xff\x00\x00\x00.",
    "a long text": b"\x80\x02T\xff\xff\xff\x7f.",
}


@pytest.mark.parametrize("what", PICKLES)
@pytest.mark.usefixtures("cheap")
def test_a_small_pickle_costs_little(what):
    try:
        to_array(unpickle(PICKLES[what]))
    except BadFile as error:
        assert len(str(error)) < 300


def test_an_array_is_compared_with_its_bytes():
    def array(shape, data=b"\0" * 24):
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        return io.BytesIO(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)

    assert read_array(array("(2, 3)"), 1000).shape == (2, 3) and read_array(array("(2L, 3L)"), 1000).shape == (2, 3)
    for shape in ("(100000000000, 0, 3)", "(100000000000,)", "(-1, 3)", "9**9**9", "(2, 4)", "(" * 900, "(" + "1," * 40 + ")"):
        with pytest.raises(BadFile):
            read_array(array(shape), 1000)


@pytest.mark.parametrize("starts", [[0, 250_000_000], [0, -5, 1], [1, 1], [0, 0, 2]])
def test_a_sparse_matrix_is_compared_with_its_numbers(starts):
    matrix = Kept("scipy.sparse.csc.csc_matrix", ())
    one = pickle.loads(pickle.dumps([0]))
    matrix.state = {"_shape": (2, 1), "data": one, "indices": one, "indptr": starts}
    with pytest.raises(BadFile, match="do not fit"):
        to_array(matrix)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_must_lie_in_its_storage(tmp_path, legacy):
    class Views:
        def __init__(self, size, stride, offset):
            self.args = (torch.ones(4).untyped_storage(), offset, size, stride)

        def __reduce__(self):
            storage = torch.storage.TypedStorage(wrap_storage=self.args[0], dtype=torch.float32, _internal=True)
            return torch._utils._rebuild_tensor_v2, (storage, *self.args[1:], False, collections.OrderedDict())

    for size, stride, offset, good in (
        ((2, 2), (2, 1), 0, True), ((4,), (1,), 1, False), ((5,), (1,), 0, False), ((2,), (1 << 61,), 0, False),
        ((2, 2), (1,), 0, False), ((-1,), (1,), 0, False), ((1 << 45,), (0,), 0, False), ((2,), (1,), -1, False),
    ):  # fmt: skip
        torch.save({"w": Views(size, stride, offset)}, tmp_path / "x.ckpt", _use_new_zipfile_serialization=not legacy)
        if good:
            assert read_state_dict(tmp_path / "x.ckpt")["w"].tolist() == [[1, 1], [1, 1]]
        else:
            with pytest.raises(BadFile, match="tensor"):
                read_state_dict(tmp_path / "x.ckpt")


def test_a_checkpoint_is_no_web_page_because_of_its_headers_length(tmp_path):
    for spaces in range(0, 520):
        text = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' + b" " * spaces
        path = tmp_path / "x.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0\0\x80?")
        if len(text) % 256 in (0x08, 0x20, 0x3C):  # an ONNX network, a space, "<"
            assert read_begin(path) and read_state_dict(path)["a"].tolist() == [1.0]
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors", {"x": "y" * 15_316})  # 0x20 0x3C
    assert read_state_dict(tmp_path / "w.safetensors")["a"].tolist() == [1.0]


class MyList(list):
    """A class that the reader does not know."""


class MyDict(dict):
    """The same."""


class MyTensor(torch.Tensor):
    """The same."""


BESIDE = {
    "deque": collections.deque([1]),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "frozenset": frozenset({1}),
    "range": range(3),
    "slice": slice(1),
    "partial": functools.partial(int, "1"),
    "list": MyList([1, 2]),
    "dict": MyDict(a=1),
    "tensor": torch.ones(2).as_subclass(MyTensor),
    "array": np.ones(3),
    "integer": 10**40,
    "function": print,
    "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "sparse": torch.eye(2).to_sparse(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}], ids=str)
def test_any_object_may_lie_beside_the_tensors(tmp_path, options):
    torch.save({"state_dict": MyDict(w=torch.arange(3)), "beside": BESIDE}, tmp_path / "x.ckpt", **options)
    state = read_state_dict(tmp_path / "x.ckpt")
    assert list(state) == ["w"] and state["w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("before", "taken"),
    [(("module.",), "module."), (("model.", "ema."), "model."), (("ema.module.",), "ema.module."), (("other.",), None)],
)
def test_what_training_code_puts_before_the_names_is_removed(before, taken):
    state = {f"{prefix}{key}": torch.full((1,), float(i)) for i, prefix in enumerate(before) for key in ("a.w", "a.b")}
    plain = unwrap(state, "a.w")
    assert set(plain) == ({"a.w", "a.b"} if taken else set(state))
    assert taken is None or plain["a.w"] is state[f"{taken}a.w"]


def test_keys_that_take_long_to_hash_are_kept_apart():
    key = (("a", ("b",)),)
    (content, _) = read_pickle(pickle.dumps({key: 1, 10**30: 2, "s": 3, (1, 2): 4}))
    assert [type(one) for one in content] == [Opaque, Opaque, str, tuple]


def test_the_shapes_of_a_strange_header_are_left_out(tmp_path):
    text = b'{"a":{"shape":[[]]},"b":{"shape":[2]},"c":{"shape":"x"}}'
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    assert tensor_shapes(tmp_path / "x.safetensors") == {"b": [2]}


def test_an_onnx_network_may_not_state_more_than_it_has(tmp_path):
    helper = pytest.importorskip("onnx").helper

    def write(nodes, constants=(), shape=(1, 3)):
        inputs = [helper.make_tensor_value_info("x", 1, list(shape))]
        graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", 1, None)], list(constants))
        (tmp_path / "x.onnx").write_bytes(helper.make_model(graph).SerializeToString())
        check_onnx(tmp_path / "x.onnx")

    weight = helper.make_tensor("w", 1, [2, 2], [1.0, 2.0, 3.0, 4.0])
    write([helper.make_node("MatMul", ["x", "w"], ["y"])], [weight])
    weight.dims[0] = 1 << 40
    shape = helper.make_tensor("s", 7, [2], [1 << 20, 1 << 20])
    outside = helper.make_tensor("w", 1, [1], [1.0])
    outside.external_data.add(key="location", value="../secret")
    for nodes, constants, size in (
        ([helper.make_node("MatMul", ["x", "w"], ["y"])], [weight], (1, 3)),
        ([helper.make_node("ConstantOfShape", ["s"], ["y"])], [shape], (1, 3)),
        ([helper.make_node("Relu", ["x"], ["y"])], [outside], (1, 3)),
        ([helper.make_node("Relu", ["x"], ["y"])], [], (1 << 20, 1 << 20)),
    ):
        with pytest.raises(BadFile):
            write(nodes, constants, size)
