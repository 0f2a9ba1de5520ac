"""Edit heads: pose, position, expression, light, animation and transfer."""

from .animation import EASINGS, animate_keys, follow, turntable
from .arkit import ARKIT, arkit_of_heads, heads_from_arkit
from .blendshapes import BLENDSHAPE_NAMES, head_from_blendshapes
from .cropping import crop_head
from .edits import MODES, angles_of, change_face, edit_head, place_head, rotation_of, scale_shape, turn_head
from .expressions import SLIDERS, express
from .lighting import FROM_PHOTO, KEEP, LIGHTS, PRESETS, Lamp, Lighting, direction_of, relight
from .transfers import TRANSFER_GROUPS, transfer

__all__ = [
    "ARKIT",
    "BLENDSHAPE_NAMES",
    "EASINGS",
    "FROM_PHOTO",
    "KEEP",
    "LIGHTS",
    "MODES",
    "PRESETS",
    "SLIDERS",
    "TRANSFER_GROUPS",
    "Lamp",
    "Lighting",
    "angles_of",
    "animate_keys",
    "arkit_of_heads",
    "change_face",
    "crop_head",
    "direction_of",
    "edit_head",
    "express",
    "follow",
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
