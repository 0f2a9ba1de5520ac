"""Curves and bumps that the built-in head is made of.

Conventions: plain numpy, elementwise with broadcasting; lengths in metres.
"""

import numpy as np

from ...shapes import Float

Values = np.ndarray | float
"""An array of any shape, or one number."""
Grid = Float[np.ndarray, "R C"]
"""Values over a grid of points, such as one coordinate of the half x >= 0."""


def smooth_curve(
    knots: Float[np.ndarray, " K"], values: Float[np.ndarray, "K *size"], at: Float[np.ndarray, " N"]
) -> Float[np.ndarray, "N *size"]:
    """Interpolate `values` given at `knots` by a monotone cubic with Fritsch and Butland's slopes, evaluated `at` places."""
    width = np.diff(knots)
    shape = (-1,) + (1,) * (values.ndim - 1)
    gap = width.reshape(shape)
    secant = np.diff(values, axis=0) / gap
    left, right = secant[:-1], secant[1:]
    w_left, w_right = 2 * gap[1:] + gap[:-1], gap[1:] + 2 * gap[:-1]
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


def bell(x: Values, centre: Values, radius: Values) -> np.ndarray:
    """Return the Gaussian `exp(-((x - centre) / radius)² / 2)`."""
    return np.asarray(np.exp(-0.5 * ((x - centre) / radius) ** 2))


def smoothstep(x: Values, low: Values, high: Values) -> np.ndarray:
    """Return 0 below `low`, 1 above `high` and a smooth cubic between; the reverse if `low` is greater."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def smooth_max(a: np.ndarray, b: np.ndarray, k: Values) -> np.ndarray:
    """Return the greater of two surfaces, rounded over a width of about `k`."""
    return 0.5 * (a + b + np.sqrt((a - b) ** 2 + k * k))


def blob(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    """Return a Gaussian bump of height 1 over the face."""
    return bell(x, cx, rx) * bell(y, cy, ry)


def dome(x: np.ndarray, y: np.ndarray, cx: float, cy: float, cz: float, rx: float, ry: float, rz: float) -> np.ndarray:
    """Return the front of an ellipsoid as a height field. Outside the ellipsoid it falls far below the face."""
    inside = 1 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2
    return np.where(inside > 0, cz + rz * np.sqrt(np.maximum(inside, 0)), cz + 4 * rz * np.minimum(inside, 0))
