"""Synthetic people: the built-in head with hair, brows, beard, glasses and clothes, drawn in front of a background.

They stand in for photos where nobody's may be used: to train and to judge the miniature, and to try the pack without a file.
"""

from .backdrops import backdrop
from .drawing import draw_people, draw_surfaces
from .g_buffers import Surfaces
from .person import (
    BACKGROUNDS,
    BEARDS,
    EYE_COLOURS,
    GLASSES,
    HAIR_COLOURS,
    HAIR_STYLES,
    LIGHTS,
    LIP_COLOURS,
    SHIRTS,
    SKIN_TONES,
    Person,
    Setting,
    light_named,
)

__all__ = [
    "BACKGROUNDS",
    "BEARDS",
    "EYE_COLOURS",
    "GLASSES",
    "HAIR_COLOURS",
    "HAIR_STYLES",
    "LIGHTS",
    "LIP_COLOURS",
    "SHIRTS",
    "SKIN_TONES",
    "Person",
    "Setting",
    "Surfaces",
    "backdrop",
    "draw_people",
    "draw_surfaces",
    "light_named",
]
