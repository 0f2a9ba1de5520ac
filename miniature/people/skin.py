"""Skin textures of synthetic people: the built-in head's texture with brows, lips, irises, scalp and beard painted on."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ...flame.builtin import TEXTURE_NAMES, builtin_head
from ...flame.builtin.anthropometry import Measures
from ...flame.builtin.curves import blob
from ...flame.builtin.mesh import half_points, head_mesh
from ...flame.builtin.uv import skin_positions
from ...flame.model import HeadParams
from ...shapes import Float
from .person import EYE_COLOURS, HAIR_COLOURS, LIP_COLOURS, Person

KEPT_PEOPLE = 16
"""Number of people whose skin (1.7 MB each), hair and glasses are kept for further pictures."""

_COVER = {"stubble": 0.45, "moustache": 0.95, "goatee": 0.95, "full": 0.92}
_COMPONENTS = {"brows": "brow_dark", "lips": "lip_red", "scalp": "hair_dark", "iris": "iris_blue", "full": "stubble"}
"""Components of the built-in texture that mark the regions to paint."""


@lru_cache(maxsize=KEPT_PEOPLE)
def skin_texture(person: Person) -> Float[Tensor, "3 S S"]:
    """Paint the person's texture, RGB `[3, S, S]` in 0..1."""
    model, regions = builtin_head(), _regions()
    coefficients = torch.zeros_like(HeadParams.neutral().texture)
    coefficients[0, : len(person.skin)] = torch.tensor(person.skin)
    texture = model.albedo(HeadParams.neutral().replace(texture=coefficients))[0].clamp(0.03, 1)
    hair = torch.tensor(HAIR_COLOURS[person.hair_colour])
    if person.hair == "bald":  # above the hairline too, a bald head has the colour of its forehead
        forehead = texture[:, texture.shape[1] * 5 // 24, texture.shape[2] // 2]
        texture = _paint(texture, forehead, regions["scalp"], 0.85)
    else:
        texture = _paint(texture, hair, regions["scalp"], 0.95)
    texture = _paint(texture, 0.75 * hair, regions["brows"], person.brows)
    texture = _paint(texture, torch.tensor(EYE_COLOURS[person.eyes]), regions["iris"], 0.9)
    lips = LIP_COLOURS[person.lips]
    if lips is not None:
        texture = _paint(texture, torch.tensor(lips), regions["lips"], 0.85)
    if person.beard != "none":
        texture = _paint(texture, hair, regions[person.beard], _COVER[person.beard])
    return texture


def _paint(texture: Tensor, colour: Tensor, region: Tensor, opacity: float) -> Tensor:
    """Blend a colour `[3]` into a texture `[3, S, S]` where the region `[S, S]` is above 0."""
    return texture + (colour[:, None, None] - texture) * region * opacity


@lru_cache(maxsize=1)
def _regions() -> dict[str, Tensor]:
    """Find the regions of the texture to paint, by name, each `[S, S]` in 0..1."""
    model = builtin_head()
    assert model.texture_basis is not None and model.texture_mean is not None  # the built-in head has them
    regions = {}
    for name, component in _COMPONENTS.items():
        reach = model.texture_basis[TEXTURE_NAMES.index(component)].abs().amax(0)
        regions[name] = reach / reach.max()
    size = model.texture_mean.shape[-1]
    half, _ = skin_positions(head_mesh(), half_points(Measures()), size)
    x, y = np.full((2, size, size), 9.0)  # nowhere on the head
    for side in (slice(size // 2, None), slice(size // 2 - 1, None, -1)):
        x[: len(half), side], y[: len(half), side] = half[..., 0], half[..., 1]
    grows = regions["full"] > 0.05
    regions["moustache"] = _spot(blob(x, y, 0, -0.028, 0.016, 0.0055)) * grows
    regions["goatee"] = torch.maximum(_spot(blob(x, y, 0, -0.070, 0.014, 0.016)) * grows, regions["moustache"])
    regions["stubble"] = regions["full"]
    return regions


def _spot(bump: np.ndarray) -> Tensor:
    """Flatten the top of a bump."""
    return torch.from_numpy(bump).float().mul(1.6).clamp(max=1)
