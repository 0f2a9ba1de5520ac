"""The relief of the face over its grid: bones, nose, lips and eyelids, as functions of the measures.

Conventions: those of `sections.py`; x, y, z and front are grids of the half x >= 0; front is 1 on the face and 0 behind the
ears. The face is a height field over (x, y): a feature is either a bump that is added to z, or a body whose front is merged
into z by a smooth maximum. Each function takes z and returns it with its feature added.
"""

import numpy as np

from ...shapes import Float
from .anthropometry import Measures
from .curves import Grid, bell, blob, dome, smooth_max, smoothstep
from .lines import brow_line, lip_thickness
from .sections import MOUTH_COL

LID = 0.0013
"""Thickness of the eyelids at their edge."""
NOSE_BASE = -0.0205
"""Height of the average nose's base."""


def eye_centre(m: Measures) -> Float[np.ndarray, "3"]:
    """Return the centre of the eyeball: slightly above the line between the corners of the eye and nearer to the nose."""
    return np.array([m.eye_x - 0.0006, m.eye_y + 0.0006, m.eye_z])


def bones(m: Measures, x: Grid, y: Grid, z: Grid, front: Grid) -> Grid:
    """Add bones and soft parts: brow ridge, orbit, cheekbone, cheek and chin."""
    arch = brow_line(m, x) - 0.0025
    z = z + front * m.brow_ridge * bell(y, arch, 0.0055) * bell(x, 0.026, 0.016)
    z = z - front * 0.0085 * blob(x, y, m.eye_x, 0.0335, 0.0165, 0.0070)
    z = z - front * 0.0075 * blob(x, y, 0.0180, 0.0290, 0.0055, 0.0080)
    z = z + m.cheekbones * blob(x, y, 0.0460, 0.0060, 0.0130, 0.0100) * front
    z = z + m.cheeks * blob(x, y, 0.0400, -0.0280, 0.0160, 0.0170) * front
    z = z - 0.0022 * blob(x, y, 0.0440, -0.0330, 0.0100, 0.0140) * front
    z = z + m.chin_out * blob(x, y, 0.0, -0.0720, m.chin_width, 0.0105) * front
    return z - 0.0042 * blob(x, y, 0.0, -0.0565, 0.0170, 0.0045) * front


def nose(m: Measures, x: Grid, y: Grid, z: Grid) -> Grid:
    """Add the bridge, tip, wings, columella and nostrils."""
    base = NOSE_BASE - 0.6 * (m.nose_length - Measures.nose_length)
    tip_y = base + 0.0085 + m.nose_lift
    top = base + m.nose_length
    tip_z = 0.0622 + m.nose_tip
    # ridge: root, rhinion, above the tip
    u = np.clip((top + 0.004 - y) / (top + 0.004 - tip_y), 0, 1.2)
    root_z = 0.0555 + m.nose_bridge
    ridge = root_z + (tip_z - 0.0025 - root_z) * u**1.12 + (0.0016 + 0.6 * m.nose_bridge) * np.sin(np.pi * np.clip(u, 0, 1))
    roof = 0.0035 + 0.0012 * u
    steep = 1.55 - 0.40 * u
    bridge = ridge - steep * (np.sqrt(x**2 + roof**2) - roof)
    bridge = bridge - 0.06 * smoothstep(y, top + 0.002, top + 0.016) - 0.05 * smoothstep(y, tip_y - 0.001, base - 0.006)
    bridge = bridge - 60.0 * np.maximum(x - 0.013, 0) ** 2
    out = smooth_max(z, bridge, 0.0075 - 0.0035 * u)
    tip = dome(x, y, 0, tip_y - 0.0004, tip_z - 0.0090, 0.0086, 0.0080, 0.0090)
    out = smooth_max(out, tip, 0.0032)
    wing = dome(x, y, m.nose_width - 0.0062, base + 0.0082, 0.0615, 0.0064, 0.0072, 0.0105)
    out = smooth_max(out, wing, 0.0030)
    columella = dome(x, y, 0, base + 0.0050, 0.0640, 0.0042, 0.0066, 0.0095)
    out = smooth_max(out, columella, 0.0030)
    crease = blob(x, y, m.nose_width + 0.0020, base + 0.0085, 0.0020, 0.0055)
    crease = crease + 0.6 * blob(x, y, m.nose_width - 0.0065, base + 0.0150, 0.0040, 0.0016)
    nostril = blob(x, y, m.nose_width * 0.42, base + 0.0030, 0.0026, 0.0022)
    out = out - 0.0018 * crease - 0.0050 * nostril
    return z + (out - z) * smoothstep(y, base - 0.011, base - 0.004) * smoothstep(y, top + 0.022, top + 0.006)


def lips(m: Measures, x: Grid, y: Grid, z: Grid, front: Grid, slit: Float[np.ndarray, " C"]) -> Grid:
    """Add the lips around the `slit`, given by its heights, and the philtrum."""
    up, down = lip_thickness(m, x)
    d = y - slit
    edge = np.clip(1 - (x / (m.mouth_width * 1.02)) ** 2, 0, 1)
    a, b = d / np.maximum(up, 1e-4), -d / np.maximum(down, 1e-4)
    full = m.lip_fullness * np.sqrt(edge)
    upper = np.where(d >= 0, np.sin(np.pi * np.clip(a * 0.62 + 0.05, 0, 1)) * (a < 1.55), 0)
    lower = np.where(d <= 0, np.sin(np.pi * np.clip(b * 0.66 + 0.05, 0, 1)) * (b < 1.5), 0)
    z = z + front * full * (0.0046 * upper + 0.0054 * lower)
    # the line between the lips lies deeper, and the corners are drawn in
    z = z - front * 0.0026 * bell(d, 0, 0.0016) * np.sqrt(edge)
    z = z - front * 0.0020 * blob(x, y, m.mouth_width * 1.12, slit[MOUTH_COL], 0.0050, 0.0050)
    # muzzle: the teeth push the lips forwards
    z = z + front * 0.0022 * blob(x, y, 0.0, slit[0], 0.0200, 0.0160)
    philtrum = bell(y, 0.5 * (slit[0] + up[:, :1] - 0.0205), 0.0055)
    return z - front * 0.0013 * bell(x, 0, 0.0024) * philtrum + front * 0.0006 * bell(x, 0.0052, 0.0018) * philtrum


def lids(m: Measures, x: Grid, y: Grid, z: Grid) -> Grid:
    """Add the eyelids over the eyeball."""
    r = m.eye_radius + LID
    cx, cy, cz = eye_centre(m)
    z = smooth_max(z, dome(x, y, cx, cy, cz, r, r, r), 0.0022)
    crease = blob(x, y, m.eye_x + 0.001, m.eye_y + m.upper_lid + 0.0062, 0.0120, 0.0011)
    return z - 0.0010 * crease
