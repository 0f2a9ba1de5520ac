"""Spherical-harmonic light of order 2: nine coefficients per colour channel.

Conventions: normals in head space (x right, y up, z towards the viewer), colours RGB. The shading of a normal is
`sum_k c_k · b_k(n) · light_k` with `b = 1, x, y, z, xy, xz, yz, x²-y², 3z²-1`. It is not clamped: 1 leaves the albedo
unchanged, and a normal that faces away from every light may be shaded slightly below 0. Light does not turn with the head.
"""

import math

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float

# The clamped cosine's weight of each order (Ramamoorthi and Hanrahan 2001) times the harmonic's normalisation; the
# constant term has no such weight, which is the convention that DECA's light codes were trained with.
_CONSTANT = 1 / math.sqrt(4 * math.pi)
_LINEAR = 2 * math.pi / 3 * math.sqrt(3 / (4 * math.pi))
_QUADRATIC = math.pi / 4 * 3 * math.sqrt(5 / (12 * math.pi))
SH_FACTORS = (
    _CONSTANT,
    *(_LINEAR,) * 3,
    *(_QUADRATIC,) * 3,
    _QUADRATIC / 2,
    math.pi / 4 / 2 * math.sqrt(5 / (4 * math.pi)),
)


def sh_basis(normals: Float[Tensor, "3 N"]) -> Float[Tensor, "9 N"]:
    """Evaluate the nine basis functions `c_k · b_k(n)`.

    Args:
        normals: Normals. Interpolated ones may be shorter than 1; they are not normalised.
    """
    x, y, z = normals
    basis = torch.stack([torch.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1])
    return basis * basis.new_tensor(SH_FACTORS)[:, None]


def shade(normals: Float[Tensor, "3 N"], light: Float[Tensor, "9 3"]) -> Float[Tensor, "3 N"]:
    """Shade normals under one light.

    Args:
        normals: Normals.
        light: Coefficients, one column for each of RGB.

    Returns:
        RGB shading, unclamped.
    """
    return light.T @ sh_basis(normals)


def directional_light(
    direction: tuple[float, float, float] = (0.0, 0.0, 1.0),
    diffuse: float | tuple[float, float, float] = 1.0,
    ambient: float | tuple[float, float, float] = 0.0,
    spread: float = 0.0,
) -> Float[Tensor, "9 3"]:
    """Return the light of one distant lamp plus an even glow, `ambient + diffuse · max(0, n·d)`, truncated at order 2.

    `max(0, cos theta) ~ 1/4 + 1/2 P1(cos theta) + 5/16 P2(cos theta)`; facing the lamp gives `ambient + 17/16 · diffuse`. A
    lamp that is an evenly bright disc of angular radius alpha instead of a point has its orders 1 and 2 multiplied by their
    means over the disc, `(1 + cos alpha) / 2` and `cos alpha (1 + cos alpha) / 2`; the total light it emits stays the same.

    Args:
        direction: Vector towards the lamp, in head space, of any length except 0.
        diffuse: Strength of the lamp, one number or RGB.
        ambient: Strength of the glow, one number or RGB.
        spread: Angular radius alpha of the disc in radians, 0 (a point) to pi (from all around).

    Returns:
        Coefficients in the layout of `HeadParams.light`.

    Raises:
        BadInput: The direction has no length, or the spread is out of range.
    """
    if not 0 <= spread <= math.pi:
        raise BadInput(f"A light's spread must be between 0 and pi, got {spread}.")
    d = torch.tensor(direction, dtype=torch.float64)
    if d.shape != (3,) or not torch.isfinite(d).all() or d.norm() == 0:
        raise BadInput(f"A light's direction must be three numbers that are not all 0, got {direction}.")
    x, y, z = (d / d.norm()).tolist()
    # P2(n·d) = 3 (dx dy · xy + dx dz · xz + dy dz · yz) + ¾ (dx²-dy²)(x²-y²) + ¼ (3dz²-1)(3z²-1)
    p2 = [3 * x * y, 3 * x * z, 3 * y * z, 0.75 * (x * x - y * y), 0.25 * (3 * z * z - 1)]
    # mean P1 = (1 + cos alpha) / 2,  mean P2 = cos alpha · mean P1
    first = (1 + math.cos(spread)) / 2
    second = math.cos(spread) * first
    lamp = d.new_tensor([1 / 4, *(first / 2 * value for value in (x, y, z)), *(5 / 16 * second * value for value in p2)])
    glow = d.new_tensor([1.0] + [0.0] * 8)
    lamp_colour, glow_colour = (d.new_tensor(value).expand(3) for value in (diffuse, ambient))
    coefficients = lamp[:, None] * lamp_colour + glow[:, None] * glow_colour
    return (coefficients / d.new_tensor(SH_FACTORS)[:, None]).float()


def frontal_light() -> Float[Tensor, "9 3"]:
    """Return the default light: a white lamp in front and slightly above, under which a frontal face is near its albedo."""
    return directional_light((0.0, 0.35, 1.0), diffuse=0.55, ambient=0.42)
