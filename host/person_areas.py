"""The part of a picture that belongs to a person, derived from the masks of the heads in it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import BadInput

AREAS = ("person", "head", "side")
GRID = 256
"""Distances are measured on a grid of at most this many cells along the longer side."""
SHOULDERS = 1.6
"""Half of the width of a body, in widths of its head."""
NECK = 0.5
"""The same at the neck."""
SLOPE = 0.8
"""The height over which the neck widens to the shoulders, in heights of the head."""
FAR = 1e6


def person_area(
    own: Tensor, others: Sequence[Tensor], area: str = "person", grow: float = 0.25, feather: float = 0.25
) -> Tensor:
    """Return the part of the picture that belongs to a person. Where people meet, the nearest head decides.

    Args:
        own: Mask of the person's head, `[B, 1, H, W]` in 0..1.
        others: Masks of the other people's heads, each `[B or 1, 1, H', W']`. Other sizes are stretched over the frame.
        area: "head": the head. "person": the head and the body below it. "side": everything that is nearest to the head.
        grow: How far the area extends beyond the head, in widths of the head.
        feather: Width of the soft edge, in widths of the head. With 0, the edge is hard.

    Returns:
        `[B, 1, H, W]` in 0..1. Where no head is in a frame, the area is empty.

    Raises:
        BadInput: Unknown area, or a mask has neither one frame nor as many as the person's.
    """
    if area not in AREAS:
        raise BadInput(f"Person Mask: expected an area of {', '.join(AREAS)}, got {area!r}.")
    count, _, height, width = own.shape
    for mask in others:
        if len(mask) not in (1, count):
            raise BadInput(
                f"Person Mask: expected masks of other people with 1 or {count} frames, got {len(mask)}. Render the same "
                "number of heads for each person."
            )
    step = max(1.0, max(height, width) / GRID)
    grid = max(1, round(height / step)), max(1, round(width / step))
    step = height / grid[0], width / grid[1]
    inside = _on_grid(own, grid)
    away = _distance(inside, step)
    boxes = _boxes(inside, step)
    margin = torch.full_like(away, FAR)
    if area != "side":
        margin = grow * boxes[:, 2] - away
    if area == "person":
        margin = torch.maximum(margin, _body(boxes, grid, step))
    for mask in others:
        margin = torch.minimum(margin, (_distance(_on_grid(mask, grid), step).expand_as(away) - away) / 2)
    margin = F.interpolate(margin[:, None], (height, width), mode="bilinear", align_corners=False)
    soft = feather * boxes[:, 2][:, None]
    made = (margin >= 0).float() if feather == 0 else (0.5 + margin / soft.clamp(min=1e-6)).clamp(0, 1)
    return made * inside.flatten(1).any(1)[:, None, None, None]


def _on_grid(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return whether the cells of a grid belong to a mask `[B, 1, H, W]`: `[B, h, w]`."""
    return F.adaptive_avg_pool2d(mask.float().cpu(), grid)[:, 0] > 0.5


def _distance(inside: Tensor, step: tuple[float, float]) -> Tensor:
    """Return each cell's distance in pixels to the nearest cell inside, `[B, h, w]`; `FAR` if there is none.

    Exact Euclidean distances, first along the columns, then along the rows.
    """
    squared = torch.where(inside, 0.0, FAR**2)
    for axis, pixels in zip((1, 2), step, strict=True):
        places = torch.arange(inside.shape[axis]) * pixels
        apart = (places[:, None] - places) ** 2
        moved = squared.movedim(axis, -1)
        squared = torch.stack([(moved + row).amin(-1) for row in apart], dim=-1).movedim(-1, axis)
    return squared.sqrt().clamp(max=FAR)


def _boxes(inside: Tensor, step: tuple[float, float]) -> Tensor:
    """Return the bounds of each frame's head in pixels, `[B, 4, 1, 1]`: centre x, bottom, width, height."""
    bounds = []
    for axis, pixels in ((1, step[1]), (2, step[0])):
        hit = inside.any(axis).float()
        first, last = hit.argmax(1), hit.shape[1] - hit.flip(1).argmax(1)
        bounds += [first * pixels, last * pixels]
    left, right, top, bottom = bounds
    return torch.stack([(left + right) / 2, bottom, right - left, bottom - top], dim=1)[:, :, None, None]


def _body(boxes: Tensor, grid: tuple[int, int], step: tuple[float, float]) -> Tensor:
    """Return how far each cell is inside the body below the head, in pixels, `[B, h, w]`."""
    centre, bottom, wide, high = boxes.unbind(1)
    y = ((torch.arange(grid[0]) + 0.5) * step[0])[:, None]
    x = (torch.arange(grid[1]) + 0.5) * step[1]
    share = ((y - bottom) / (SLOPE * high).clamp(min=1e-6)).clamp(0, 1)
    half = (NECK + (SHOULDERS - NECK) * share) * wide
    return torch.minimum(half - (x - centre).abs(), y - bottom + 0.25 * high)
