"""One head with something of another.

The groups position, pose, expression and lighting are those of the released code, whose default is position and pose. It reads
heads with neck and eyes at rest; here the neck belongs to the pose and the gaze to the expression. Shape, with the skin, is an
addition: it says who, which the identity does too.
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
"""What can be taken from another head, and the fields that it stands for."""


def common_batch(a: HeadParams, b: HeadParams) -> tuple[HeadParams, HeadParams]:
    """Two batches of heads brought to one size and device: a single head serves all of the other's frames.

    Raises:
        BadInput: both are sequences, of different lengths.
    """
    if a.batch != b.batch and 1 not in (a.batch, b.batch):
        raise BadInput(
            f"Expected two sequences of one length, or a single head beside a sequence, got {a.batch} and {b.batch} heads. "
            "Animate Head brings a sequence to any number of frames."
        )
    batch = max(a.batch, b.batch)
    return a.expand(batch), b.expand(batch).to(a.device)


def transfer(a: HeadParams, b: HeadParams, groups: Collection[str]) -> HeadParams:
    """Head `a` with some groups of parameters of head `b`.

    Args:
        a: N heads, or 1.
        b: N heads, or 1, for every frame of the other.
        groups: names out of `TRANSFER_GROUPS`; none gives `a` as it is.

    Returns:
        N heads on the device of `a`.

    Raises:
        BadInput: an unknown group, or sequences of different lengths.
    """
    unknown = set(groups) - set(TRANSFER_GROUPS)
    if unknown:
        raise BadInput(f"Expected groups out of {', '.join(TRANSFER_GROUPS)}, got {', '.join(sorted(unknown))}.")
    a, b = common_batch(a, b)
    return a.replace(**{name: getattr(b, name) for group in groups for name in TRANSFER_GROUPS[group]})
