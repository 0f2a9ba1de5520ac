"""Light heads by lamps, by the name of a preset, or from a photo.

Conventions: angles are in degrees. A lamp at azimuth 0 and elevation 0 shines from the viewer. Azimuth goes to the picture's
right (90 is from the right, 180 from behind), elevation upwards. Colours are hexadecimal: red, green, blue. Light is as in
`spherical_harmonics.py`: nine coefficients per channel, in head space. It does not turn with the head. Shading times albedo
gives the pixels directly, without gamma.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float
from ..fitting import light_from_photo
from ..model import SH_FACTORS, HeadModel, HeadParams, directional_light, frontal_light, shade


@dataclass(frozen=True)
class Lamp:
    """One distant lamp."""

    azimuth: float = 0.0
    elevation: float = 0.0
    intensity: float = 1.0
    """Light on a surface that faces the lamp. It does not depend on the softness."""
    color: str = "#ffffff"
    softness: float = 0.0
    """0 is a point light, 1 is as large as half the sky."""


@dataclass(frozen=True)
class Lighting:
    """Lamps and ambient light."""

    lamps: tuple[Lamp, ...]
    ambient: float = 0.0
    ambient_color: str = "#ffffff"

    def coefficients(self) -> Float[Tensor, "9 3"]:
        """Compute the light `[9, 3]`, as in `HeadParams.light`.

        Raises:
            BadInput: A colour or a value is out of range.
        """
        ambient = directional_light(diffuse=0.0, ambient=_tinted(self.ambient, self.ambient_color))
        return ambient + sum(_lamp_light(lamp) for lamp in self.lamps)


PRESETS: dict[str, Lighting] = {
    "studio": Lighting((Lamp(35, 30, 0.62, softness=0.4), Lamp(-50, 5, 0.28, softness=0.7), Lamp(165, 40, 0.25)), 0.20),
    "rim": Lighting((Lamp(125, 20, 1.4, "#fff4e6"), Lamp(-125, 20, 1.4, "#e6f0ff")), 0.22),
    "Rembrandt": Lighting((Lamp(-50, 42, 0.95, "#fff1e0", 0.1),), 0.12),
    "from below": Lighting((Lamp(0, -60, 0.95, softness=0.1),), 0.15),
    "overcast": Lighting((Lamp(0, 70, 0.65, "#eef4ff", 1.0),), 0.50, "#f2f6ff"),
    "sunset": Lighting((Lamp(65, 8, 1.0, "#ff9d52", 0.1), Lamp(-120, 20, 0.25, "#6f86d6", 0.8)), 0.30, "#8f97c9"),
}
"""Preset lights by name."""

MOST_AMBIENT, MOST_INTENSITY = 2.0, 3.0
"""Largest values of the custom light's widgets."""
_MEAN_SQUARES = (1, 1 / 3, 1 / 3, 1 / 3, 1 / 15, 1 / 15, 1 / 15, 4 / 15, 4 / 5)
"""Means over the sphere of the squares of b = 1, x, y, z, xy, xz, yz, x²-y², 3z²-1."""

NEUTRAL, KEEP, CUSTOM, FROM_PHOTO = "neutral", "keep", "custom", "from photo"
LIGHTS = (KEEP, CUSTOM, FROM_PHOTO, NEUTRAL, *PRESETS)
"""The lights that `relight` accepts."""


def relight(
    model: HeadModel,
    head: HeadParams,
    light: str = KEEP,
    strength: float = 1.0,
    custom: Lighting | None = None,
    photo: Float[Tensor, "N 3 H W"] | None = None,
    observed: HeadParams | None = None,
) -> HeadParams:
    """Change the light of heads.

    Args:
        model: The head model.
        head: B heads.
        light: One of LIGHTS.
        strength: Factor of the light, at least 0.
        custom: The lamps, for "custom".
        photo: `[B or 1, 3, H, W]` in 0..1, for "from photo".
        observed: The heads as they were fitted to that photo. By default, `head`.

    Returns:
        The heads with another light; the same object for "keep" at strength 1.

    Raises:
        BadInput: The light is unknown, the strength is out of range, or the photo or the lamps for the light are missing.
    """
    if not 0 <= strength < math.inf:
        raise BadInput(f"A light's strength is at least 0, got {strength}.")
    if light == KEEP:
        if strength == 1:
            return head
        new = head.light
    elif light == CUSTOM and custom is not None:
        new = custom.coefficients()
    elif light == FROM_PHOTO and photo is not None:
        new = light_from_photo(model, observed or head, photo)
    elif light == NEUTRAL:
        new = frontal_light()
    elif light in PRESETS:
        new = PRESETS[light].coefficients()
    elif light in LIGHTS:
        needed = "the photo that the head was fitted to" if light == FROM_PHOTO else "its lamps"
        raise BadInput(f"The light '{light}' needs {needed}, got nothing; connect it, or choose another light.")
    else:
        raise BadInput(f"Expected a light among {', '.join(LIGHTS)}; got '{light}'.")
    return head.replace(light=(new.to(head.light) * strength).expand_as(head.light).contiguous())


