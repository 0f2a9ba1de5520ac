"""Lines on the face that both its surface and its texture follow: brows, lids and lips.

Conventions: metres on the front of the face, for x >= 0; x may have any shape.
"""

import numpy as np

from .anthropometry import Measures
from .curves import bell, smoothstep


def brow_line(m: Measures, x: np.ndarray) -> np.ndarray:
    """Return the height of the brow's middle at each x."""
    return np.asarray(0.0490 + m.brow_height - 0.0065 * ((x - 0.034) / 0.022) ** 2 + 0.0012 * smoothstep(x, 0.034, 0.016))


def lid_lines(m: Measures, x: np.ndarray, shut: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the height of the closed eye's line, and of the upper and lower lid's edge relative to it, at each x.

    Args:
        m: Measures of the head.
        x: Where on the face.
        shut: How far the upper and the lower lid are closed, 0 (open) to 1 (where they meet).
    """
    t = (x - (m.eye_x - m.eye_width / 2)) / m.eye_width
    line = m.eye_y + m.eye_tilt * (t - 0.5)
    t = np.clip(t, 0, 1)
    arch_u, arch_l = (4 * t**0.86 * (1 - t**0.86)) ** 0.62, (4 * t**1.25 * (1 - t**1.25)) ** 0.68
    upper, lower = m.upper_lid * arch_u, -m.lower_lid * arch_l
    meet = 0.6 * lower
    return line, upper + shut[0] * (meet - upper), lower + shut[1] * (meet - lower)


def mouth_line(m: Measures, x: np.ndarray) -> np.ndarray:
    """Return the height of the line between the lips relative to the corners of the mouth."""
    t = x / m.mouth_width
    return 0.0010 * (1 - t**2) - 0.0013 * bell(x, 0, 0.0045) - 0.0012 * (1 - t**2) * smoothstep(t, 0.3, 0.8)


def lip_thickness(m: Measures, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the heights of the red of the upper and the lower lip at each x; 0 beyond the corners of the mouth."""
    t = np.clip(np.abs(x) / (m.mouth_width * 1.03), 0, 1)
    bow = 1 - 0.14 * bell(x, 0, 0.0028) + 0.06 * bell(np.abs(x), 0.0065, 0.003)
    return np.asarray(m.upper_lip * bow * (1 - t**1.7) ** 0.9), np.asarray(m.lower_lip * (1 - t**2.2) ** 0.8)
