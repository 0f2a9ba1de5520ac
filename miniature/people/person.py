"""Synthetic people and their settings: values and names, with the words for a prompt.

Conventions: colours are RGB in 0..1 without light. Lengths are in metres. Shape and skin
coefficients are in standard deviations of the built-in head.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...flame.builtin import SHAPE_NAMES, TEXTURE_NAMES
from ...flame.editing import direction_of, rotation_of
from ...flame.model import SIZES, HeadParams, directional_light
from ...shapes import Float

Colour = tuple[float, float, float]

HAIR_COLOURS: dict[str, Colour] = {
    "black": (0.085, 0.075, 0.075),
    "brown": (0.300, 0.185, 0.110),
    "blond": (0.800, 0.640, 0.360),
    "red": (0.640, 0.250, 0.090),
    "grey": (0.620, 0.620, 0.630),
}
HAIR_STYLES = ("bald", "short", "curly", "swept", "bob", "long")
EYE_COLOURS: dict[str, Colour] = {
    "brown": (0.260, 0.150, 0.080),
    "blue": (0.250, 0.450, 0.720),
    "green": (0.270, 0.480, 0.270),
}
LIP_COLOURS: dict[str, Colour | None] = {"natural": None, "red": (0.720, 0.130, 0.170), "dark": (0.400, 0.170, 0.210)}
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
GLASSES: dict[str, Colour | None] = {"none": None, "black": (0.05, 0.05, 0.06), "red": (0.62, 0.08, 0.10)}
SKIN_TONES = (("pale", -0.9), ("light", 0.2), ("tan", 1.3), ("brown", 2.4), ("dark", 3.5))
"""Names, with the coefficients of the texture component `skin_tone`."""

SHIRTS: dict[str, Colour] = {
    "red": (0.720, 0.140, 0.140),
    "green": (0.140, 0.480, 0.240),
    "blue": (0.150, 0.300, 0.660),
    "yellow": (0.870, 0.740, 0.200),
    "white": (0.920, 0.920, 0.900),
    "black": (0.110, 0.110, 0.120),
}
BACKGROUNDS = ("white studio", "blue wall", "brick wall", "forest", "beach", "sunset", "night city", "library")
PERSON_LIGHTS: dict[str, tuple[float, float]] = {"front": (0, 20), "left": (-75, 15), "right": (75, 15), "above": (0, 75)}
"""Azimuth and elevation of the lamp by name, in degrees as in `flame.editing.Lamp`."""

CAMERA = (6.4, 0.0, 0.08)
"""Size and position of a head in a portrait, as in `HeadParams.camera`."""
_SHAPE_SPREAD = 1.3
_FRECKLES, _TONE = TEXTURE_NAMES.index("freckles"), TEXTURE_NAMES.index("skin_tone")
_VARIED = ("skin_warmth", "redness", "under_eye", "eye_shadow")


@dataclass(frozen=True)
class Person:
    """One person: everything that stays the same from picture to picture."""

    shape: tuple[float, ...]
    """Coefficients of the built-in head's shape components, in order."""
    skin: tuple[float, ...]
    """Coefficients of its texture components."""
    hair: str
    """One of HAIR_STYLES."""
    hair_colour: str
    brows: float
    """Density of the brows, 0.35..1."""
    eyes: str
    lips: str
    beard: str
    glasses: str
    seed: int
    """Seed of details such as locks and curls."""

    @classmethod
    def sample(cls, seed: int) -> "Person":
        """Sample a person. The same seed always gives the same person."""
        random = np.random.Generator(np.random.PCG64([seed, 0xFACE]))
        shape = np.clip(random.standard_normal(len(SHAPE_NAMES)) * _SHAPE_SPREAD, -2.6, 2.6)
        skin = np.zeros(len(TEXTURE_NAMES))
        skin[_TONE] = random.uniform(-1.1, 3.7)
        for name in _VARIED:
            skin[TEXTURE_NAMES.index(name)] = random.normal() * 0.8
        skin[_FRECKLES] = 2.0 if random.random() < 0.15 and skin[_TONE] < 1 else 0.0

        def pick(options: Iterable[str], weights: list[float] | None = None) -> str:
            names = list(options)
            return names[random.choice(len(names), p=weights)]

        return cls(
            shape=tuple(shape.tolist()),
            skin=tuple(skin.tolist()),
            hair=pick(HAIR_STYLES, [0.10, 0.22, 0.16, 0.16, 0.18, 0.18]),
            hair_colour=pick(HAIR_COLOURS),
            brows=random.uniform(0.35, 1.0),
            eyes=pick(EYE_COLOURS),
            lips=pick(LIP_COLOURS, [0.5, 0.3, 0.2]),
            beard=pick(BEARDS, [0.56, 0.08, 0.12, 0.10, 0.14]),
            glasses=pick(GLASSES, [0.7, 0.18, 0.12]),
            seed=seed,
        )

    def shape_row(self) -> Float[Tensor, "1 100"]:
        """Return the shape as in `HeadParams.shape`, `[1, 100]`."""
        row = torch.zeros(1, *SIZES["shape"])
        row[0, : len(self.shape)] = torch.tensor(self.shape)
        return row

    def head(self, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, light: str = "front") -> HeadParams:
        """Return the person's head in a portrait, with the average skin: as much as a fit to the portrait could find.

        Args:
            yaw: In degrees, to the picture's right, as in `flame.editing.edits`.
            pitch: In degrees, upwards.
            roll: In degrees, clockwise.
            light: One of PERSON_LIGHTS.

        Returns:
            One head.
        """
        return HeadParams.neutral().replace(
            shape=self.shape_row(),
            rotation=rotation_of(torch.tensor([[yaw, pitch, roll]])),
            camera=torch.tensor([CAMERA]),
            light=light_named(light)[None],
        )

    def words(self) -> list[str]:
        """Describe the visible features of the person, as phrases for a prompt."""
        tone = min(SKIN_TONES, key=lambda named: abs(named[1] - self.skin[_TONE]))[0]
        hair = "bald" if self.hair == "bald" else f"{self.hair} {self.hair_colour} hair"
        words = [f"{tone} skin", hair, "thick brows" if self.brows > 0.7 else "thin brows", f"{self.eyes} eyes"]
        if self.lips != "natural":
            words.append(f"{self.lips} lips")
        if self.beard != "none":
            words.append({"full": "full beard"}.get(self.beard, self.beard))
        if self.glasses != "none":
            words.append(f"{self.glasses} glasses")
        if self.skin[_FRECKLES] > 0:
            words.append("freckles")
        return words


