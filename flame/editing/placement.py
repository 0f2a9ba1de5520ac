"""Turn and place heads in the frame about their centres.

Conventions: head space and frame units as in `camera.py`, rotations as in `rotation.py`. A head's *centre* is the centre
of the bounding box of everything that moves with the neck joint, at rest and without expression, turned with the head. It lies
between the ears, not in the face, so speech and gaze do not move it.
"""

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float
from ..model import HeadModel, HeadParams, Rig, axis_angle_to_matrix, matrix_to_axis_angle, project

EYE_RADIUS = 0.012
"""Radius of an eyeball in metres"""


@dataclass(frozen=True, eq=False)
class _OwnPart:
    """What moves with the neck joint."""

    rig: Rig
    """In double precision"""
    shape: Float[Tensor, "B S"]
    """The shapes asked for last. In an editor and in a sequence they are usually the same again."""
    centre: Float[Tensor, "B 3"]
    """The centres of these shapes at rest"""


_own: "weakref.WeakKeyDictionary[HeadModel, _OwnPart]" = weakref.WeakKeyDictionary()


def head_centre(model: HeadModel, head: HeadParams) -> Float[Tensor, "B 2"]:
    """Compute the centres of heads in the frame.

    Args:
        model: The head model.
        head: B heads on its device.

    Returns:
        `[B, 2]` (u, v) in frame units, in double precision.
    """
    own, centre = _own_part(model, head.shape.double())
    return _in_frame(head, centre[:, None], _joints(model, own, head))[:, 0]


def eye_centres(model: HeadModel, head: HeadParams) -> Float[Tensor, "B 2 2"]:
    """Compute where the eyes are in the frame, whether they are seen or not.

    Args:
        model: The head model.
        head: B heads on its device.

    Returns:
        `[B, 2, 2]` (u, v) in frame units of the fronts of both eyeballs when they look straight ahead, in double precision.
    """
    joints = _joints(model, _own_part(model, head.shape.double())[0], head)
    return _in_frame(head, joints[:, 3:] + joints.new_tensor([0.0, 0.0, EYE_RADIUS]), joints)


def _joints(model: HeadModel, own: Rig, head: HeadParams) -> Float[Tensor, "B 5 3"]:
    """Compute the joints at rest, in double precision."""
    # The expression moves the joints only slightly, but everything that they carry moves with them.
    coefficients = model.coefficients(head.shape.double(), head.expression.double())
    return own.joints + (coefficients @ own.joint_basis.flatten(1)).unflatten(1, own.joints.shape)


def _in_frame(head: HeadParams, points: Float[Tensor, "B N 3"], joints: Float[Tensor, "B 5 3"]) -> Float[Tensor, "B N 2"]:
    """Project points at rest that move with the neck joint, in double precision."""
    # c' = R_root (R_neck (c - J_neck) + J_neck - J_root) + J_root
    for joint, rotation in ((1, head.neck), (0, head.rotation)):
        at = joints[:, joint, None]
        turned = axis_angle_to_matrix(rotation.double())[:, None] @ (points - at)[..., None]
        points = turned[..., 0] + at
    return project(points, head.camera.double())[..., :2]


def _own_part(model: HeadModel, shape: Float[Tensor, "B S"]) -> tuple[Rig, Float[Tensor, "B 3"]]:
    """Return the part of a model that moves with the neck joint, in double precision, and its centres at rest."""
    own = _own.get(model)
    if own is None or not torch.equal(own.shape, shape):
        rig = _moving_rig(model) if own is None else own.rig
        own = _own[model] = _OwnPart(rig, shape, _centres_at_rest(model, rig, shape))
    return own.rig, own.centre


def _moving_rig(model: HeadModel) -> Rig:
    # A vertex belongs to the head if the joints above the root have enough weight.
    weight = model.rig.weights[:, 1:].sum(1)
    return model.rig.select((weight >= weight.max() / 2).nonzero()[:, 0]).to(dtype=torch.float64)


def _centres_at_rest(model: HeadModel, rig: Rig, shape: Float[Tensor, "B S"]) -> Float[Tensor, "B 3"]:
    # The frames of a sequence usually share one shape.
    shapes, which = shape.unique(dim=0, return_inverse=True)
    at_rest = model.coefficients(shapes, shapes.new_zeros(len(shapes), model.n_expression))
    shaped = rig.template + (at_rest @ rig.basis.flatten(1)).unflatten(1, rig.template.shape)
    return ((shaped.amin(1) + shaped.amax(1)) / 2)[which]


def move_centre(model: HeadModel, head: HeadParams, at: Float[Tensor, "B 2"]) -> HeadParams:
    """Move heads in the frame.

    Args:
        model: The head model.
        head: B heads on its device.
        at: Where their centres go, `[B, 2]` (u, v) in frame units.

    Returns:
        The heads with other camera shifts.
    """
    shift = (at - head_centre(model, head)).to(head.camera)
    return head.replace(camera=torch.cat([head.camera[:, :1], head.camera[:, 1:] + shift], dim=1))


def turn(model: HeadModel, head: HeadParams, rotation: Float[Tensor, "B 3"]) -> HeadParams:
    """Turn heads about their centres, which stay at their positions in the frame.

    Args:
        model: The head model.
        head: B heads on its device.
        rotation: Axis-angle vectors `[B, 3]` in radians, about the viewer's axes, applied after the heads' own.

    Returns:
        B heads.

    Raises:
        BadInput: There are not as many rotations as heads.
    """
    if tuple(rotation.shape) != (head.batch, 3):
        raise BadInput(f"Expected rotations [{head.batch}, 3] for {head.batch} heads, got {list(rotation.shape)}.")
    # R' = dR R: the turn is about the viewer's axes, not the head's own.
    turned = axis_angle_to_matrix(rotation) @ axis_angle_to_matrix(head.rotation)
    return move_centre(model, head.replace(rotation=matrix_to_axis_angle(turned)), head_centre(model, head))
