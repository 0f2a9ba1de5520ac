"""Turn, place and change heads by values that a user enters, one group at a time or all together as in Edit Head.

Conventions: angles are in degrees. Positive yaw turns the face to the picture's right, positive pitch lets it look up, positive
roll tilts it clockwise as seen: `R = R_y(yaw) · R_x(-pitch) · R_z(-roll)`, so the head tilts about its nose, nods about its
ears and turns about the vertical, in this order. Adding adds to these three angles. Positions are frame units: origin at the
frame's centre, one unit is half its short side, x right, y down. Every value is one number for all heads or `[B]`.

The position of a head is that of its centre (see `placement.py`), between the ears and not in the face, so a head that turns
does not move.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float, Num
from ..model import NEUTRAL_SCALE, HeadModel, HeadParams, axis_angle_to_matrix, matrix_to_axis_angle
from .expressions import express
from .lighting import FROM_PHOTO, KEEP, Lamp, Lighting, relight
from .placement import head_centre, move_centre

MODES = ("add", "absolute")
"""Add to the values of the head, or replace them. Replacing by the default values resets the head."""

Number = float | Num[Tensor, "..."]
"""One number for all heads, or `[B]`."""


def turn_head(
    model: HeadModel,
    head: HeadParams,
    yaw: Number = 0.0,
    pitch: Number = 0.0,
    roll: Number = 0.0,
    neck_yaw: Number = 0.0,
    neck_pitch: Number = 0.0,
    neck_roll: Number = 0.0,
    mode: str = "add",
) -> HeadParams:
    """Turn heads about their centres.

    Args:
        model: The head model.
        head: B heads.
        yaw: Yaw of the whole head with its neck, in degrees.
        pitch: Pitch of the whole head with its neck, in degrees.
        roll: Roll of the whole head with its neck, in degrees.
        neck_yaw: Yaw of the head on its neck, in degrees, in addition to `yaw`.
        neck_pitch: Pitch of the head on its neck, in degrees, in addition to `pitch`.
        neck_roll: Roll of the head on its neck, in degrees, in addition to `roll`.
        mode: One of MODES.

    Returns:
        The heads with other rotation, neck and camera shift; the same object if nothing is added.

    Raises:
        BadInput: The mode is unknown, or a value is neither one number nor `[B]`.
    """
    rotation = _turned(head.rotation, (yaw, pitch, roll), mode)
    neck = _turned(head.neck, (neck_yaw, neck_pitch, neck_roll), mode)
    if rotation is head.rotation and neck is head.neck:
        return head
    return move_centre(model, head.replace(rotation=rotation, neck=neck), head_centre(model, head))


def place_head(
    model: HeadModel, head: HeadParams, x: Number = 0.0, y: Number = 0.0, size: Number = 1.0, mode: str = "add"
) -> HeadParams:
    """Place heads in the frame.

    Args:
        model: The head model.
        head: B heads.
        x: Shift of the head's centre to the right, in frame units; in absolute mode, its position.
        y: Shift of the head's centre down, in frame units; in absolute mode, its position.
        size: Factor of the head's size about its centre, above 0; in absolute mode, relative to the neutral size.
        mode: One of MODES.

    Returns:
        The heads with another camera; the same object if nothing is added.

    Raises:
        BadInput: The mode is unknown, the size is not above 0, or a value is neither one number nor `[B]`.
    """
    _check_mode(mode)
    columns = [_column(value, head) for value in (x, y, size)]
    if (columns[2] <= 0).any():
        raise BadInput(f"A head's size is above 0, got {columns[2].tolist()}.")
    if mode == "add" and not columns[0].any() and not columns[1].any() and (columns[2] == 1).all():
        return head
    shift = torch.stack(columns[:2], dim=1)
    at = shift if mode == "absolute" else head_centre(model, head).to(shift) + shift
    scale = columns[2] * (NEUTRAL_SCALE if mode == "absolute" else head.camera[:, 0])
    return move_centre(model, head.replace(camera=torch.cat([scale[:, None], head.camera[:, 1:]], dim=1)), at)


def change_face(
    model: HeadModel,
    head: HeadParams,
    expressions: Mapping[str, Number],
    jaw_open: Number = 0.0,
    jaw_side: Number = 0.0,
    gaze_yaw: Number = 0.0,
    gaze_pitch: Number = 0.0,
    mode: str = "add",
) -> HeadParams:
    """Change expression, jaw and gaze of heads.

    Args:
        model: The head model. Expressions need its landmarks.
        head: B heads.
        expressions: Amounts by the names in `expressions.SLIDERS`.
        jaw_open: Opening of the jaw in degrees. The jaw never closes beyond shut.
        jaw_side: Sideways turn of the jaw in degrees, positive to the picture's right.
        gaze_yaw: Yaw of both eyes in the head, in degrees, positive to the picture's right.
        gaze_pitch: Pitch of both eyes in the head, in degrees, positive upwards.
        mode: One of MODES.

    Returns:
        The heads with other expression, jaw and eyes; the same object if nothing is added.

    Raises:
        BadInput: The mode or an expression is unknown, or a value is neither one number nor `[B]`.
    """
    _check_mode(mode)
    if mode == "absolute":
        head = head.replace(**{name: torch.zeros_like(getattr(head, name)) for name in ("expression", "jaw", "eyes")})
    shut = head.jaw[:, :1].clamp(max=0)
    opened, aside = (torch.deg2rad(_column(value, head)) for value in (jaw_open, jaw_side))
    if opened.any() or aside.any():
        head = head.replace(jaw=head.jaw + torch.stack([opened, aside, torch.zeros_like(aside)], dim=1))
    if _column(gaze_yaw, head).any() or _column(gaze_pitch, head).any():
        eyes = [_turned(eye, (gaze_yaw, gaze_pitch, 0.0), "add") for eye in head.eyes.split(3, dim=1)]
        head = head.replace(eyes=torch.cat(eyes, dim=1))
    head = express(model, head, expressions)
    if (head.jaw[:, :1] < shut).any():
        head = head.replace(jaw=torch.cat([torch.maximum(head.jaw[:, :1], shut), head.jaw[:, 1:]], dim=1))
    return head


def scale_shape(model: HeadModel, head: HeadParams, strength: Number = 1.0) -> HeadParams:
    """Scale the shapes of heads towards the average shape or away from it. Their centres do not move.

    Args:
        model: The head model.
        head: B heads.
        strength: Factor of the shape coefficients. 0 gives the average shape, above 1 exaggerates.

    Returns:
        The heads with another shape; the same object at strength 1.
    """
    factor = _column(strength, head)
    if (factor == 1).all():
        return head
    return move_centre(model, head.replace(shape=head.shape * factor[:, None]), head_centre(model, head))


def angles_of(rotation: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Convert axis-angle vectors to yaw, pitch and roll.

    Args:
        rotation: `[..., 3]` in radians.

    Returns:
        `[..., 3]` in degrees. The pitch is in ±90; at ±90 the roll is set to 0.
    """
    R = axis_angle_to_matrix(rotation)
    # R = R_y(alpha) R_x(beta) R_z(gamma):
    # R12 = -sin beta,  R02 : R22 = sin alpha : cos alpha,  R10 : R11 = sin gamma : cos gamma
    flat = R[..., 1, :2].norm(dim=-1)
    level = flat > 1e-6
    alpha = torch.where(level, torch.atan2(R[..., 0, 2], R[..., 2, 2]), torch.atan2(-R[..., 2, 0], R[..., 0, 0]))
    beta = torch.atan2(-R[..., 1, 2], flat)
    gamma = torch.where(level, torch.atan2(R[..., 1, 0], R[..., 1, 1]), 0.0)
    return torch.stack([alpha, -beta, -gamma], dim=-1) * (180 / math.pi)


