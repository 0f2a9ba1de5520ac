"""Budgets: the most that a file may state, contain or cost, whatever it says about itself.

A reader compares each count, size, stride, index and depth that a file states with the file's own length and with a budget from
this module before it allocates or walks anything. The budgets are far above what the published files need, and keep a small
malicious file below a second and 200 MB.
"""

from collections.abc import Sequence

from ..errors import BadFile

# Pickles and checkpoints

MOST_STEPS = 1_000_000
"""Instructions of a pickle, each of which makes at most one object. caphuman.ckpt has about 60,000."""
LARGEST_PICKLE = 1 << 26
"""Bytes of the pickle inside a checkpoint, which has names and shapes but no weights."""
LARGEST_INTEGER = 1 << 10
"""Bytes of an integer in a pickle."""
LONGEST_LINE = 1 << 12
"""Bytes of a number or a class name in a pickle."""
LONGEST_TUPLE_KEY = 16
"""Elements of a tuple that is a key of a dictionary."""
MOST_MEMBERS = 200_000
"""Members of a checkpoint's zip archive, one for each tensor and a few more."""
MOST_TENSORS = 100_000
"""Tensors of a checkpoint; also the entries of all its dictionaries that are looked at."""
MOST_ENTRIES = 1_000_000
"""Entries of all containers in the state of a training run."""
MOST_NESTING = 32
"""Depth of dictionaries in a checkpoint, and of lists in an array."""
NAME_CHARACTERS = 1 << 24
"""Characters of all names of a checkpoint's tensors together."""
LONGEST_NAME = 1_000
"""Characters of one name."""
MOST_AXES = 16
"""Axes of a tensor or array."""
MOST_REPEATED = 1 << 20
"""Bytes by which the tensors of a network may exceed what the file holds of them: an expanded tensor repeats numbers."""

# Safetensors

LARGEST_HEADER = 1 << 25
"""Bytes of a safetensors header. An SDXL checkpoint has 0.3 million."""

# Networks

MOST_LAYERS = 64
"""Layers or blocks of one kind that a checkpoint's names may ask for. CLIP ViT-bigG has 48."""
LONGEST_CONTEXT = 1 << 12
"""Positions of a text encoder, and patches of an image encoder. CLIP has 77 and 257."""

MOST_VOCABULARY = 1 << 17
"""Words or tokens of a text encoder. CLIP has 49,408."""

# FLAME

LARGEST_FLAME = 1 << 29
"""Bytes of FLAME's model file, or of its landmarks. FLAME 2020 has 53 million."""
LARGEST_TEMPLATE = 1 << 23
"""Bytes of head_template.obj, which has about a million."""
MOST_SPARSE = 1_000_000
"""Entries of an expanded sparse matrix. FLAME's joint regressor has 25,000."""
MOST_LISTED = 1_000_000
"""Numbers in an array that is written as nested lists."""
MOST_SKIN_COMPONENTS = 1_000
"""Components of a texture. FLAME has 200."""
LONGEST_NPY_HEADER = 10_000
"""Bytes."""
MOST_INFLATION = 200
"""Bytes that one byte of a compressed member may stand for."""

# JSON

LARGEST_HEADS = 1 << 25
"""Bytes of a file of heads. A head has at most about 3,000."""
MOST_HEADS = 16_384
"""Heads in a file, such as the frames of a sequence."""
BRACKETS_PER_HEAD = 40
"""Lists and objects in each head of a file."""
LARGEST_JSON = 1 << 26
"""Bytes of another JSON file, such as the index of a training set."""
MOST_JSON_PARTS = 1_000_000
"""Lists and objects in such a file."""

# ONNX

MOST_NODES = 100_000
"""Nodes and tensors of an ONNX network."""
MOST_FOLDED = 1 << 24
"""Numbers that a constant part of an ONNX network may expand to."""


def at_most(got: int, most: int, what: str, name: str) -> None:
    """Refuse a file that exceeds a budget.

    Args:
        got: The file's count or size.
        most: The budget.
        what: The thing that is counted, such as "bytes".
        name: Name of the file, for messages.

    Raises:
        BadFile: The count exceeds the budget.
    """
    if got > most:
        raise BadFile(f"{name} has {got:,} {what}, expected at most {most:,}. It is broken or not what its name says.")


def check_view(size: Sequence[int], stride: Sequence[int], offset: int, length: int) -> int:
    """Check that a tensor lies inside its storage.

    Args:
        size: Length of each axis.
        stride: Distance between neighbours on each axis, in numbers.
        offset: Position of the first number.
        length: Numbers in the storage.

    Returns:
        The count of the tensor's numbers. It exceeds `length` if a stride repeats numbers.

    Raises:
        BadFile: A value is not a number from 0 on, there are too many axes, or the tensor leaves its storage. The message is a
            clause without the file's name.
    """
    values = (*size, *stride, offset)
    if len(size) != len(stride) or len(size) > MOST_AXES or not all(type(v) is int and 0 <= v < 1 << 62 for v in values):
        raise BadFile("a tensor whose shape is malformed")
    count = 1
    for length_of_axis in size:
        count *= length_of_axis
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count >= 1 << 40 or (count and last >= length):
        raise BadFile(f"a tensor of shape {list(size)} that does not lie in its {length:,} numbers")
    return count
