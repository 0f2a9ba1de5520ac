"""The surface of the skin: a grid that follows the features, and their relief.

Conventions: those of `sections.py`. The grid is moved first (eyes, brows, nose, mouth). The relief is then a function of the
moved points, so a feature that moves or grows takes its own points, and its texture, with it.
"""

import numpy as np

from ...shapes import Float
from .anthropometry import Measures
from .curves import Grid, bell, blob, smoothstep
from .lines import lid_lines, lip_thickness, mouth_line
from .relief import NOSE_BASE, bones, lids, lips, nose
from .sections import EYE_ROW, INNER_COL, MOUTH_COL, MOUTH_ROW, OUTER_COL, bare_head

_AVERAGE = Measures()
# The nose has edges finer than the grid, so its relief is averaged over four places around each point.
_SAMPLES = ((-4e-4, 9e-4), (9e-4, 4e-4), (4e-4, -9e-4), (-9e-4, -4e-4))


def skin_surface(m: Measures, shut: tuple[float, float] = (0.0, 0.0)) -> Float[np.ndarray, "R C 3"]:
    """Build half of the head's skin with all its features, in metres, R = N_ROWS + 1 and C = N_COLS.

    The eye is a slit along EYE_ROW. That row holds the edge of the upper lid; the additional last row holds that of the lower
    lid.

    Args:
        m: Measures of the head.
        shut: How far the upper and the lower lid are closed, 0 to 1.
    """
    bare = bare_head(m)
    x, y, z = np.moveaxis(np.concatenate([bare, bare[EYE_ROW : EYE_ROW + 1]]), -1, 0)
    front = smoothstep(z, -0.03, 0.0)
    x, y = _lay_eyes(m, x, y, front, shut)
    x, y = _lay_nose(m, x, y, front)
    x, y = _lay_mouth(m, x, y, front)

    z = bones(m, x, y, z, front)
    z = z + front * (sum(nose(m, x + dx, y + dy, z) for dx, dy in _SAMPLES) / len(_SAMPLES) - z)
    z = lips(m, x, y, z, front, y[MOUTH_ROW])
    z = z + front * (lids(m, x, y, z) - z)
    return np.stack([x, y, z], axis=-1)


def _lay_eyes(m: Measures, x: Grid, y: Grid, front: Grid, shut: tuple[float, float]) -> tuple[Grid, Grid]:
    row = np.arange(len(x))[:, None]
    start = y[EYE_ROW, 0]
    below = y - y[EYE_ROW, :1]
    # brows
    y = y + m.brow_height * blob(x, y, 0.030, 0.050, 0.026, 0.010) * smoothstep(below, 0.004, 0.016) * front
    # the columns of the corners
    span = x[EYE_ROW, OUTER_COL] - x[EYE_ROW, INNER_COL]
    middle = 0.5 * (x[EYE_ROW, OUTER_COL] + x[EYE_ROW, INNER_COL])
    near = np.minimum(1.6 * bell(x, middle, 0.5 * span), 1) * front
    x = x + near * bell(below, 0, 0.016) * (m.eye_x + (x - middle) * m.eye_width / span - x)
    x[:, 0] = 0
    # the row between the lids, then the lids' edges with the rows above and below them
    line, upper, under = lid_lines(m, x, shut)
    y = y + (line - start) * near * bell(below, 0, 0.02)
    above = row <= EYE_ROW
    shift, reach = np.where(above, upper, under), np.where(above, 0.0165, 0.0155)
    return x, y + shift * np.clip(1 - np.abs(below) / reach, 0, 1) ** 2 * front


def _lay_nose(m: Measures, x: Grid, y: Grid, front: Grid) -> tuple[Grid, Grid]:
    # longer: the base goes down, the root up
    t = (y - NOSE_BASE) / _AVERAGE.nose_length
    half_width = 0.016 - 0.010 * np.clip(t, 0, 1)
    beyond = np.maximum(np.abs(t - 0.5) - 0.5, 0) * _AVERAGE.nose_length
    near = bell(np.maximum(x - half_width, 0), 0, 0.006) * bell(beyond, 0, 0.009) * front
    x_scale = (m.nose_width / _AVERAGE.nose_width - 1) * bell(y, NOSE_BASE + 0.007, 0.010)
    wide = x + x * x_scale * bell(np.maximum(x - _AVERAGE.nose_width, 0), 0, 0.008) * front
    y = y + (m.nose_length - _AVERAGE.nose_length) * (np.clip(t, 0, 1) - 0.6) * near
    return wide, y + m.nose_lift * blob(x, y, 0, NOSE_BASE + 0.0085, 0.009, 0.008) * front


def _lay_mouth(m: Measures, x: Grid, y: Grid, front: Grid) -> tuple[Grid, Grid]:
    across = y - y[MOUTH_ROW]
    corner = x[MOUTH_ROW, MOUTH_COL]
    beyond = np.maximum(x - corner, 0)
    near = bell(across, 0, 0.014) * bell(beyond, 0, 0.012) * front
    x = x + near * np.minimum(x / corner, 1) * (m.mouth_width - corner)
    bow = mouth_line(m, np.minimum(x, m.mouth_width)) * bell(across, 0, 0.006)
    near = bell(across, 0, 0.018) * bell(beyond, 0, 0.020) * front
    y = y + (m.mouth_y - y[MOUTH_ROW, 0] + bow) * near
    # thicker lips push their borders away
    across = y - y[MOUTH_ROW]
    for side, now, average in zip((1, -1), lip_thickness(m, x), lip_thickness(_AVERAGE, x), strict=True):
        t = np.maximum(side * across, 0) / np.maximum(average, 1e-3)
        y = y + side * (now - average) * np.where(t < 1, t, bell(t, 1, 0.8)) * front
    return x, y
