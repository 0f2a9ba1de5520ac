"""Turning and placing heads in the frame about their centre.

Conventions: head space and frame units as in `camera.py`, rotations as in `rotation.py`. A head's *centre* is the middle of the
box around all that moves with the neck joint, at rest and without expression, turned as the head is: between the ears, not in
the face, so that talking and looking about do not move it.
"""

import weakref

import torch
from torch import Tensor

from ...errors import BadInput
from ..model import HeadModel, HeadParams, Rig, axis_angle_to_matrix, matrix_to_axis_angle, project

_own: "weakref.WeakKeyDictionary[HeadModel, Rig]" = weakref.WeakKeyDictionary()


def head_centre(model: HeadModel, head: HeadParams) -> Tensor:
    """Where heads have their centres in the frame.

    Args:
        model: the head model.
        head: B heads on its device.

    Returns:
        `[B, 2]` double precision, (u, v) in frame units.
    """
    own = _own_part(model)
    shape, expression = head.shape.double(), head.expression.double()
    # The frames of a sequence mostly share one shape.
    shapes, which = shape.unique(dim=0, return_inverse=True)
    at_rest = model.coefficients(shapes, torch.zeros_like(expression[: len(shapes)]))
    shaped = own.template + (at_rest @ own.basis.flatten(1)).unflatten(1, own.template.shape)
    centre = ((shaped.amin(1) + shaped.amax(1)) / 2)[which]
    # What the expression does to the joints is small, but it moves what they carry.
    coefficients = model.coefficients(shape, expression)
    joints = own.joints + (coefficients @ own.joint_basis.flatten(1)).unflatten(1, own.joints.shape)
    # c' = R_root (R_neck (c - J_neck) + J_neck - J_root) + J_root
    for joint, rotation in ((1, head.neck), (0, head.rotation)):
        arm = (centre - joints[:, joint])[..., None]
        centre = (axis_angle_to_matrix(rotation.double()) @ arm)[..., 0] + joints[:, joint]
    return project(centre[:, None], head.camera.double())[:, 0, :2]


def _own_part(model: HeadModel) -> Rig:
    """What of a model moves with the neck joint, in double precision; found at the first call for a model."""
    if model not in _own:
        # A vertex belongs to the head as far as joints above the root carry it.
        share = model.rig.weights[:, 1:].sum(1)
        _own[model] = model.rig.select((share >= share.max() / 2).nonzero()[:, 0]).to(dtype=torch.float64)
    return _own[model]


def move_centre(model: HeadModel, head: HeadParams, at: Tensor) -> HeadParams:
    """The same heads with their centres at `at`, `[B, 2]` (u, v) in frame units."""
    shift = (at - head_centre(model, head)).to(head.camera)
    return head.replace(camera=torch.cat([head.camera[:, :1], head.camera[:, 1:] + shift], dim=1))


def turn(model: HeadModel, head: HeadParams, rotation: Tensor) -> HeadParams:
    """Heads turned about their centres, which stay where they are in the frame.

    Args:
        model: the head model.
        head: B heads on its device.
        rotation: `[B, 3]` axis-angle about the viewer's axes, added to the rotation that the heads have.

    Raises:
        BadInput: there are not as many rotations as heads.
    """
    if tuple(rotation.shape) != (head.batch, 3):
        raise BadInput(f"Expected rotations [{head.batch}, 3] for {head.batch} heads, got {list(rotation.shape)}.")
    # R' = dR R: the turn happens before the viewer's eyes, whatever the head's own axes
    turned = axis_angle_to_matrix(rotation) @ axis_angle_to_matrix(head.rotation)
    return move_centre(model, head.replace(rotation=matrix_to_axis_angle(turned)), head_centre(model, head))