@dataclass(frozen=True)
class Setting:
    """What a prompt may change while the person stays the same."""

    shirt: str
    """One of SHIRTS."""
    background: str
    """One of BACKGROUNDS."""
    seed: int = 0
    """Seed of the background's details."""

    @classmethod
    def sample(cls, seed: int) -> "Setting":
        """Sample a setting. The same seed always gives the same setting."""
        random = np.random.Generator(np.random.PCG64([seed, 0x5E7]))
        return cls(list(SHIRTS)[random.integers(len(SHIRTS))], BACKGROUNDS[random.integers(len(BACKGROUNDS))], seed)

    def words(self) -> list[str]:
        """Describe the setting, as phrases for a prompt."""
        return [f"{self.shirt} shirt", self.background]


def light_named(name: str, strength: float = 1.0) -> Float[Tensor, "9 3"]:
    """Return the light of a name: a lamp and ambient light.

    Args:
        name: One of PERSON_LIGHTS.
        strength: Fraction of the light that comes from the lamp, 0..1. The rest is ambient.

    Returns:
        `[9, 3]`, as in `HeadParams.light`.
    """
    direction = direction_of(*PERSON_LIGHTS[name])
    return directional_light(direction, diffuse=0.85 * strength, ambient=0.92 - 0.67 * strength, spread=0.5)
