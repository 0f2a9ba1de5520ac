"""Transfer groups of parameters from one head to another.

The groups position, pose, expression and lighting are those of the released code, whose default is position and pose. Its heads
have neck and eyes at rest; here the neck belongs to the pose and the gaze to the expression. The group shape, with the skin, is
an addition. It determines the person, as the identity does too.
"""

from collections.abc import Collection

from ...errors import BadInput
from ..model import HeadParams

TRANSFER_GROUPS: dict[str, tuple[str, ...]] = {
    "position": ("camera",),
    "pose": ("rotation", "neck"),
    "expression": ("expression", "jaw", "eyes"),
    "lighting": ("light",),
    "shape": ("shape", "texture"),
}
"""Groups that can be taken from another head, with their fields."""


def common_batch(a: HeadParams, b: HeadParams) -> tuple[HeadParams, HeadParams]:
    """Expand two batches of heads to one size, on one device. A single head is repeated for all frames of the other.

    Args:
        a: N heads, or 1.
        b: N heads, or 1.

    Returns:
        N heads each, on the device of `a`.

    Raises:
        BadInput: Both are sequences, of different lengths.
    """
    if a.batch != b.batch and 1 not in (a.batch, b.batch):
        raise BadInput(
            f"Expected two sequences of one length, or a single head and a sequence, got {a.batch} and {b.batch} heads. "
            "Animate Head brings a sequence to any number of frames."
        )
    batch = max(a.batch, b.batch)
    return a.expand(batch), b.expand(batch).to(a.device)


def transfer(a: HeadParams, b: HeadParams, groups: Collection[str]) -> HeadParams:
    """Replace groups of parameters of head `a` by those of head `b`.

    Args:
        a: N heads, or 1.
        b: N heads, or 1, for every frame of the other.
        groups: Names in `TRANSFER_GROUPS`. With no names, `a` stays as it is.

    Returns:
        N heads on the device of `a`.

    Raises:
        BadInput: A group is unknown, or the sequences have different lengths.
    """
    unknown = set(groups) - set(TRANSFER_GROUPS)
    if unknown:
        raise BadInput(f"Expected groups out of {', '.join(TRANSFER_GROUPS)}, got {', '.join(sorted(unknown))}.")
    a, b = common_batch(a, b)
    return a.replace(**{name: getattr(b, name) for group in groups for name in TRANSFER_GROUPS[group]})
