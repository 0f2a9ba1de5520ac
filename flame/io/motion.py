"""Sequences of heads as motion of their joints: Biovision's BVH.

Conventions: centimetres and degrees. The axes are head space's, x right, y up, z towards the viewer. Rotations are Euler angles
in the order of the channels, Z, X, Y: `R = R_z R_x R_y`. The root moves as the camera shows the head: right and up of the
frame's centre, in the head's own scale. The skeleton is that of the first head.
"""

import math

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float
from ..model import HeadModel, HeadParams, axis_angle_to_matrix

JOINTS = ("Head", "Neck", "Jaw", "LeftEye", "RightEye")
"""The model's joints in order. The first is the root of FLAME's whole head, the second turns the head on the neck."""
_END = (0.0, 2.0, 0.0)
"""The end of joints without children, in centimetres."""


def to_bvh(model: HeadModel, heads: HeadParams, frame_rate: float) -> str:
    """Write a sequence of heads as the text of a BVH file.

    Args:
        model: The head model.
        heads: B heads, the frames.
        frame_rate: Frames a second.

    Raises:
        BadInput: The frame rate is not above 0.
    """
    if not 0 < frame_rate < math.inf:
        raise BadInput(f"Expected a frame rate above 0, got {frame_rate:g}.")
    rig = model.rig
    coefficients = model.coefficients(heads.shape[:1], heads.expression[:1])
    joints = 100 * (rig.joints + (coefficients @ rig.joint_basis.flatten(1)).view(rig.joints.shape))
    lines = ["HIERARCHY", *_joint(rig.parents, joints, 0, 0), "MOTION", f"Frames: {heads.batch}"]
    lines.append(f"Frame Time: {1 / frame_rate:.7f}")
    rotations = torch.cat([heads.rotation, heads.neck, heads.jaw, heads.eyes], dim=1).view(heads.batch, len(JOINTS), 3)
    angles = torch.rad2deg(euler_zxy(axis_angle_to_matrix(rotations)))
    s, tx, ty = heads.camera.unbind(1)
    root = 100 * torch.stack([tx / s, -ty / s, torch.zeros_like(s)], dim=1) + joints[0]
    order = _order(rig.parents, 0)
    rows = torch.cat([root, angles[:, order].flatten(1)], dim=1)
    lines += [" ".join(f"{value:.5f}" for value in row) for row in rows.tolist()]
    return "\n".join(lines) + "\n"


def euler_zxy(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Decompose rotations `R = R_z R_x R_y` into the angles about z, x and y, in radians."""
    x = matrix[..., 2, 1].clamp(-1, 1).asin()
    z = torch.atan2(-matrix[..., 0, 1], matrix[..., 1, 1])
    y = torch.atan2(-matrix[..., 2, 0], matrix[..., 2, 2])
    return torch.stack([z, x, y], dim=-1)


def _children(parents: tuple[int, ...], joint: int) -> list[int]:
    return [child for child, parent in enumerate(parents) if parent == joint]


def _order(parents: tuple[int, ...], joint: int) -> list[int]:
    """Return the joints in the order of the hierarchy."""
    return [joint, *(other for child in _children(parents, joint) for other in _order(parents, child))]


def _joint(parents: tuple[int, ...], joints: Float[Tensor, "J 3"], joint: int, depth: int) -> list[str]:
    """Write a joint and those below it."""
    tab, children = "\t" * depth, _children(parents, joint)
    offset = joints[joint] - joints[parents[joint]] if depth else torch.zeros(3)
    turn = "Zrotation Xrotation Yrotation"
    channels = f"3 {turn}" if depth else f"6 Xposition Yposition Zposition {turn}"
    lines = [f"{tab}{'JOINT' if depth else 'ROOT'} {JOINTS[joint]}", f"{tab}{{"]
    lines += [f"{tab}\tOFFSET {_three(offset.tolist())}", f"{tab}\tCHANNELS {channels}"]
    for child in children:
        lines += _joint(parents, joints, child, depth + 1)
    if not children:
        lines += [f"{tab}\tEnd Site", f"{tab}\t{{", f"{tab}\t\tOFFSET {_three(_END)}", f"{tab}\t}}"]
    return [*lines, f"{tab}}}"]


def _three(values: list[float] | tuple[float, ...]) -> str:
    return " ".join(f"{value:.5f}" for value in values)
