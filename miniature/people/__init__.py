"""Synthetic people: the built-in head with hair, brows, beard, glasses and clothes, rendered in front of a background.

They replace photos of real people: to train and evaluate the miniature, and to try the pack without downloading a file.
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
    LIP_COLOURS,
    PERSON_LIGHTS,
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
    "LIP_COLOURS",
    "PERSON_LIGHTS",
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
