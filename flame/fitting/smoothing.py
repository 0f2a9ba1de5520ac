"""Smooth sequences of heads that were fitted frame by frame.

Conventions: as in `params.py`. Each frame becomes a mean of the frames around it, weighted by a Gaussian over time. The
weights are symmetric, so nothing lags behind. The mean of rotations is the rotation nearest to the mean of their matrices
(Moakher, "Means and averaging in the group of rotations", 2002). It is continuous where axis-angle vectors jump. The camera's
scale is averaged geometrically.
"""

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Num
from ..model import SIZES, HeadParams, axis_angle_to_matrix, matrix_to_axis_angle

MOST_FRAMES = 5.0
"""Standard deviation of the Gaussian at full smoothing, in frames."""
_ROTATIONS = ("rotation", "neck", "jaw", "eyes")


def smooth(heads: HeadParams, amount: float, frames: Num[Tensor, " B"] | None = None) -> HeadParams:
    """Smooth a sequence of heads.

    Args:
        heads: B heads in temporal order.
        amount: Strength from 0 to 1; 0 changes nothing.
        frames: Frame number of each head, `[B]`, for a sequence with missing frames. By default 0, 1, …

    Returns:
        B heads; the same object if nothing changes.

    Raises:
        BadInput: The amount is outside 0 to 1, or there are not as many frame numbers as heads.
    """
    if not 0 <= amount <= 1:
        raise BadInput(f"Smoothing: expected 0 to 1, got {amount}.")
    time = torch.arange(heads.batch) if frames is None else frames
    if time.shape != (heads.batch,):
        raise BadInput(f"Smoothing: expected one frame number for each of {heads.batch} heads, got {list(time.shape)}.")
    if amount == 0 or heads.batch == 1:
        return heads
    time = time.to(heads.device, torch.float64)
    # w_ij proportional to exp(-(t_i - t_j)² / (2 sigma²))
    weights = (-0.5 * ((time[:, None] - time) / (amount * MOST_FRAMES)) ** 2).softmax(dim=1)

    def mean(values: Tensor) -> Tensor:
        return (weights @ values.double().flatten(1)).view(values.shape)

    smoothed = {name: mean(getattr(heads, name)) for name in SIZES}
    for name in _ROTATIONS:
        matrices = axis_angle_to_matrix(getattr(heads, name).double().unflatten(1, (-1, 3)))
        smoothed[name] = matrix_to_axis_angle(_nearest_rotation(mean(matrices))).flatten(1)
    smoothed["camera"][:, 0] = mean(heads.camera[:, :1].double().log())[:, 0].exp()
    return HeadParams(**{name: value.float() for name, value in smoothed.items()})


def _nearest_rotation(matrix: Tensor) -> Tensor:
    """Return the nearest rotations `[..., 3, 3]`: U diag(1, 1, det U V^T) V^T of the singular value decomposition."""
    U, _, Vh = torch.linalg.svd(matrix)
    sign = torch.ones_like(matrix[..., 0])
    sign[..., 2] = torch.linalg.det(U @ Vh).sign()
    return (U * sign[..., None, :]) @ Vh
