"""Pictures of heads for people to look at.

Conventions: RGB `[B, 3, H, W]` in 0..1; pixel (i, j) covers [j, j + 1) × [i, i + 1).
"""

import torch
from torch import Tensor

from ...errors import BadInput
from ..model import HeadModel, HeadParams
from .maps import HeadMaps, render_head

DOT_RADIUS = 3
"""Pixels, as in the landmark pictures that the head-control model pi* was given."""


def overlay(photos: Tensor, maps: HeadMaps, opacity: float = 0.7) -> Tensor:
    """Lay rendered heads over the photos that they were fitted to.

    Args:
        photos: `[B, 3, H, W]`.
        maps: The heads' maps at that size.
        opacity: Of the head, in 0..1.

    Returns:
        `[B, 3, H, W]`.
    """
    over = maps.alpha * opacity
    return photos * (1 - over) + maps.lambertian.clamp(0, 1) * over


def portraits(model: HeadModel, params: HeadParams, side: int) -> Tensor:
    """Lit heads on black, `[B, 3, side, side]`; drawn one by one, so that long sequences keep no maps of all frames."""
    return torch.cat([render_head(model, params[i], side, side).lambertian for i in range(params.batch)])


def normal_colors(maps: HeadMaps) -> Tensor:
    """Show normals as colours, `(n + 1) / 2`: `[B, 3, H, W]`, the background grey."""
    return (maps.normal + 1) / 2


def landmark_picture(points: Tensor, height: int, width: int, radius: int = DOT_RADIUS) -> Tensor:
    """Draw landmarks as white dots on black, the control image of a landmark ControlNet.

    Points at the left or top edge or outside the picture are left out, as in the released code.

    Args:
        points: `[B, N, 2]` (x, y) in pixels.
        height: Rows.
        width: Columns.
        radius: Of a dot, in pixels.

    Returns:
        `[B, 3, height, width]`, 0 or 1.

    Raises:
        BadInput: if `points` has another shape.
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
