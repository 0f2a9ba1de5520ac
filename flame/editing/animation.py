"""Sequences of heads: between keys, turning, or following another head.

Conventions: as in `params.py`. A frame's share of the way is 0 at one key and 1 at the next. Between two heads rotations take
the shortest way, sizes change by equal factors, the head's centre (see `transform.py`) moves straight across the frame, and
everything else changes by equal amounts.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...errors import BadInput
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
"""How far on the way a share of the time is; each keeps 0 and 1."""

ROTATIONS = ("rotation", "neck", "jaw", "eyes")


def interpolate(model: HeadModel, a: HeadParams, b: HeadParams, share: Tensor) -> HeadParams:
    """Heads between two others.

    Args:
        model: the head model, which knows where a head's centre is.
        a: N heads, exactly those where the share is 0.
        b: N heads, exactly those where the share is 1.
        share: `[N]` in 0..1.

    Returns:
        N heads.
    """
    mixed = {name: _lerp(getattr(a, name), getattr(b, name), share) for name in SIZES}
    for name in ROTATIONS:
        x, y = (getattr(head, name).unflatten(1, (-1, 3)) for head in (a, b))
        mixed[name] = slerp(x, y, share[:, None].expand(x.shape[:2])).flatten(1)
    # s(t) = s_a^(1 - t) · s_b^t
    scale = _lerp(a.camera[:, :1].log(), b.camera[:, :1].log(), share).exp()
    mixed["camera"] = torch.cat([scale, mixed["camera"][:, 1:]], dim=1)
    heads = move_centre(model, HeadParams(**mixed), _lerp(head_centre(model, a), head_centre(model, b), share))
    # At the keys nothing is left of the arithmetic's rounding.
    at_a, at_b = share == 0, share == 1
    return HeadParams(
        **{name: _where(at_a, getattr(a, name), _where(at_b, getattr(b, name), getattr(heads, name))) for name in SIZES}
    )


def animate_keys(model: HeadModel, keys: HeadParams, frames: int, easing: str = "linear", loop: bool = False) -> HeadParams:
    """A sequence through key heads, which are spread evenly over it.

    Args:
        model: the head model.
        keys: K heads. The first is the first frame and the last the last one; in a loop the way leads back to the first key,
            which would be the frame after the last.
        frames: how many frames, at least 1.
        easing: a name out of `EASINGS`, from each key to the next.
        loop: whether the sequence is to be repeated without a jump.

    Returns:
        `frames` heads.

    Raises:
        BadInput: no frames, or an unknown easing.
    """
    frame, last = _frames(frames, loop, keys.device)
    ways = keys.batch if loop and keys.batch > 1 else keys.batch - 1
    first = (frame * ways // last).clamp(max=max(ways - 1, 0))
    share = _ease((frame * ways - first * last) / last, easing)
    return interpolate(model, keys[first], keys[(first + 1) % keys.batch], share)


def turntable(
    model: HeadModel,
    head: HeadParams,
    frames: int,
    start: float = 0.0,
    end: float = 2 * math.pi,
    easing: str = "linear",
    loop: bool = False,
) -> HeadParams:
    """A head that turns about the upright axis through its centre, which stays where it is in the frame.

    Args:
        model: the head model.
        head: one head, or as many as frames.
        frames: how many frames, at least 1.
        start: yaw of the first frame, radians, added to the head's own.
        end: yaw of the last frame. In a loop of whole turns it is the frame after the last; in any other loop the head gets
            there in the middle and turns back.
        easing: a name out of `EASINGS`, from start to end.
        loop: whether the sequence is to be repeated without a jump.

    Returns:
        `frames` heads.

    Raises:
        BadInput: no frames, an unknown easing, or neither one head nor as many as frames.
    """
    if head.batch not in (1, frames):
        raise BadInput(f"A turntable of {frames} frames: expected one head, or {frames}, got {head.batch}.")
    frame, last = _frames(frames, loop, head.device)
    time = frame / last
    whole = math.isclose(math.remainder(end - start, 2 * math.pi), 0, abs_tol=1e-6)
    if loop and not whole:
        time = 1 - (1 - 2 * time).abs()
    yaw = start + _ease(time, easing) * (end - start)
    rotation = torch.stack([torch.zeros_like(yaw), yaw, torch.zeros_like(yaw)], dim=1)
    return turn(model, head.expand(frames), rotation)


def follow(model: HeadModel, head: HeadParams, driving: HeadParams, relative: bool = True) -> HeadParams:
    """A head that does what another one does: position, pose and expression; who it is and its light stay.

    Args:
        model: the head model.
        head: the head that follows: one, or as many as the driving sequence has.
        driving: the sequence.
        relative: whether the motion since the driving sequence's first frame is added to the head, distances in units of the
            head's size; else position, pose and expression are those of the sequence.

    Returns:
        As many heads as the longer of both.

    Raises:
        BadInput: sequences of different lengths.
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
    """The frames' numbers from 0, `[frames]` int64, and the number at which the way ends: in a loop, one past the last."""
    if frames < 1:
        raise BadInput(f"Expected at least one frame, got {frames}.")
    return torch.arange(frames, device=device), frames if loop else max(frames - 1, 1)


def _ease(time: Tensor, easing: str) -> Tensor:
    if easing not in EASINGS:
        raise BadInput(f"Expected an easing out of {', '.join(EASINGS)}, got {easing!r}.")
    return EASINGS[easing](time)


def _lerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    return a + _column(share, a) * (b - a)


def _where(choose: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(_column(choose, a), a, b)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """`[N]` as `[N, 1, …]`, to go with another tensor of N rows."""
    return values.view(-1, *[1] * (like.dim() - 1))