def custom_light_of(light: Float[Tensor, "9 3"]) -> dict[str, float | str]:
    """Return Edit Head's custom light that comes closest to a light: one lamp, and ambient light.

    The lamp is where the light's linear part points to. Its colour and size and the ambient light are least squares over all
    normals.

    Args:
        light: Coefficients, as in `HeadParams.light`.

    Returns:
        Values of the widgets of Edit Head, within their ranges.
    """
    # The mean square over the sphere of each basis function b_k weighs the coefficients.
    weight = (torch.tensor(SH_FACTORS).square() * torch.tensor(_MEAN_SQUARES)).sqrt().double()
    wanted = light.double().cpu() * weight[:, None]
    x, y, z = (light[1:4].double().cpu().mean(1) + torch.tensor([0.0, 0.0, 1e-9])).tolist()
    azimuth, elevation = math.degrees(math.atan2(x, z)), math.degrees(math.atan2(y, math.hypot(x, z)))
    glow = Lighting((), 1.0).coefficients().double()[:, 0] * weight
    best = None
    for softness in (step / 20 for step in range(21)):
        lamp = _lamp_light(Lamp(azimuth, elevation, softness=softness)).double()[:, 0] * weight
        # One intensity for each channel, and one ambient light for all: wanted_c ~ intensity_c · lamp + ambient · glow
        columns = torch.cat([torch.block_diag(*[lamp[:, None]] * 3), glow.repeat(3)[:, None]], dim=1)
        solved = torch.linalg.lstsq(columns, wanted.T.flatten()[:, None]).solution[:, 0].clamp(min=0)
        error = (columns @ solved - wanted.T.flatten()).square().sum().item()
        if best is None or error < best[0]:
            best = error, softness, solved.tolist()
    assert best is not None
    _, softness, (*lamps, ambient) = best
    intensity = max(lamps)
    color = "".join(f"{round(255 * part / intensity) if intensity else 255:02x}" for part in lamps)
    return {
        "ambient": min(ambient, MOST_AMBIENT),
        "key_azimuth": azimuth,
        "key_elevation": elevation,
        "key_intensity": min(intensity, MOST_INTENSITY),
        "key_softness": softness,
        "key_color": f"#{color}",
    }


def rgb_of(color: str) -> tuple[float, float, float]:
    """Parse a colour like "#ff9d52" or "#f95" as red, green and blue in 0..1.

    Args:
        color: Hexadecimal colour, with or without "#".

    Raises:
        BadInput: It is not a hexadecimal colour.
    """
    digits = color.strip().removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    if len(digits) != 6 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
        raise BadInput(f"Expected a colour like #ff9d52 (red, green, blue in hexadecimal), got '{color}'.")
    red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


def _tinted(strength: float, color: str) -> tuple[float, float, float]:
    """Multiply a colour by a strength."""
    if not 0 <= strength < math.inf:
        raise BadInput(f"A lamp's strength is at least 0, got {strength}.")
    red, green, blue = rgb_of(color)
    return strength * red, strength * green, strength * blue


def direction_of(azimuth: float, elevation: float) -> tuple[float, float, float]:
    """Compute the direction towards a lamp: a vector of length 1 in head space.

    Args:
        azimuth: In degrees, to the picture's right.
        elevation: In degrees, upwards.
    """
    azimuth, elevation = math.radians(azimuth), math.radians(elevation)
    # d = (sin phi cos theta, sin theta, cos phi cos theta)
    flat = math.cos(elevation)
    return math.sin(azimuth) * flat, math.sin(elevation), math.cos(azimuth) * flat


def _lamp_light(lamp: Lamp) -> Tensor:
    """Compute the light `[9, 3]` of a lamp."""
    if not 0 <= lamp.softness <= 1:
        raise BadInput(f"Expected a lamp's softness in 0 to 1, got {lamp.softness}.")
    direction = direction_of(lamp.azimuth, lamp.elevation)
    spread = lamp.softness * math.pi / 2
    facing = shade(torch.tensor(direction)[:, None], directional_light(direction, spread=spread))[0].item()
    return directional_light(direction, _tinted(lamp.intensity / facing, lamp.color), spread=spread)
