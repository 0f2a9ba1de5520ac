"""Edit heads: pose, position, expression, light, animation and transfer."""

from .animation import EASINGS, animate_keys, follow, turntable
from .arkit import ARKIT, arkit_of_heads, heads_from_arkit
from .blendshapes import BLENDSHAPE_NAMES, head_from_blendshapes
from .cropping import crop_head
from .edits import MODES, angles_of, change_face, edit_head, head_angles, place_head, rotation_of, scale_shape, turn_head
from .expressions import SLIDERS, amounts_of, express
from .lighting import FROM_PHOTO, KEEP, LIGHTS, PRESETS, Lamp, Lighting, custom_light_of, direction_of, relight
from .placement import EYE_RADIUS, eye_centres, head_centre
from .transfers import TRANSFER_GROUPS, transfer

__all__ = [
    "ARKIT",
    "BLENDSHAPE_NAMES",
    "EASINGS",
    "EYE_RADIUS",
    "FROM_PHOTO",
    "KEEP",
    "LIGHTS",
    "MODES",
    "PRESETS",
    "SLIDERS",
    "TRANSFER_GROUPS",
    "Lamp",
    "Lighting",
    "amounts_of",
    "angles_of",
    "animate_keys",
    "arkit_of_heads",
    "change_face",
    "crop_head",
    "custom_light_of",
    "direction_of",
    "edit_head",
    "express",
    "eye_centres",
    "follow",
    "head_angles",
    "head_centre",
    "head_from_blendshapes",
    "heads_from_arkit",
    "place_head",
    "relight",
    "rotation_of",
    "scale_shape",
    "transfer",
    "turn_head",
    "turntable",
]
