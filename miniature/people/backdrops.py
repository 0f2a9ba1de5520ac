"""Procedural backgrounds for synthetic people, out of focus as in a portrait.

Conventions: RGB in 0..1. x and y run over the picture from 0 to 1, y down.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...flame.builtin.curves import bell, smoothstep
from ...shapes import Float

Array = np.ndarray


def backdrop(name: str, size: int, seed: int) -> Float[Tensor, "3 {size} {size}"]:
    """Render a background.

    Args:
        name: One of `person.BACKGROUNDS`.
        size: Side in pixels.
        seed: Seed of its details.

    Returns:
        float64 `[3, size, size]` in 0..1.
    """
    random = np.random.Generator(np.random.PCG64([seed, 0xBAC]))
    at = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(at, at)
    drawn = np.clip(_DRAWN[name](x, y, random) * random.uniform(0.92, 1.06), 0, 1)
    return torch.from_numpy(drawn).permute(2, 0, 1)


def _mix(a: ArrayLike, b: ArrayLike, fraction: ArrayLike) -> Array:
    """Blend colours `[..., 3]`: `a` where the fraction is 0, `b` where it is 1."""
    fraction = np.asarray(fraction)[..., None]
    return np.asarray(a) * (1 - fraction) + np.asarray(b) * fraction


def _studio(x: Array, y: Array, random: np.random.Generator) -> Array:
    return _mix([0.93, 0.93, 0.92], [0.76, 0.76, 0.77], smoothstep(np.hypot(x - random.uniform(0.35, 0.65), y - 0.4), 0.1, 0.9))


def _blue(x: Array, y: Array, random: np.random.Generator) -> Array:
    return _mix([0.30, 0.49, 0.73], [0.20, 0.35, 0.58], smoothstep(x + random.uniform(-0.3, 0.3) + 0.4 * y, 0.1, 1.2))


def _brick(x: Array, y: Array, random: np.random.Generator) -> Array:
    row = y * 9 + random.uniform()
    col = x * 5 + 0.5 * (np.floor(row) % 2) + random.uniform()
    joint = np.maximum(bell(row % 1, 0.0, 0.08) + bell(row % 1, 1.0, 0.08), bell(col % 1, 0, 0.045) + bell(col % 1, 1, 0.045))
    tint = 0.06 * np.sin(7.1 * np.floor(row) + 12.9 * np.floor(col))
    return _mix(np.array([0.60, 0.29, 0.22]) + tint[..., None], [0.74, 0.69, 0.63], np.clip(joint, 0, 1))


def _forest(x: Array, y: Array, random: np.random.Generator) -> Array:
    out = _mix([0.46, 0.62, 0.34], [0.15, 0.28, 0.12], smoothstep(y, 0.0, 0.9))
    for _ in range(6):
        trunk = bell(x, random.uniform(0, 1), random.uniform(0.012, 0.035))
        out = _mix(out, [0.20, 0.15, 0.10], 0.75 * trunk)
    return out


def _beach(x: Array, y: Array, random: np.random.Generator) -> Array:
    sea, sand = random.uniform(0.40, 0.50), random.uniform(0.66, 0.76)
    out = _mix([0.45, 0.72, 0.93], [0.80, 0.91, 0.97], smoothstep(y, 0, sea))
    out = _mix(out, [0.08, 0.50, 0.62], smoothstep(y, sea - 0.008, sea + 0.008))
    return _mix(out, [0.90, 0.81, 0.60], smoothstep(y + 0.02 * np.sin(8 * x), sand - 0.02, sand + 0.02))


def _sunset(x: Array, y: Array, random: np.random.Generator) -> Array:
    out = _mix([0.34, 0.20, 0.45], [0.98, 0.58, 0.24], smoothstep(y, 0.0, 0.62))
    out = _mix(out, [1.0, 0.90, 0.55], bell(np.hypot(x - random.uniform(0.1, 0.9), y - 0.56), 0, 0.09))
    return _mix(out, [0.16, 0.10, 0.16], smoothstep(y, 0.68, 0.74))


def _city(x: Array, y: Array, random: np.random.Generator) -> Array:
    out = _mix([0.05, 0.06, 0.14], [0.15, 0.12, 0.24], y)
    for _ in range(22):
        spot = bell(np.hypot(x - random.uniform(0, 1), y - random.uniform(0.05, 0.95)), 0, random.uniform(0.018, 0.04))
        out = _mix(out, [[1.0, 0.82, 0.42], [0.95, 0.45, 0.35], [0.50, 0.75, 1.0]][random.integers(3)], 0.85 * spot)
    return out


def _library(x: Array, y: Array, random: np.random.Generator) -> Array:
    row = y * 4 + random.uniform()
    col = np.floor(x * 22 + random.uniform() + 5 * np.floor(row))
    hue = np.stack([0.46 + 0.22 * np.sin(1.7 * col), 0.32 + 0.10 * np.sin(2.9 * col), 0.24 + 0.10 * np.sin(4.3 * col)], -1)
    return _mix(hue, [0.30, 0.18, 0.10], smoothstep(np.abs(row % 1 - 0.5), 0.38, 0.46))


_DRAWN = {
    "white studio": _studio, "blue wall": _blue, "brick wall": _brick, "forest": _forest,
    "beach": _beach, "sunset": _sunset, "night city": _city, "library": _library,
}  # fmt: skip
