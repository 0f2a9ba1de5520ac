"""Turning and placing heads in the frame about their centre.

Conventions: head space and frame units as in `camera.py`, rotations as in `rotation.py`. A head's centre is the middle of the
surface that moves with the neck joint, the face at rest: it belongs to the skull, so talking and looking about do not move it.
"""

import torch
from torch import Tensor

from ..errors import BadInput
from .camera import project
from .head import HeadModel
from .params import HeadParams
from .rotation import axis_angle_to_matrix, matrix_to_axis_angle


def head_centre(model: HeadModel, params: HeadParams) -> Tensor:
    """Where the centres of heads are in head space.

    Args:
        model: the head model.
        params: B heads on its device.

    Returns:
        `[B, 3]` metres.
    """
    at_rest = {name: torch.zeros_like(getattr(params, name)) for name in ("expression", "jaw", "eyes")}
    # A vertex counts by the area around it, and by how much of it moves with the neck or what hangs on it.
    a, b, c = model.rig.template[model.faces].unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=1)
    weight = area.new_zeros(len(model.rig.template)).index_add_(0, model.faces.flatten(), area.repeat_interleave(3))
    weight = weight * (1 - model.rig.weights[:, 0])
    if weight.sum() == 0:
        weight = torch.ones_like(weight)
    return (weight / weight.sum()) @ model.vertices(params.replace(**at_rest))


def centre_in_frame(model: HeadModel, params: HeadParams) -> Tensor:
    """Where the centres of heads are seen, `[B, 2]` (u, v) in frame units."""
    return project(head_centre(model, params)[:, None], params.camera)[:, 0, :2]


def place_centre(model: HeadModel, params: HeadParams, place: Tensor) -> HeadParams:
    """The same heads, moved in the frame so that their centres are seen at `place`, `[B, 2]` (u, v) in frame units."""
    shift = place - centre_in_frame(model, params)
    return params.replace(camera=params.camera + torch.nn.functional.pad(shift, (1, 0)))


def turn(model: HeadModel, params: HeadParams, rotation: Tensor) -> HeadParams:
    """Heads turned about their centres, which stay where they are in the frame.

    Args:
        model: the head model.
        params: B heads on its device.
        rotation: `[B, 3]` axis-angle about the viewer's axes, added to the rotation that the heads have.

    Raises:
        BadInput: there are not as many rotations as heads.
    """
    if tuple(rotation.shape) != (params.batch, 3):
        raise BadInput(f"Expected rotations [{params.batch}, 3] for {params.batch} heads, got {list(rotation.shape)}.")
    # R' = ΔR R: the turn happens before the viewer's eyes, whatever the head's own axes
    turned = axis_angle_to_matrix(rotation) @ axis_angle_to_matrix(params.rotation)
    return place_centre(model, params.replace(rotation=matrix_to_axis_angle(turned)), centre_in_frame(model, params))
