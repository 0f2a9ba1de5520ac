"""Synthetic people: the built-in head with hair, brows, beard, glasses and clothes, drawn in front of a background.

They stand in for photos where nobody's may be used: to train and to judge the miniature, and to try the pack without a file.
"""

from .draw import draw_people
from .person import BACKGROUNDS, LIGHTS, SHIRTS, Person, Setting, light_named

__all__ = ["BACKGROUNDS", "LIGHTS", "SHIRTS", "Person", "Setting", "draw_people", "light_named"]
