"""Rotations.

Conventions: right-handed axes, x to the viewer's right, y up, z towards the viewer; column vectors (`x' = R x`); radians.
Yaw turns a head about y (positive: the face turns to the viewer's right), pitch about x (positive: chin down), roll about z
(positive: counter-clockwise for the viewer). Axis-angle vectors are `angle · axis`.
"""

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float


def axis_angle_to_matrix(rotation: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Convert axis-angle vectors to rotation matrices (Rodrigues' formula).

    Args:
        rotation: Axis-angle vectors in radians.

    Raises:
        BadInput: The last dimension is not 3.
    """
    if rotation.shape[-1] != 3:
        raise BadInput(f"Expected axis-angle vectors [..., 3], got {list(rotation.shape)}.")
    # FLAME adds this tiny offset to avoid dividing by zero. Without it, the numbers would differ from FLAME's.
    angle = (rotation + 1e-8).norm(dim=-1, keepdim=True)
    x, y, z = (rotation / angle).unbind(-1)
    zero = torch.zeros_like(x)
    K = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    angle = angle[..., None]
    # R = I + sin theta K + (1 - cos theta) K²
    return torch.eye(3, dtype=K.dtype, device=K.device) + angle.sin() * K + (1 - angle.cos()) * (K @ K)


def matrix_to_axis_angle(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Convert rotation matrices to axis-angle vectors with angles in [0, pi].

    The conversion goes through the unit quaternion and pivots on the largest of its four components, so angles near 0 and
    near pi are equally exact.

    Args:
        matrix: Orthonormal matrices with determinant 1.

    Returns:
        Axis-angle vectors in radians.

    Raises:
        BadInput: The last two dimensions are not 3 × 3.
    """
    if matrix.shape[-2:] != (3, 3):
        raise BadInput(f"Expected rotation matrices [..., 3, 3], got {list(matrix.shape)}.")
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in matrix.unbind(-2))
    # 4 q q^T for q = (w, x, y, z); each row is q times one of its components.
    outer = torch.stack(
        [
            torch.stack([1 + a + e + i, h - f, c - g, d - b], dim=-1),
            torch.stack([h - f, 1 + a - e - i, b + d, c + g], dim=-1),
            torch.stack([c - g, b + d, 1 - a + e - i, f + h], dim=-1),
            torch.stack([d - b, c + g, f + h, 1 - a - e + i], dim=-1),
        ],
        dim=-2,
    )
    pivot = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = outer.gather(-2, pivot[..., None, None].expand(*pivot.shape, 1, 4)).squeeze(-2)
    q = torch.nn.functional.normalize(row, dim=-1)
    q = torch.where(q[..., :1] < 0, -q, q)
    w, v = q[..., :1], q[..., 1:]
    sine = v.norm(dim=-1, keepdim=True)
    # r = theta v/|v| with theta/2 = atan2(|v|, w); theta/|v| -> 2 where the angle vanishes
    factor = torch.where(sine > 1e-12, 2 * torch.atan2(sine, w) / sine.clamp(min=1e-12), 2.0)
    return factor * v


def slerp(
    a: Float[Tensor, "*#batch 3"], b: Float[Tensor, "*#batch 3"], fraction: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch 3"]:
    """Interpolate rotations along the shortest path from `a` to `b`, at constant angular speed (Shoemake 1985).

    Rotations that are half a turn apart have two shortest paths. The choice between them is deterministic.

    Args:
        a: Axis-angle vectors in radians, broadcast against `b` and `fraction`.
        b: Axis-angle vectors in radians.
        fraction: Position on the path, 0 at `a` and 1 at `b`.

    Returns:
        Axis-angle vectors in radians.
    """
    start, end = axis_angle_to_matrix(a), axis_angle_to_matrix(b)
    # R(t) = exp(t · log(R_b R_a^T)) R_a
    turn = fraction[..., None] * matrix_to_axis_angle(end @ start.mT)
    return matrix_to_axis_angle(axis_angle_to_matrix(turn) @ start)


def yaw_of(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Return the yaw of rotation matrices, `atan2(-R20, sqrt(R00² + R10²))`, in radians within [-pi/2, pi/2]."""
    return torch.atan2(-matrix[..., 2, 0], matrix[..., :2, 0].norm(dim=-1))
