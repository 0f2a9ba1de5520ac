"""Rotations.

Conventions: right-handed axes, x to the viewer's right, y up, z towards the viewer; column vectors (`x' = R x`); radians.
A head's yaw turns about y (positive: the face turns to the viewer's right), pitch about x (positive: chin down), roll
about z (positive: counter-clockwise for the viewer). Axis-angle vectors are `angle · axis`.
"""

import torch
from torch import Tensor

from ...errors import BadInput


def axis_angle_to_matrix(rotation: Tensor) -> Tensor:
    """Rotation matrices of axis-angle vectors (Rodrigues).

    Args:
        rotation: `[..., 3]`, radians.

    Returns:
        `[..., 3, 3]`.

    Raises:
        BadInput: the last dimension is not 3.
    """
    if rotation.shape[-1] != 3:
        raise BadInput(f"Expected axis-angle vectors [..., 3], got {list(rotation.shape)}.")
    # The tiny offset is FLAME's way around the zero vector; leaving it out would change its numbers.
    angle = (rotation + 1e-8).norm(dim=-1, keepdim=True)
    x, y, z = (rotation / angle).unbind(-1)
    zero = torch.zeros_like(x)
    K = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    angle = angle[..., None]
    # R = I + sin theta K + (1 - cos theta) K²
    return torch.eye(3, dtype=K.dtype, device=K.device) + angle.sin() * K + (1 - angle.cos()) * (K @ K)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """Axis-angle vectors of rotation matrices, angles in [0, pi].

    Goes through the unit quaternion, taking the largest of its four components as the pivot, so that angles near 0 and
    near pi are equally exact.

    Args:
        matrix: `[..., 3, 3]`, orthonormal with determinant 1.

    Returns:
        `[..., 3]`, radians.

    Raises:
        BadInput: the last two dimensions are not 3 × 3.
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


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Rotations on the shortest way from `a` to `b`, at an even pace (Shoemake 1985).

    Half a turn apart there are two shortest ways; it takes one of them, always the same.

    Args:
        a: `[..., 3]` axis-angle, radians.
        b: `[..., 3]` axis-angle, radians.
        share: `[...]`, 0 at `a` and 1 at `b`.

    Returns:
        `[..., 3]` axis-angle, radians.
    """
    start, end = axis_angle_to_matrix(a), axis_angle_to_matrix(b)
    # R(t) = exp(t · log(R_b R_a^T)) R_a
    way = share[..., None] * matrix_to_axis_angle(end @ start.mT)
    return matrix_to_axis_angle(axis_angle_to_matrix(way) @ start)


def yaw_of(matrix: Tensor) -> Tensor:
    """The yaw of rotation matrices: `atan2(-R20, sqrt(R00² + R10²))`.

    Args:
        matrix: `[..., 3, 3]`.

    Returns:
        `[...]`, radians in [-pi/2, pi/2].
    """
    return torch.atan2(-matrix[..., 2, 0], matrix[..., :2, 0].norm(dim=-1))
