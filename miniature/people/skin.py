"""The skin of synthetic people: the built-in head's texture with brows, lips, irises, scalp and beard painted over."""

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
from .person import EYE_COLOURS, HAIR_COLOURS, LIP_COLOURS, Person

_COVER = {"stubble": 0.45, "moustache": 0.95, "goatee": 0.95, "full": 0.92}
_COMPONENTS = {"brows": "brow_dark", "lips": "lip_red", "scalp": "hair_dark", "iris": "iris_blue", "full": "stubble"}
"""Components of the built-in texture whose places are painted."""


@lru_cache(maxsize=64)
def skin(person: Person) -> Tensor:
    """The person's texture, RGB `[3, S, S]` in 0..1."""
    model, places = builtin_head(), _places()
    coefficients = torch.zeros_like(HeadParams.neutral().texture)
    coefficients[0, : len(person.skin)] = torch.tensor(person.skin)
    texture = model.albedo(HeadParams.neutral().replace(texture=coefficients))[0].clamp(0.03, 1)
    hair = torch.tensor(HAIR_COLOURS[person.hair_colour])

    def paint(colour: Tensor, place: str, cover: float) -> None:
        nonlocal texture
        texture = texture + (colour[:, None, None] - texture) * places[place] * cover

    # a bald head has the forehead's colour above the hairline too
    forehead = texture[:, texture.shape[1] * 5 // 24, texture.shape[2] // 2]
    paint(*((forehead, "scalp", 0.85) if person.hair == "bald" else (hair, "scalp", 0.95)))
    paint(0.75 * hair, "brows", person.brows)
    paint(torch.tensor(EYE_COLOURS[person.eyes]), "iris", 0.9)
    if (colour := LIP_COLOURS[person.lips]) is not None:
        paint(torch.tensor(colour), "lips", 0.85)
    if person.beard != "none":
        paint(hair, person.beard, _COVER[person.beard])
    return texture


@lru_cache(maxsize=1)
def _places() -> dict[str, Tensor]:
    """Where in the texture what lies, each `[S, S]` in 0..1."""
    model = builtin_head()
    assert model.texture_basis is not None and model.texture_mean is not None  # the built-in head has them
    places = {}
    for place, component in _COMPONENTS.items():
        reach = model.texture_basis[TEXTURE_NAMES.index(component)].abs().amax(0)
        places[place] = reach / reach.max()
    size = model.texture_mean.shape[-1]
    half, _ = skin_positions(head_mesh(), half_points(Measures()), size)
    x, y = np.full((2, size, size), 9.0)  # nowhere on the head
    for side in (slice(size // 2, None), slice(size // 2 - 1, None, -1)):
        x[: len(half), side], y[: len(half), side] = half[..., 0], half[..., 1]
    grows = places["full"] > 0.05
    places["moustache"] = _spot(blob(x, y, 0, -0.028, 0.016, 0.0055)) * grows
    places["goatee"] = torch.maximum(_spot(blob(x, y, 0, -0.070, 0.014, 0.016)) * grows, places["moustache"])
    places["stubble"] = places["full"]
    return places


def _spot(bump: np.ndarray) -> Tensor:
    """A bump with a flat top."""
    return torch.from_numpy(bump).float().mul(1.6).clamp(max=1)
