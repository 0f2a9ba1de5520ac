"""The features of the face: everything that `sections.bare_head` lacks, as functions of the measures.

Conventions: those of `sections.py`; arrays are grids `[N_ROWS, N_COLS]` of the half x >= 0. The front of the face is a
height field over (x, y): a feature is either a bump that is added to z, or a body whose front is merged into it by a
smooth maximum. Heights above a line are counted up from it.
"""

import numpy as np

from .measures import Measures
from .sections import EYE_ROW, INNER_COL, MOUTH_COL, MOUTH_ROW, OUTER_COL, bare_head, bell, smoothstep

LID = 0.0013
"""Thickness of the eyelids at their edge."""


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


def brow_line(m: Measures, x: np.ndarray) -> np.ndarray:
    """Height of the brow's middle at each x >= 0."""
    return 0.0490 + m.brow_height - 0.0065 * ((x - 0.034) / 0.022) ** 2 + 0.0012 * smoothstep(x, 0.034, 0.016)


def lid_lines(m: Measures, x: np.ndarray, shut: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heights of the closed eye's line and of the upper and lower lid's edges over it, at each x.

    `shut` says how far each lid has gone from its place to where they meet.
    """
    t = (x - (m.eye_x - m.eye_width / 2)) / m.eye_width
    line = m.eye_y + m.eye_tilt * (t - 0.5)
    t = np.clip(t, 0, 1)
    arch_u, arch_l = (4 * t**0.86 * (1 - t**0.86)) ** 0.62, (4 * t**1.25 * (1 - t**1.25)) ** 0.68
    upper, lower = m.upper_lid * arch_u, -m.lower_lid * arch_l
    meet = 0.6 * lower
    return line, upper + shut[0] * (meet - upper), lower + shut[1] * (meet - lower)


def mouth_line(m: Measures, x: np.ndarray) -> np.ndarray:
    """Height of the line between the lips over its corners' height."""
    t = x / m.mouth_width
    return 0.0010 * (1 - t**2) - 0.0013 * bell(x, 0, 0.0045) - 0.0012 * (1 - t**2) * smoothstep(t, 0.3, 0.8)


def lip_thickness(m: Measures, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights of the red of the upper and lower lip at each x; 0 beyond the mouth's corners."""
    t = np.clip(np.abs(x) / (m.mouth_width * 1.03), 0, 1)
    bow = 1 - 0.14 * bell(x, 0, 0.0028) + 0.06 * bell(np.abs(x), 0.0065, 0.003)
    return m.upper_lip * bow * (1 - t**1.7) ** 0.9, m.lower_lip * (1 - t**2.2) ** 0.8


def skin(m: Measures, shut: tuple[float, float] = (0.0, 0.0), lower: bool = False) -> np.ndarray:
    """Half of the head's skin with all its features, `[N_ROWS, N_COLS, 3]` metres.

    The slits of eye and mouth lie on EYE_ROW and MOUTH_ROW; there the edge that belongs to the skin above is given, or,
    with `lower`, the one that belongs to the skin below. `shut` is how far the upper and the lower lid are closed, 0 to 1.
    """
    p = bare_head(m)
    x, y, z = (p[..., i].copy() for i in range(3))
    row = np.arange(len(x))[:, None]
    front = smoothstep(z, -0.03, 0.0)

    # the grid's lines go where the eyes and the mouth are
    span = x[EYE_ROW, OUTER_COL] - x[EYE_ROW, INNER_COL]
    middle = 0.5 * (x[EYE_ROW, OUTER_COL] + x[EYE_ROW, INNER_COL])
    near = np.minimum(1.6 * bell(x, middle, 0.5 * span), 1) * bell(y, y[EYE_ROW, 0], 0.016) * front
    x = x + near * (m.eye_x + (x - middle) * m.eye_width / span - x)
    x[:, 0] = 0
    below = y - y[EYE_ROW, :1]
    line, upper, under = lid_lines(m, x, shut)
    y = y + (line - y[EYE_ROW, 0]) * bell(below, 0, 0.02) * front * bell(x, m.eye_x, 0.02)
    at = np.abs(below)
    shift = np.where((row < EYE_ROW) | ((row == EYE_ROW) & (not lower)), upper, under)
    reach = np.where(row <= EYE_ROW, 0.0165, 0.0155)
    y = y + shift * np.clip(1 - at / reach, 0, 1) ** 2 * front

    across = y - y[MOUTH_ROW, :1]
    x = x * (1 + (m.mouth_width / x[MOUTH_ROW, MOUTH_COL] - 1) * bell(across, 0, 0.014) * front)
    y = (
        y
        + ((m.mouth_y - y[MOUTH_ROW, 0]) + mouth_line(m, np.minimum(x, m.mouth_width)) * bell(across, 0, 0.006))
        * bell(across, 0, 0.018)
        * front
    )

    z = _relief(m, x, y, z, front)
    z = z + front * (_nose(m, x, y, z) - z)
    z = _lips(m, x, y, z, y[MOUTH_ROW], front)
    z = z + front * (_eyes(m, x, y, z) - z)
    return np.stack([x, y, z], axis=-1)


def _relief(m: Measures, x, y, z, front) -> np.ndarray:
    """Bones and soft parts: brow ridge, orbit, cheekbone, cheek, chin."""
    arch = brow_line(m, x) - 0.0025
    z = z + front * m.brow_ridge * bell(y, arch, 0.0055) * bell(x, 0.026, 0.016)
    z = z - front * 0.0075 * blob(x, y, m.eye_x, 0.0300, 0.0165, 0.0085)
    z = z - front * 0.0065 * blob(x, y, 0.0185, 0.0290, 0.0060, 0.0085)
    z = z + m.cheekbones * blob(x, y, 0.0460, 0.0060, 0.0130, 0.0100) * front
    z = z + m.cheeks * blob(x, y, 0.0400, -0.0280, 0.0160, 0.0170) * front
    z = z - 0.0022 * blob(x, y, 0.0440, -0.0330, 0.0100, 0.0140) * front
    z = z + m.chin_out * blob(x, y, 0.0, -0.0720, m.chin_width, 0.0105) * front
    return z - 0.0022 * blob(x, y, 0.0, -0.0560, 0.0160, 0.0042) * front


def _nose(m: Measures, x, y, z) -> np.ndarray:
    base = -0.0205
    tip_y = base + 0.0085 + m.nose_lift
    top = base + m.nose_length
    tip_z = 0.0622 + m.nose_tip
    # ridge: root, rhinion, above the tip
    u = np.clip((top + 0.004 - y) / (top + 0.004 - tip_y), 0, 1.2)
    root_z = 0.0555 + m.nose_bridge
    ridge = root_z + (tip_z - 0.0025 - root_z) * u**1.12 + (0.0016 + 0.6 * m.nose_bridge) * np.sin(np.pi * np.clip(u, 0, 1))
    roof = 0.0035 + 0.0012 * u
    steep = 1.25 - 0.15 * u
    bridge = ridge - steep * (np.sqrt(x**2 + roof**2) - roof)
    bridge = bridge - 0.06 * smoothstep(y, top + 0.002, top + 0.016) - 0.05 * smoothstep(y, tip_y - 0.001, base - 0.006)
    bridge = bridge - 60.0 * np.maximum(x - 0.013, 0) ** 2
    nose = smooth_max(z, bridge, 0.0040)
    tip = dome(x, y, 0, tip_y, tip_z - 0.0090, 0.0088, 0.0078, 0.0090)
    nose = smooth_max(nose, tip, 0.0025)
    wing = dome(x, y, m.nose_width - 0.0058, base + 0.0068, 0.0610, 0.0060, 0.0066, 0.0105)
    nose = smooth_max(nose, wing, 0.0022)
    columella = dome(x, y, 0, base + 0.0035, 0.0640, 0.0036, 0.0060, 0.0095)
    nose = smooth_max(nose, columella, 0.0020)
    crease = blob(x, y, m.nose_width + 0.0022, base + 0.0070, 0.0022, 0.0050)
    nostril = blob(x, y, m.nose_width * 0.42, base + 0.0030, 0.0026, 0.0019)
    nose = nose - 0.0016 * crease - 0.0050 * nostril
    return z + (nose - z) * smoothstep(y, base - 0.011, base - 0.004) * smoothstep(y, top + 0.022, top + 0.006)


def _lips(m: Measures, x, y, z, slit: np.ndarray, front) -> np.ndarray:
    up, down = lip_thickness(m, x)
    d = y - slit
    edge = np.clip(1 - (x / (m.mouth_width * 1.02)) ** 2, 0, 1)
    a, b = d / np.maximum(up, 1e-4), -d / np.maximum(down, 1e-4)
    full = m.lip_fullness * np.sqrt(edge)
    upper = np.where(d >= 0, np.sin(np.pi * np.clip(a * 0.62 + 0.05, 0, 1)) * (a < 1.55), 0)
    lower = np.where(d <= 0, np.sin(np.pi * np.clip(b * 0.66 + 0.05, 0, 1)) * (b < 1.5), 0)
    z = z + front * full * (0.0046 * upper + 0.0054 * lower)
    # the line between the lips lies deeper, the corners are drawn in
    z = z - front * 0.0026 * bell(d, 0, 0.0016) * np.sqrt(edge)
    z = z - front * 0.0020 * blob(x, y, m.mouth_width * 1.12, slit[MOUTH_COL], 0.0050, 0.0050)
    # muzzle: the teeth carry the lips
    z = z + front * 0.0022 * blob(x, y, 0.0, slit[0], 0.0200, 0.0160)
    philtrum = bell(y, 0.5 * (slit[0] + up[:, :1] - 0.0205), 0.0055)
    return z - front * 0.0013 * bell(x, 0, 0.0024) * philtrum + front * 0.0006 * bell(x, 0.0052, 0.0018) * philtrum


def _eyes(m: Measures, x, y, z) -> np.ndarray:
    r = m.eye_radius + LID
    ball = dome(x, y, m.eye_x, m.eye_y + 0.0006, m.eye_z, r, r, r)
    lids = smooth_max(z, ball, 0.0022)
    crease = blob(x, y, m.eye_x + 0.001, m.eye_y + m.upper_lid + 0.0062, 0.0120, 0.0011)
    return lids - 0.0010 * crease