def head_angles(head: HeadParams) -> dict[str, float]:
    """Return the angles of one head by the names of Edit Head's inputs, in degrees.

    Returns:
        yaw, pitch and roll of the head, those of the neck, and yaw and pitch of the gaze, relative to the skull.
    """
    yaw, pitch, roll = angles_of(head.rotation[0].double()).tolist()
    neck_yaw, neck_pitch, neck_roll = angles_of(head.neck[0].double()).tolist()
    gaze_yaw, gaze_pitch, _ = angles_of(head.eyes[0].double().view(2, 3)).mean(0).tolist()
    return {
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "neck_yaw": neck_yaw,
        "neck_pitch": neck_pitch,
        "neck_roll": neck_roll,
        "gaze_yaw": gaze_yaw,
        "gaze_pitch": gaze_pitch,
    }


def rotation_of(angles: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Convert yaw, pitch and roll to axis-angle vectors.

    Args:
        angles: `[..., 3]` in degrees.

    Returns:
        `[..., 3]` in radians.
    """
    yaw, pitch, roll = (angles * (math.pi / 180)).unsqueeze(-1).unbind(-2)
    axes = torch.eye(3, dtype=angles.dtype, device=angles.device)
    about_y, about_x, about_z = (
        axis_angle_to_matrix(angle * axis) for angle, axis in ((yaw, axes[1]), (-pitch, axes[0]), (-roll, axes[2]))
    )
    return matrix_to_axis_angle(about_y @ about_x @ about_z)


def _turned(rotation: Tensor, angles: tuple[Number, Number, Number], mode: str) -> Tensor:
    """Add angles to rotations `[B, 3]`, or set them. Returns the same tensor if nothing is added."""
    _check_mode(mode)
    wanted = torch.stack([_column(angle, rotation) for angle in angles], dim=1)
    if mode == "add":
        if not wanted.any():
            return rotation
        wanted = angles_of(rotation.double()) + wanted
    return rotation_of(wanted.double()).to(rotation)


def _column(value: Number, heads: HeadParams | Tensor) -> Tensor:
    """Expand a value to `[B]`, in float32."""
    column = torch.as_tensor(value, dtype=torch.float32, device=heads.device)
    if column.dim() > 1 or (column.dim() == 1 and len(column) not in (1, len(heads))) or not torch.isfinite(column).all():
        raise BadInput(f"Expected a finite number, or {len(heads)}, one a head; got {column.tolist()}.")
    return column.expand(len(heads))


def _check_mode(mode: str) -> None:
    """Refuse an unknown mode."""
    if mode not in MODES:
        raise BadInput(f"Expected the mode {' or '.join(MODES)}, got '{mode}'.")


def edit_head(  # noqa: D417  tooltips of the node describe the other arguments
    model: HeadModel,
    head: HeadParams,
    photo: Float[Tensor, "N 3 H W"] | None = None,
    photo_light: Float[Tensor, "B 9 3"] | None = None,
    *,
    pose_mode: str = MODES[0],
    yaw: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
    neck_yaw: float = 0.0,
    neck_pitch: float = 0.0,
    neck_roll: float = 0.0,
    position_mode: str = MODES[0],
    position_x: float = 0.0,
    position_y: float = 0.0,
    size: float = 1.0,
    expression_mode: str = MODES[0],
    jaw_open: float = 0.0,
    jaw_side: float = 0.0,
    gaze_yaw: float = 0.0,
    gaze_pitch: float = 0.0,
    light: str = KEEP,
    light_strength: float = 1.0,
    ambient: float = 0.4,
    key_azimuth: float = 30.0,
    key_elevation: float = 25.0,
    key_intensity: float = 0.6,
    key_softness: float = 0.2,
    key_color: str = "#ffffff",
    shape_strength: float = 1.0,
    **expressions: float,
) -> HeadParams:
    """Edit heads, group by group: shape, face, pose, position, light. Arguments that are not listed are those of Edit Head.

    Args:
        model: The head model.
        head: B heads.
        photo: The photos that the heads were fitted to, `[B or 1, 3, H, W]` in 0..1, for the light "from photo".
        photo_light: The result of `light_from_photo` for these photos, `[B, 9, 3]`, if it is already known.
        **expressions: Amounts by the names in `SLIDERS`.

    Returns:
        The edited heads; the same object at the defaults.

    Raises:
        BadInput: A value, name or colour is out of range, or the light needs a photo.
    """
    edited = scale_shape(model, head, shape_strength)
    edited = change_face(model, edited, expressions, jaw_open, jaw_side, gaze_yaw, gaze_pitch, expression_mode)
    edited = turn_head(model, edited, yaw, pitch, roll, neck_yaw, neck_pitch, neck_roll, pose_mode)
    edited = place_head(model, edited, position_x, position_y, size, position_mode)
    if light == FROM_PHOTO and photo_light is not None:
        return relight(model, edited.replace(light=photo_light), KEEP, light_strength)
    custom = Lighting((Lamp(key_azimuth, key_elevation, key_intensity, key_color, key_softness),), ambient)
    return relight(model, edited, light, light_strength, custom, photo, observed=head)
