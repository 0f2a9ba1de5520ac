"""The closed-form pose of a rigid set of points under scaled orthography.

Conventions: as in `camera.py`. A rotation turns the whole set about its own centre.
Source: Dementhon and Davis, "Model-based object pose in 25 lines of code" (1995), and Oberkampf, DeMenthon and Davis,
"Iterative pose estimation using coplanar feature points" (1996) for the two poses of a flat set.
"""

import torch
from torch import Tensor

from ...shapes import Float


def scaled_orthography(
    points: Float[Tensor, "b N 3"], observed: Float[Tensor, "B N 2"], weights: Float[Tensor, "B N"]
) -> tuple[Float[Tensor, "2 B 3 3"], Float[Tensor, " B"]]:
    """Find the two poses whose scaled orthographic view of `points` is nearest to `observed`.

    Least squares gives the in-plane part of the view. The depth part follows, up to its sign, because the rows of a rotation
    are orthogonal and of equal length. A face is so flat that both signs look alike from a distance: one pose is the mirror
    image of the other about the face's plane. Only the residual of a finer fit distinguishes them.

    Args:
        points: `[B, N, 3]` in metres, or `[1, N, 3]` for all.
        observed: `[B, N, 2]` (u, v) in frame units, v down.
        weights: `[B, N]`, at least 0, and above 0 for three points that are not collinear.

    Returns:
        Rotations `[2, B, 3, 3]`, and scales `[B]` in frame units per metre, which both poses share.
    """
    fraction = (weights / weights.sum(1, keepdim=True))[..., None]
    X = points - (fraction * points).sum(1, keepdim=True)
    q = (observed - (fraction * observed).sum(1, keepdim=True)) * observed.new_tensor([1.0, -1.0])  # y up
    # q ~ A X with A = (sum w q X^T)(sum w X X^T)^-1; in the points' principal axes the inverse is diagonal. The two
    # in-plane columns M of A therefore do not depend on the depth at all.
    variance, axes = torch.linalg.eigh((fraction * X).mT @ X)
    first, second = axes[..., 2], axes[..., 1]
    axes = torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)
    M = ((fraction * q).mT @ X @ axes)[..., :2] / variance.flip(1)[:, None, :2]
    # rows (m1, c1), (m2, c2):  (c1 + i c2)² = (|m2|² - |m1|²) - 2i m1·m2
    m1, m2 = M.unbind(1)
    real, imaginary = (m2 * m2).sum(1) - (m1 * m1).sum(1), -2 * (m1 * m2).sum(1)
    c = torch.view_as_real(torch.sqrt(torch.complex(real, imaginary)))
    scale = ((m1 * m1).sum(1) + c[:, 0] ** 2).sqrt()
    rotations = []
    for sign in (1, -1):
        rows = torch.cat([M, sign * c[..., None]], dim=2) / scale[:, None, None]
        third = torch.linalg.cross(rows[:, 0], rows[:, 1])
        rotations.append(torch.cat([rows, third[:, None]], dim=1) @ axes.mT)
    return torch.stack(rotations), scale
