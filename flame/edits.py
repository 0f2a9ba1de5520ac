"""All edits of a head together, in the order that Edit Head applies them.

Conventions: those of `edit.py`, `expressions.py` and `lighting.py`.
"""

from torch import Tensor

from .edit import MODES, change_face, place_head, scale_shape, turn_head
from .head import HeadModel
from .lighting import FROM_PHOTO, KEEP, Lamp, Lighting, relight
from .params import HeadParams


def edit_head(  # noqa: D417  the others are described by the tooltips of the node
    model: HeadModel,
    head: HeadParams,
    photo: Tensor | None = None,
    photo_light: Tensor | None = None,
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
    """Edit heads, group by group: shape, face, pose, place, light. What is not listed below is as in Edit Head.

    Args:
        model: the head model.
        head: B heads.
        photo: `[B or 1, 3, H, W]` in 0..1 that the heads were fitted to, for the light "from photo".
        photo_light: `[B, 9, 3]`, what `light_from_photo` finds in it, where that is known already.
        **expressions: amounts by the names of `expressions.SLIDERS`.

    Returns:
        The edited heads. The very same ones at the defaults.

    Raises:
        BadInput: a number, name or colour is out of range, or the light needs a photo.
    """
    edited = scale_shape(model, head, shape_strength)
    edited = change_face(model, edited, expressions, jaw_open, jaw_side, gaze_yaw, gaze_pitch, expression_mode)
    edited = turn_head(model, edited, yaw, pitch, roll, neck_yaw, neck_pitch, neck_roll, pose_mode)
    edited = place_head(model, edited, position_x, position_y, size, position_mode)
    if light == FROM_PHOTO and photo_light is not None:
        return relight(model, edited.replace(light=photo_light), KEEP, light_strength)
    custom = Lighting((Lamp(key_azimuth, key_elevation, key_intensity, key_color, key_softness),), ambient)
    return relight(model, edited, light, light_strength, custom, photo, seen=head)
