"""Differences between the head in an image and the head that was asked for.

Conventions: points are (u, v) in frame units (see `camera.py`). Distances are relative to the face's size, which is the height
of the model's 68 landmarks at rest times the camera's scale, as in `landmark_fit.py`. Batches are paired: head i with image i.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...shapes import Float
from ..model import HeadModel, HeadParams, axis_angle_to_matrix, matrix_to_axis_angle, project

ERROR_GROUPS = ("shape", "pose", "expression", "light")
"""Groups of head parameters whose errors the paper reports separately."""


@dataclass(frozen=True, eq=False)
class HeadDifference:
    """Visible differences between B pairs of heads."""

    rotation: Float[Tensor, " B"]
    """`[B]` angle of the rotation from one to the other, in degrees."""
    position: Float[Tensor, " B"]
    """`[B]` distance between the centres of their landmarks, as a fraction of the wanted face's size."""
    size: Float[Tensor, " B"]
    """`[B]` relative difference in size: 0 for the same size, 0.1 if the found face is a tenth larger."""


def face_size(model: HeadModel, heads: HeadParams) -> Float[Tensor, " B"]:
    """Measure the sizes of faces.

    Args:
        model: The head model that the heads belong to, with landmarks.
        heads: B heads.

    Returns:
        `[B]` in frame units.
    """
    rest = model.landmarks(HeadParams.neutral(device=heads.device))[0, :, 1]
    return heads.camera[:, 0] * (rest.max() - rest.min())


def head_difference(model: HeadModel, wanted: HeadParams, found: HeadParams) -> HeadDifference:
    """Measure the errors in rotation, position and size of the heads found in images.

    Position and size are those of the landmarks, not only of the cameras. A head that is wider and farther away therefore
    counts as the size that it appears to be.

    Args:
        model: The head model of both, with landmarks.
        wanted: The B heads that were asked for.
        found: The B heads that were found in the images.

    Returns:
        The differences of the B pairs.
    """
    turn = _rotation(found) @ _rotation(wanted).mT
    centre, spread = zip(*(_centre_and_spread(model, heads) for heads in (wanted, found)), strict=True)
    return HeadDifference(
        matrix_to_axis_angle(turn).norm(dim=-1).rad2deg(),
        (centre[1] - centre[0]).norm(dim=-1) / face_size(model, wanted),
        spread[1] / spread[0] - 1,
    )


def head_rmse(wanted: HeadParams, found: HeadParams) -> dict[str, Float[Tensor, " B"]]:
    """Compute the root mean square difference of head parameters, for each group.

    Between the condition and a head that DECA estimates from an image, this is the paper's head control precision (section
    4.1, table 1): 100 shape, 6 pose (root and jaw), 50 expression and 27 light values. A bent neck counts as a rotation of
    the whole head, because DECA does not model the neck.

    Args:
        wanted: The B heads that were asked for.
        found: The B heads that were found in the images.

    Returns:
        `[B]` by the names in `ERROR_GROUPS`.
    """
    a, b = _groups(wanted), _groups(found)
    # sqrt(mean_n (a_n - b_n)²)
    return {name: (a[name] - b[name]).square().mean(1).sqrt() for name in ERROR_GROUPS}


def _groups(heads: HeadParams) -> dict[str, Tensor]:
    """Collect the values `[B, N]` of each group."""
    bent = (heads.neck != 0).any(dim=1, keepdim=True)
    rotation = torch.where(bent, matrix_to_axis_angle(_rotation(heads)), heads.rotation)
    pose = torch.cat([rotation, heads.jaw], dim=1)
    return {"shape": heads.shape, "pose": pose, "expression": heads.expression, "light": heads.light.flatten(1)}


def _rotation(heads: HeadParams) -> Tensor:
    """Combine the rotations of head and neck, `[B, 3, 3]`."""
    return axis_angle_to_matrix(heads.rotation) @ axis_angle_to_matrix(heads.neck)


def _centre_and_spread(model: HeadModel, heads: HeadParams) -> tuple[Tensor, Tensor]:
    """Return the centre `[B, 2]` of the landmarks in the frame, and their spread `[B]` about it, which no rotation changes."""
    landmarks = model.landmarks(heads)
    centre = landmarks.mean(1, keepdim=True)
    spread = heads.camera[:, 0] * (landmarks - centre).norm(dim=-1).square().mean(1).sqrt()
    return project(centre, heads.camera)[:, 0, :2], spread
