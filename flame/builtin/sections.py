"""The bare head: horizontal sections of skull, face, jaw and neck, and the grid over them.

Conventions: metres; x to the viewer's right (the person's left), y up, z towards the viewer; the origin lies between the
eyes and the base of the nose, inside the face. Only the half x >= 0 is built; the other half is its mirror image. A section
consists of two quarter superellipses, front and back, that meet where the head is widest. Its plane may rise from the front
to the side and to the back, so that sections below the mouth follow the border of the jaw.
"""

import numpy as np

from ...shapes import Float
from .anthropometry import Measures
from .curves import Values, bell, smooth_curve, smoothstep

# One line per section, from the crown down. Heights at the front, side and back; depth of the front, of the widest place
# and of the back; half width; exponents of the front and the back quarter; grid rows down to the next section.
_SECTIONS = np.array(
    [
        # y_f     y_s     y_b     z_f     z_w     z_b     w      n_f   n_b   rows
        [0.1420, 0.1420, 0.1420, -0.0400, -0.0400, -0.0400, 0.0000, 2.00, 2.00, 2],  # crown
        [0.1370, 0.1375, 0.1360, -0.0030, -0.0410, -0.0790, 0.0330, 2.00, 2.00, 2],
        [0.1240, 0.1230, 0.1185, 0.0245, -0.0440, -0.1090, 0.0560, 2.05, 2.00, 2],
        [0.1045, 0.1025, 0.0980, 0.0440, -0.0465, -0.1255, 0.0690, 2.15, 2.05, 2],
        [0.0840, 0.0820, 0.0780, 0.0550, -0.0475, -0.1335, 0.0746, 2.25, 2.10, 3],  # hairline
        [0.0640, 0.0630, 0.0600, 0.0600, -0.0460, -0.1365, 0.0755, 2.30, 2.10, 4],
        [0.0460, 0.0460, 0.0445, 0.0612, -0.0435, -0.1350, 0.0744, 2.25, 2.10, 9],  # brows
        [0.0275, 0.0275, 0.0275, 0.0580, -0.0405, -0.1300, 0.0727, 2.18, 2.10, 7],  # eye line
        [0.0100, 0.0100, 0.0100, 0.0565, -0.0375, -0.1225, 0.0708, 2.15, 2.10, 6],
        [-0.0080, -0.0070, -0.0090, 0.0580, -0.0345, -0.1135, 0.0680, 2.12, 2.10, 8],
        [-0.0210, -0.0190, -0.0240, 0.0605, -0.0320, -0.1055, 0.0646, 2.08, 2.10, 9],  # base of the nose
        [-0.0410, -0.0345, -0.0440, 0.0602, -0.0280, -0.0985, 0.0594, 2.00, 2.10, 6],  # mouth line
        [-0.0560, -0.0440, -0.0550, 0.0580, -0.0250, -0.0950, 0.0562, 2.00, 2.10, 4],  # fold under the lip
        [-0.0710, -0.0520, -0.0655, 0.0550, -0.0230, -0.0935, 0.0537, 1.95, 2.10, 4],  # chin
        [-0.0875, -0.0605, -0.0770, 0.0460, -0.0225, -0.0928, 0.0508, 1.90, 2.10, 2],  # border of the jaw
        [-0.0925, -0.0705, -0.0880, 0.0260, -0.0310, -0.0928, 0.0489, 1.95, 2.10, 2],
        [-0.0985, -0.0845, -0.0990, 0.0080, -0.0400, -0.0935, 0.0468, 2.05, 2.10, 2],  # throat
        [-0.1250, -0.1200, -0.1250, -0.0020, -0.0460, -0.0970, 0.0460, 2.10, 2.10, 2],
        [-0.1720, -0.1720, -0.1720, -0.0060, -0.0520, -0.1080, 0.0555, 2.10, 2.10, 0],  # open end of the neck
    ]
)
_FIRST_ROWS = np.concatenate([[0], np.cumsum(_SECTIONS[:-1, -1])]).astype(int)
BROW_ROW, EYE_ROW, MOUTH_ROW, JAW_ROW, THROAT_ROW = _FIRST_ROWS[[6, 7, 11, 14, 16]].tolist()
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
        np.linspace(np.pi / 2, np.pi, 9),
    ]
)
N_COLS = len(_PHI)


def widening(m: Measures, y: Values) -> np.ndarray:
    """Return the head's width as a multiple of the average, at each height `y` of the average head."""
    return np.asarray(
        (1 + (m.skull_width - 1) * smoothstep(y, 0.025, 0.070))
        * (1 + (m.face_width - 1) * bell(y, 0.000, 0.028))
        * (1 + (m.jaw_width - 1) * bell(y, -0.068, 0.022))
        * (1 + (m.neck_width - 1) * smoothstep(y, -0.086, -0.105))
    )


def bare_head(m: Measures) -> Float[np.ndarray, "R C 3"]:
    """Build half of the head without features, in metres; row 0 is the crown, column 0 the middle of the face."""
    table = smooth_curve(_FIRST_ROWS.astype(float), _SECTIONS[:, :-1], np.arange(N_ROWS, dtype=float))
    y_f, y_s, y_b, z_f, z_w, z_b, w, n_f, n_b = (column[:, None] for column in table.T)
    w = w * widening(m, y_f)
    deep = 1 + (m.skull_depth - 1) * smoothstep(y_f, -0.030, 0.030) + (m.neck_width - 1) * smoothstep(y_f, -0.086, -0.105)
    z_b = z_w + (z_b - z_w) * deep
    z_f = z_f - m.forehead_slope * smoothstep(y_f, 0.055, 0.110) * smoothstep(y_f, 0.142, 0.120)
    longer = m.chin_length * smoothstep(y_f, -0.050, -0.085) * smoothstep(y_f, -0.165, -0.105)
    lower = m.jaw_angle * bell(y_f, -0.068, 0.020)
    above = (m.skull_height - 1) * np.maximum(y_f - 0.050, 0)
    y_f, y_s, y_b = y_f - longer + above, y_s - 0.4 * longer - lower + above, y_b + above
    sin, cos = np.abs(np.sin(_PHI)), np.cos(_PHI)
    sin[-1] = 0.0
    front = cos >= 0
    n = np.where(front, n_f, n_b)
    # x = w sin(phi), |x / w|^n + |(z - z_w) / depth|^n = 1
    reach = (1 - np.minimum(sin, 1) ** n) ** (1 / n)
    z = z_w + np.where(front, z_f - z_w, z_b - z_w) * reach
    rise = np.where(front, (y_s - y_f) * (1 - cos), (y_s - y_f) + (y_b - y_s) * -cos)
    return np.stack([w * sin, y_f + rise, z], axis=-1)
