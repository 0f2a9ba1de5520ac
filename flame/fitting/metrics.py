"""How far a head in an image is from the head that was asked for.

Conventions: points are (u, v) in frame units (see `camera.py`). The face's size, to which distances are compared, is the height
of the model's 68 landmarks at rest times the camera's scale, as in `fit.py`. Batches are paired: head i with image i.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import HeadModel, HeadParams, axis_angle_to_matrix, matrix_to_axis_angle, project

ERROR_GROUPS = ("shape", "pose", "expression", "light")
"""The groups of a head's numbers that the paper measures apart."""


@dataclass(frozen=True, eq=False)
class HeadDifference:
    """How B heads differ from B others, in what a viewer sees."""

    rotation: Tensor
    """`[B]` angle of the turn from one to the other, degrees."""
    position: Tensor
    """`[B]` distance of the middles of their landmarks, as a share of the wanted face's size."""
    size: Tensor
    """`[B]` how much larger the found face is, as a share: 0 for the same size, 0.1 for a tenth larger."""


def face_size(model: HeadModel, heads: HeadParams) -> Tensor:
    """The faces' sizes in frame units.

    Args:
        model: The head model that the heads belong to, with landmarks.
        heads: B heads.

    Returns:
        `[B]`.
    """
    rest = model.landmarks(HeadParams.neutral(device=heads.device))[0, :, 1]
    return heads.camera[:, 0] * (rest.max() - rest.min())


def head_difference(model: HeadModel, wanted: HeadParams, found: HeadParams) -> HeadDifference:
    """How the heads found in images differ from those asked for: turned, placed and sized how far off.

    Position and size are those of the landmarks, not the cameras' alone, so that a head that is wider and farther away
    counts as what it looks like.

    Args:
        model: The head model of both, with landmarks.
        wanted: B heads.
        found: B heads.

    Returns:
        `HeadDifference` of B heads.
    """
    turn = _rotation(found) @ _rotation(wanted).mT
    middle, spread = zip(*(_middle_and_spread(model, heads) for heads in (wanted, found)), strict=True)
    return HeadDifference(
        matrix_to_axis_angle(turn).norm(dim=-1).rad2deg(),
        (middle[1] - middle[0]).norm(dim=-1) / face_size(model, wanted),
        spread[1] / spread[0] - 1,
    )


def head_rmse(wanted: HeadParams, found: HeadParams) -> dict[str, Tensor]:
    """The root mean square difference of two heads' numbers, group by group.

    Between a head that DECA read from an image and the condition this is the paper's head control precision (section 4.1,
    table 1): 100 shape, 6 pose (root and jaw), 50 expression and 27 light numbers. A bent neck counts as rotation of the whole
    head, the only one that DECA knows of.

    Args:
        wanted: B heads.
        found: B heads.

    Returns:
        `[B]` for each of `ERROR_GROUPS`.
    """
    a, b = _groups(wanted), _groups(found)
    # sqrt(mean_n (a_n - b_n)²)
    return {name: (a[name] - b[name]).square().mean(1).sqrt() for name in ERROR_GROUPS}


def _groups(heads: HeadParams) -> dict[str, Tensor]:
    bent = (heads.neck != 0).any(dim=1, keepdim=True)
    rotation = torch.where(bent, matrix_to_axis_angle(_rotation(heads)), heads.rotation)
    pose = torch.cat([rotation, heads.jaw], dim=1)
    return {"shape": heads.shape, "pose": pose, "expression": heads.expression, "light": heads.light.flatten(1)}


def _rotation(heads: HeadParams) -> Tensor:
    """Of the head with its neck, `[B, 3, 3]`."""
    return axis_angle_to_matrix(heads.rotation) @ axis_angle_to_matrix(heads.neck)


def _middle_and_spread(model: HeadModel, heads: HeadParams) -> tuple[Tensor, Tensor]:
    """The middle `[B, 2]` of the landmarks in the frame, and their spread `[B]` about it, the same from every side."""
    landmarks = model.landmarks(heads)
    middle = landmarks.mean(1, keepdim=True)
    spread = heads.camera[:, 0] * (landmarks - middle).norm(dim=-1).square().mean(1).sqrt()
    return project(middle, heads.camera)[:, 0, :2], spread
