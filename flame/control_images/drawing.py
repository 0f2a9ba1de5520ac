"""Filled shapes as OpenCV draws them, on which the control images of other models are built.

Conventions: a canvas is uint8 `[H, W, 3]`, RGB, and is changed in place. Points are whole pixels (x, y), and may lie outside.
Shapes are filled without antialiasing and include their border.
"""

import math
from collections.abc import Sequence

import numpy as np

from ...shapes import Float, Int, Num

Color = tuple[int, int, int]
"""RGB in 0..255."""
Pixel = tuple[int, int]
"""Column and row."""


def disc(canvas: Num[np.ndarray, "H W 3"], center: Pixel, radius: int, color: Color) -> None:
    """Fill the pixels at most `radius` from the centre, as `cv2.circle` with thickness -1."""
    height, width = canvas.shape[:2]
    left, right = max(center[0] - radius, 0), min(center[0] + radius + 1, width)
    top, bottom = max(center[1] - radius, 0), min(center[1] + radius + 1, height)
    if left >= right or top >= bottom:
        return
    x, y = np.arange(left, right) - center[0], np.arange(top, bottom)[:, None] - center[1]
    canvas[top:bottom, left:right][x * x + y * y <= radius * radius] = color


def polygon(canvas: Num[np.ndarray, "H W 3"], corners: Sequence[tuple[float, float]], color: Color) -> None:
    """Fill a convex polygon and the lines between its corners, as `cv2.fillConvexPoly`.

    Args:
        canvas: The canvas.
        corners: The corners in order, in pixels; they may lie between pixels.
        color: The colour.
    """
    height, width = canvas.shape[:2]
    points = np.asarray(corners, dtype=float)
    pixels = np.concatenate([_border(a, b) for a, b in zip(points, np.roll(points, -1, axis=0), strict=True)])
    first = int(pixels[:, 1].min())
    rows = int(pixels[:, 1].max()) - first + 1
    left, right = np.full(rows, np.iinfo(np.int64).max), np.full(rows, np.iinfo(np.int64).min)
    np.minimum.at(left, pixels[:, 1] - first, pixels[:, 0])
    np.maximum.at(right, pixels[:, 1] - first, pixels[:, 0])
    for row in range(max(-first, 0), min(rows, height - first)):
        canvas[first + row, max(int(left[row]), 0) : max(min(int(right[row]) + 1, width), 0)] = color


def line(canvas: Num[np.ndarray, "H W 3"], start: Pixel, end: Pixel, color: Color) -> None:
    """Draw a line of thickness 2, as `cv2.line`: a strip of one pixel to either side, with a round cap at both ends."""
    x, y = end[0] - start[0], end[1] - start[1]
    length = math.hypot(x, y)
    if length > 0:
        over, down = y / length, -x / length
        (a, b), (c, d) = start, end
        polygon(canvas, [(a + over, b + down), (a - over, b - down), (c - over, d - down), (c + over, d + down)], color)
    disc(canvas, start, 1, color)
    disc(canvas, end, 1, color)


def ellipse(canvas: Num[np.ndarray, "H W 3"], center: Pixel, axes: Pixel, degrees: int, color: Color) -> None:
    """Fill an ellipse, as `cv2.fillConvexPoly` of `cv2.ellipse2Poly` with a corner at each degree.

    Args:
        canvas: The canvas.
        center: The centre.
        axes: Half the length along the ellipse's own axes, in pixels.
        degrees: Clockwise angle of the first axis.
        color: The colour.
    """
    around = np.radians(np.arange(361))
    x, y = axes[0] * np.cos(around), axes[1] * np.sin(around)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = np.stack([np.rint(center[0] + x * cos - y * sin), np.rint(center[1] + x * sin + y * cos)], axis=1)
    changed = np.concatenate([[True], (corners[1:] != corners[:-1]).any(1)])
    polygon(canvas, [(float(px), float(py)) for px, py in corners[changed]], color)


def _border(start: Float[np.ndarray, "2"], end: Float[np.ndarray, "2"]) -> Int[np.ndarray, "N 2"]:
    """Return the pixels of a line: one for each whole step along its longer axis, and the one of its end."""
    along = int(abs(end[0] - start[0]) <= abs(end[1] - start[1]))
    if end[along] < start[along]:
        start, end = end, start
    steps = np.arange(int(end[along] - start[along]) + 1)
    slope = (end[1 - along] - start[1 - along]) / max(end[along] - start[along], 1e-12)
    pixels = np.empty((len(steps), 2))
    pixels[:, along] = np.floor(start[along] + 0.5) + steps
    pixels[:, 1 - along] = np.floor(start[1 - along] + slope * steps + 0.5)
    return np.concatenate([pixels, np.floor(end + 0.5)[None]]).astype(int)
