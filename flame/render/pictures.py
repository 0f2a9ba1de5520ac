"""Pictures of heads for viewing.

Conventions: RGB `[B, 3, H, W]` in 0..1; pixel (i, j) covers [j, j + 1) × [i, i + 1).
"""

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float
from ..model import HeadModel, HeadParams
from .maps import HeadMaps, render_head

DOT_RADIUS = 3
"""Pixels, as in the landmark pictures that the head-control model pi* uses."""


def overlay(photos: Float[Tensor, "B 3 H W"], maps: HeadMaps, opacity: float = 0.7) -> Float[Tensor, "B 3 H W"]:
    """Blend rendered heads over the photos that they were fitted to.

    Args:
        photos: The photos, RGB in 0..1.
        maps: The heads' maps at that size.
        opacity: Opacity of the heads, in 0..1.
    """
    over = maps.alpha * opacity
    return photos * (1 - over) + maps.lambertian.clamp(0, 1) * over


def portraits(model: HeadModel, params: HeadParams, side: int) -> Float[Tensor, "B 3 side side"]:
    """Render lit heads on black. They are rendered one at a time, so long sequences do not hold the maps of all frames."""
    return torch.cat([render_head(model, params[i], side, side).lambertian for i in range(params.batch)])


def normal_colors(maps: HeadMaps) -> Float[Tensor, "B 3 H W"]:
    """Convert normals to colours, `(n + 1) / 2`; the background becomes grey."""
    return (maps.normal + 1) / 2


def landmark_picture(
    points: Float[Tensor, "B N 2"], height: int, width: int, radius: int = DOT_RADIUS
) -> Float[Tensor, "B 3 H W"]:
    """Render landmarks as white dots on black, the control image of a landmark ControlNet.

    Points on the left or top edge or outside the picture are omitted, as in the released code.

    Args:
        points: (x, y) in pixels.
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.
        radius: Radius of a dot in pixels.

    Returns:
        The picture; each value is 0 or 1.

    Raises:
        BadInput: `points` has another shape.
    """
    if points.ndim != 3 or points.shape[-1] != 2:
        raise BadInput(f"Expected points of shape [B, N, 2], got {list(points.shape)}.")
    rows = torch.arange(height, device=points.device)[:, None]
    columns = torch.arange(width, device=points.device)
    picture = points.new_zeros(points.shape[0], height, width)
    for canvas, dots in zip(picture, points.floor().long().tolist(), strict=True):
        for x, y in dots:
            if 0 < x < width and 0 < y < height:
                canvas[(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = 1
    return picture[:, None].expand(-1, 3, -1, -1)
