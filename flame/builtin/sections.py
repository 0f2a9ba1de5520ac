"""The bare head: horizontal sections of skull, face, jaw and neck, and the grid that is laid over them.

Conventions: metres; x to the viewer's right (the person's left), y up, z towards the viewer; the origin lies between the
eyes and the nose's base, inside the face. Only the half x >= 0 is built: the other is its mirror image. A section is two
quarter superellipses, front and back, that meet where the head is widest; its plane may rise from the front to the side
and to the back, so that sections below the mouth follow the border of the jaw.
"""

import numpy as np

from .measures import Measures

# One line a section, from the crown down. Heights at the front, side and back; depth of the front, of the widest place
# and of the back; half width; exponents of the front and the back quarter; grid rows down to the next section.
_SECTIONS = np.array(
    [
        # y_f     y_s     y_b     z_f     z_w     z_b     w      n_f   n_b   rows
        [0.1420, 0.1420, 0.1420, -0.0400, -0.0400, -0.0400, 0.0000, 2.00, 2.00, 2],  # crown
        [0.1365, 0.1370, 0.1360, -0.0020, -0.0400, -0.0790, 0.0330, 2.00, 2.00, 2],
        [0.1230, 0.1220, 0.1180, 0.0250, -0.0430, -0.1090, 0.0560, 2.05, 2.00, 2],
        [0.1040, 0.1020, 0.0980, 0.0440, -0.0460, -0.1250, 0.0690, 2.15, 2.05, 2],
        [0.0840, 0.0820, 0.0780, 0.0550, -0.0480, -0.1330, 0.0748, 2.25, 2.10, 3],  # hairline
        [0.0640, 0.0630, 0.0600, 0.0600, -0.0460, -0.1360, 0.0755, 2.30, 2.10, 4],
        [0.0460, 0.0460, 0.0440, 0.0615, -0.0420, -0.1350, 0.0735, 2.25, 2.10, 9],  # brows
        [0.0275, 0.0275, 0.0275, 0.0520, -0.0380, -0.1300, 0.0712, 2.15, 2.10, 7],  # eye line
        [0.0100, 0.0100, 0.0100, 0.0525, -0.0360, -0.1215, 0.0705, 2.15, 2.10, 6],
        [-0.008, -0.0070, -0.0090, 0.0565, -0.0340, -0.1120, 0.0680, 2.15, 2.10, 6],
        [-0.021, -0.0190, -0.0240, 0.0605, -0.0320, -0.1050, 0.0645, 2.10, 2.10, 8],  # base of the nose
        [-0.041, -0.0345, -0.0440, 0.0605, -0.0280, -0.0980, 0.0592, 2.00, 2.10, 6],  # mouth line
        [-0.056, -0.0440, -0.0550, 0.0545, -0.0240, -0.0950, 0.0562, 2.00, 2.10, 4],  # fold under the lip
        [-0.071, -0.0520, -0.0660, 0.0555, -0.0210, -0.0935, 0.0538, 1.95, 2.10, 4],  # chin
        [-0.0875, -0.0600, -0.0770, 0.0460, -0.0200, -0.0930, 0.0500, 1.90, 2.10, 2],  # border of the jaw
        [-0.0925, -0.0690, -0.0880, 0.0260, -0.0260, -0.0930, 0.0470, 1.95, 2.10, 2],
        [-0.0985, -0.0840, -0.0990, 0.0070, -0.0420, -0.0940, 0.0475, 2.05, 2.10, 2],  # throat
        [-0.1250, -0.1200, -0.1250, -0.0030, -0.0500, -0.0970, 0.0510, 2.10, 2.10, 2],
        [-0.1720, -0.1720, -0.1720, -0.0060, -0.0540, -0.1070, 0.0580, 2.10, 2.10, 0],  # open end of the neck
    ]
)
_FIRST_ROWS = np.concatenate([[0], np.cumsum(_SECTIONS[:-1, -1])]).astype(int)
BROW_ROW, EYE_ROW, NOSE_ROW, MOUTH_ROW, CHIN_ROW, JAW_ROW, THROAT_ROW = _FIRST_ROWS[[6, 7, 10, 11, 13, 14, 16]].tolist()
N_ROWS = int(_FIRST_ROWS[-1]) + 1

# Columns as sin(phi), phi the angle from the front; the eye's and mouth's corners lie on columns of their own.
_EYE_INNER, _MOUTH_CORNER, _EYE_OUTER, _CHEEK = 0.236, 0.448, 0.664, 0.80
INNER_COL, MOUTH_COL, OUTER_COL, CHEEK_COL, SIDE_COL = 6, 11, 16, 18, 25
_PHI = np.concatenate(
    [
        np.arcsin(
            np.interp(
                np.arange(CHEEK_COL),
                [0, INNER_COL, MOUTH_COL, OUTER_COL, CHEEK_COL],
                [0, _EYE_INNER, _MOUTH_CORNER, _EYE_OUTER, _CHEEK],
            )
        ),
        np.linspace(np.arcsin(_CHEEK), np.pi / 2, SIDE_COL - CHEEK_COL, endpoint=False),
        np.linspace(np.pi / 2, np.pi, 10),
    ]
)
N_COLS = len(_PHI)


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


def bell(x: np.ndarray, centre: float, radius: float) -> np.ndarray:
    """exp(−((x − centre) / radius)² / 2)."""
    return np.exp(-0.5 * ((x - centre) / radius) ** 2)


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high` (or the other way round), a smooth cubic between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def bare_head(m: Measures) -> np.ndarray:
    """Half of the head without features, `[N_ROWS, N_COLS, 3]` in metres; row 0 is the crown, column 0 the face's middle."""
    table = smooth_curve(_FIRST_ROWS.astype(float), _SECTIONS[:, :-1], np.arange(N_ROWS, dtype=float))
    y_f, y_s, y_b, z_f, z_w, z_b, w, n_f, n_b = (column[:, None] for column in table.T)
    sin, cos = np.abs(np.sin(_PHI)), np.cos(_PHI)
    sin[-1] = 0.0
    front = cos >= 0
    n = np.where(front, n_f, n_b)
    # x = w sin(phi), |x / w|^n + |(z − z_w) / depth|^n = 1
    reach = (1 - np.minimum(sin, 1) ** n) ** (1 / n)
    z = z_w + np.where(front, z_f - z_w, z_b - z_w) * reach
    rise = np.where(front, (y_s - y_f) * (1 - cos), (y_s - y_f) + (y_b - y_s) * -cos)
    return np.stack([w * sin, y_f + rise, z], axis=-1)
