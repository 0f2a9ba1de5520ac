"""A check of ONNX networks before a runtime opens them: what they state fits the file, and nothing lies outside it.

Runtimes believe a network's sizes, compute its constant parts when they open it, and read weights from other files that it
names.

Source: onnx.proto3 of ONNX (ModelProto, GraphProto, NodeProto, TensorProto), and the operators' specifications.
"""

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

from ..errors import BadFile, quote
from .budgets import MOST_FOLDED, MOST_NODES, at_most
from .protobuf import read_fields

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_TENSOR, GRAPH_SPARSE, GRAPH_INPUT = 1, 5, 15, 11
NODE_INPUT, NODE_OUTPUT, NODE_OPERATOR, NODE_ATTRIBUTE = 1, 2, 4, 5
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11
TENSOR_AXES, TENSOR_NAME, TENSOR_RAW, TENSOR_OUTSIDE, TENSOR_LOCATION = 1, 8, 9, 13, 14
TENSOR_NUMBERS = (4, 5, 6, 7, 10, 11)
TENSOR_INT64 = 7
"""Numbers of fields. `TENSOR_NUMBERS` hold the values one by one, `TENSOR_RAW` as bytes."""
INPUT_TYPE, TYPE_TENSOR, TENSOR_SHAPE, SHAPE_AXIS, AXIS_LENGTH = 2, 1, 2, 1, 1
EXPANDING = ("ConstantOfShape", "Expand", "Tile", "Range", "Upsample", "Resize", "OneHot", "Pad")
"""Operators whose result may be much larger than their inputs."""
DEEPEST = 4
"""Depth of graphs in graphs, such as the branches of a condition."""
FEW = 16
"""A constant of at most so many integers may be a shape."""

Message = memoryview


def check_onnx(path: Path) -> None:
    """Check a network.

    Args:
        path: The file.

    Raises:
        BadFile: The file is malformed, a tensor is larger than its bytes, weights lie in another file, or a constant part would
            expand beyond a budget.
    """
    if not path.stat().st_size:
        raise BadFile(f"{quote(path.name)} is empty. Download it again.")
    with path.open("rb") as file:
        message = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    graphs = [content for number, content in _fields(message, path.name) if number == MODEL_GRAPH]
    if not graphs:
        raise BadFile(f"{quote(path.name)} cannot be read as an ONNX network: it has no graph. Download it again.")
    for graph in graphs:
        _Graph(path.name, 0).check(graph)


def _fields(message: Message, name: str) -> Iterator[tuple[int, Message]]:
    """Go through the fields that are messages, texts or lists."""
    for number, content in read_fields(message, name):
        if not isinstance(content, int):
            yield number, content


class _Graph:
    """The checks of one graph, and those of the graphs in it."""

    def __init__(self, name: str, depth: int):
        self.name, self.depth, self.parts = name, depth, 0
        self.shapes: dict[bytes, list[int]] = {}
        """Small constants of integers, by name."""

    def bad(self, problem: str) -> BadFile:
        return BadFile(f"{quote(self.name)} cannot be read as an ONNX network: {problem}. Download it again.")

    def check(self, graph: Message) -> None:
        if self.depth > DEEPEST:
            raise self.bad("its graphs are nested too deeply")
        nodes: list[Message] = []
        for number, content in _fields(graph, self.name):
            self.parts += 1
            at_most(self.parts, MOST_NODES, "nodes and tensors", self.name)
            if number == GRAPH_TENSOR:
                self.tensor(content)
            elif number == GRAPH_SPARSE:
                raise self.bad("it has sparse weights, which are not supported")
            elif number == GRAPH_INPUT:
                self.input(content)
            elif number == GRAPH_NODE:
                nodes.append(content)
        for node in nodes:
            self.node(node)

    def tensor(self, message: Message, name: bytes = b"") -> None:
        """Compare a tensor's shape with its bytes."""
        axes: list[int] = []
        length, integers = 0, []
        for number, content in read_fields(message, self.name):
            if number == TENSOR_AXES:
                axes += [content] if isinstance(content, int) else _varints(content, self.name)
                at_most(len(axes), FEW, "axes", self.name)
            elif number == TENSOR_RAW or number in TENSOR_NUMBERS:
                length += 8 if isinstance(content, int) else len(content)
                if isinstance(content, int):
                    integers.append(content)
                elif number == TENSOR_RAW and len(content) <= 8 * FEW:
                    integers += [int.from_bytes(content[i : i + 8], "little", signed=True) for i in range(0, len(content), 8)]
                elif number == TENSOR_INT64 and len(content) <= 10 * FEW:
                    integers += _varints(content, self.name)
            elif number == TENSOR_NAME and not isinstance(content, int):
                name = name or bytes(content[:1000])
            elif number == TENSOR_OUTSIDE or (number == TENSOR_LOCATION and content):
                raise self.bad("its weights lie in another file, which is not supported")
        if max(axes, default=0) >= 1 << 60 or math.prod(axes) > 2 * length:  # two numbers of 4 bits share a byte
            raise self.bad(f"a tensor of shape {axes} has {length:,} bytes")
        if len(integers) <= FEW:
            self.shapes[name] = integers

    def input(self, message: Message) -> None:
        """Compare the declared size of an input with the budget."""
        for number, kind in _fields(message, self.name):
            if number != INPUT_TYPE:
                continue
            for tensor in self.parts_of(kind, TYPE_TENSOR):
                for shape in self.parts_of(tensor, TENSOR_SHAPE):
                    axes = self.parts_of(shape, SHAPE_AXIS)
                    lengths = [n for axis in axes for m, n in read_fields(axis, self.name) if m == AXIS_LENGTH]
                    known = [n for n in lengths if isinstance(n, int)]
                    at_most(math.prod(known[:FEW]), MOST_FOLDED, "numbers in its input", self.name)

    def parts_of(self, message: Message, wanted: int) -> list[Message]:
        return [content for number, content in _fields(message, self.name) if number == wanted]

    def node(self, message: Message) -> None:
        """Compare what a node makes of constants with the budget, and check the tensors and graphs in its attributes."""
        inputs, outputs, operator = [], [b""], b""
        attributes: list[Message] = []
        for number, content in _fields(message, self.name):
            if number == NODE_INPUT:
                inputs.append(bytes(content[:1000]))
            elif number == NODE_OUTPUT:
                outputs.append(bytes(content[:1000]))
            elif number == NODE_OPERATOR:
                operator = bytes(content[:100])
            elif number == NODE_ATTRIBUTE:
                attributes.append(content)
        for attribute in attributes:
            for number, content in _fields(attribute, self.name):
                if number in (ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS):
                    self.tensor(content, outputs[-1])
                elif number in (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS):
                    _Graph(self.name, self.depth + 1).check(content)
        if operator.decode("latin1") in EXPANDING:
            for value in inputs:
                numbers = [abs(number) for number in self.shapes.get(value, ()) if number]
                if math.prod(numbers) > MOST_FOLDED and any(number < 1 << 40 for number in numbers):
                    raise self.bad(f"a constant part expands to {quote(str(numbers))} numbers")


def _varints(message: Message, name: str) -> list[int]:
    """Read integers that follow each other, of at most 64 bits with sign."""
    found, value, shift = [], 0, 0
    for byte in bytes(message[: 10 * FEW]):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append(value - (1 << 64) if value >= 1 << 63 else value)
            value, shift = 0, 0
        if shift > 63:
            raise BadFile(f"{quote(name)} cannot be read: it holds an unfinished number. Download it again.")
    return found
