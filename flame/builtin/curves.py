"""Curves and bumps that the built-in head is made of.

Conventions: plain numpy, elementwise and broadcasting; lengths in metres.
"""

import numpy as np


def smooth_curve(knots: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolate `values [K, ...]` at `knots [K]` by a monotone cubic (Fritsch and Butland's slopes) `at [N]`."""
    width = np.diff(knots)
    shape = (-1,) + (1,) * (values.ndim - 1)
    width_ = width.reshape(shape)
    secant = np.diff(values, axis=0) / width_
    left, right = secant[:-1], secant[1:]
    w_left, w_right = 2 * width_[1:] + width_[:-1], width_[1:] + 2 * width_[:-1]
    same = left * right > 0
    harmonic = (w_left + w_right) / (w_left / np.where(same, left, 1) + w_right / np.where(same, right, 1))
    slope = np.concatenate([secant[:1], np.where(same, harmonic, 0), secant[-1:]])
    i = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(width) - 1)
    h, t = width[i].reshape(shape), ((at - knots[i]) / width[i]).reshape(shape)
    # cubic Hermite
    return (
        (1 + 2 * t) * (1 - t) ** 2 * values[i]
        + t * (1 - t) ** 2 * h * slope[i]
        + t**2 * (3 - 2 * t) * values[i + 1]
        + t**2 * (t - 1) * h * slope[i + 1]
    )


def bell(x: np.ndarray, centre: float | np.ndarray, radius: float) -> np.ndarray:
    """exp(-((x - centre) / radius)² / 2)."""
    return np.exp(-0.5 * ((x - centre) / radius) ** 2)


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high` (or the other way round), a smooth cubic between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def smooth_max(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """The greater of two surfaces, rounded over a width of about `k`."""
    return 0.5 * (a + b + np.sqrt((a - b) ** 2 + k * k))


def blob(x, y, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    """A Gaussian bump of height 1 over the face."""
    return bell(x, cx, rx) * bell(y, cy, ry)


def dome(x, y, cx: float, cy: float, cz: float, rx: float, ry: float, rz: float) -> np.ndarray:
    """The front of an ellipsoid as a height field; far below the face outside of it."""
    inside = 1 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2
    return np.where(inside > 0, cz + rz * np.sqrt(np.maximum(inside, 0)), cz + 4 * rz * np.minimum(inside, 0))
