"""Sequences of heads: between keys, turning, or following another head.

Conventions: as in `params.py`. The position of a frame between two keys is a fraction, 0 at the first key and 1 at the second.
Rotations take the shortest path, the scale is interpolated geometrically, the head's centre (see `placement.py`) moves in a
straight line across the frame, and all other fields are interpolated linearly.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float
from ..model import SIZES, HeadModel, HeadParams, axis_angle_to_matrix, matrix_to_axis_angle, slerp
from .placement import head_centre, move_centre, turn
from .transfers import common_batch, transfer

EASINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda t: t,
    "ease in": lambda t: t * t,
    "ease out": lambda t: t * (2 - t),
    "ease in-out": lambda t: t * t * (3 - 2 * t),
    "hold": lambda t: (t == 1).to(t),
}
"""Easing functions by name. Each maps a fraction of the time, 0..1, to a fraction of the path, and keeps 0 and 1."""

ROTATIONS = ("rotation", "neck", "jaw", "eyes")


def interpolate(model: HeadModel, a: HeadParams, b: HeadParams, fraction: Float[Tensor, " N"]) -> HeadParams:
    """Interpolate between heads.

    Args:
        model: The head model, for the centre of the head.
        a: N heads, returned unchanged where the fraction is 0.
        b: N heads, returned unchanged where the fraction is 1.
        fraction: `[N]` in 0..1.

    Returns:
        N heads.
    """
    mixed = {name: _lerp(getattr(a, name), getattr(b, name), fraction) for name in SIZES}
    for name in ROTATIONS:
        x, y = (getattr(head, name).unflatten(1, (-1, 3)) for head in (a, b))
        mixed[name] = slerp(x, y, fraction[:, None].expand(x.shape[:2])).flatten(1)
    # s(t) = s_a^(1 - t) · s_b^t
    scale = _lerp(a.camera[:, :1].log(), b.camera[:, :1].log(), fraction).exp()
    mixed["camera"] = torch.cat([scale, mixed["camera"][:, 1:]], dim=1)
    heads = move_centre(model, HeadParams(**mixed), _lerp(head_centre(model, a), head_centre(model, b), fraction))
    # At the keys the result is exact, without rounding errors.
    at_a, at_b = fraction == 0, fraction == 1
    return HeadParams(
        **{name: _where(at_a, getattr(a, name), _where(at_b, getattr(b, name), getattr(heads, name))) for name in SIZES}
    )


def animate_keys(model: HeadModel, keys: HeadParams, frames: int, easing: str = "linear", loop: bool = False) -> HeadParams:
    """Animate through key heads, which are spread evenly over the sequence.

    Args:
        model: The head model.
        keys: K heads. The first key is the first frame and the last key the last frame. A loop returns to the first key, which
            would be the frame after the last one.
        frames: Number of frames, at least 1.
        easing: A name in `EASINGS`, used from each key to the next.
        loop: Whether the sequence can be repeated without a jump.

    Returns:
        `frames` heads.

    Raises:
        BadInput: `frames` is below 1, or the easing is unknown.
    """
    frame, last = _frames(frames, loop, keys.device)
    paths = keys.batch if loop and keys.batch > 1 else keys.batch - 1
    first = (frame * paths // last).clamp(max=max(paths - 1, 0))
    fraction = _ease((frame * paths - first * last) / last, easing)
    return interpolate(model, keys[first], keys[(first + 1) % keys.batch], fraction)


def turntable(
    model: HeadModel,
    head: HeadParams,
    frames: int,
    start: float = 0.0,
    end: float = 2 * math.pi,
    easing: str = "linear",
    loop: bool = False,
) -> HeadParams:
    """Turn a head about the vertical axis through its centre, which stays at its position in the frame.

    Args:
        model: The head model.
        head: One head, or as many as frames.
        frames: Number of frames, at least 1.
        start: Yaw of the first frame in radians, added to the head's own.
        end: Yaw of the last frame in radians. In a loop of whole turns it is the yaw of the frame after the last one. In any
            other loop the head reaches it in the middle and turns back.
        easing: A name in `EASINGS`, used from start to end.
        loop: Whether the sequence can be repeated without a jump.

    Returns:
        `frames` heads.

    Raises:
        BadInput: `frames` is below 1, the easing is unknown, or the number of heads is neither 1 nor `frames`.
    """
    if head.batch not in (1, frames):
        raise BadInput(f"A turntable of {frames} frames: expected one head, or {frames}, got {head.batch}.")
    frame, last = _frames(frames, loop, head.device)
    time = frame / last
    whole_turns = math.isclose(math.remainder(end - start, 2 * math.pi), 0, abs_tol=1e-6)
    if loop and not whole_turns:
        time = 1 - (1 - 2 * time).abs()
    yaw = start + _ease(time, easing) * (end - start)
    rotation = torch.stack([torch.zeros_like(yaw), yaw, torch.zeros_like(yaw)], dim=1)
    return turn(model, head.expand(frames), rotation)


def follow(model: HeadModel, head: HeadParams, driving: HeadParams, relative: bool = True) -> HeadParams:
    """Make a head follow another one in position, pose and expression. Its shape, skin and light stay.

    Args:
        model: The head model.
        head: The head that follows: one, or as many as the driving sequence has.
        driving: The sequence to follow.
        relative: Whether to add the motion since the first frame of the driving sequence to the head, with distances relative
            to the head's size. Otherwise, position, pose and expression are those of the sequence.

    Returns:
        As many heads as the longer of the two.

    Raises:
        BadInput: The sequences have different lengths.
    """
    if not relative:
        return transfer(head, driving, ("position", "pose", "expression"))
    head, driving = common_batch(head, driving)
    first = driving[0].expand(driving.batch)
    changed = {"expression": head.expression + driving.expression - first.expression}
    for name in ROTATIONS:
        own, now, before = (axis_angle_to_matrix(getattr(h, name).unflatten(1, (-1, 3))) for h in (head, driving, first))
        # R' = (R_t R_0^T) R
        changed[name] = matrix_to_axis_angle(now @ before.mT @ own).flatten(1)
    ratio = head.camera[:, :1] / first.camera[:, :1]
    changed["camera"] = torch.cat([ratio * driving.camera[:, :1], head.camera[:, 1:]], dim=1)
    moved = head_centre(model, driving) - head_centre(model, first)
    return move_centre(model, head.replace(**changed), head_centre(model, head) + ratio * moved)


def _frames(frames: int, loop: bool, device: torch.device) -> tuple[Tensor, int]:
    """Return the frame numbers from 0, int64 `[frames]`, and the number where the path ends: in a loop, one past the last."""
    if frames < 1:
        raise BadInput(f"Expected at least one frame, got {frames}.")
    return torch.arange(frames, device=device), frames if loop else max(frames - 1, 1)


def _ease(time: Tensor, easing: str) -> Tensor:
    """Apply an easing by its name."""
    if easing not in EASINGS:
        raise BadInput(f"Expected an easing out of {', '.join(EASINGS)}, got {easing!r}.")
    return EASINGS[easing](time)


def _lerp(a: Tensor, b: Tensor, fraction: Tensor) -> Tensor:
    """Interpolate linearly between tensors of N rows, by a fraction for each row."""
    return a + _column(fraction, a) * (b - a)


def _where(choose: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Choose rows of `a` where `choose` is true, else rows of `b`."""
    return torch.where(_column(choose, a), a, b)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """Reshape `[N]` to `[N, 1, …]`, to broadcast with another tensor of N rows."""
    return values.view(-1, *[1] * (like.dim() - 1))
