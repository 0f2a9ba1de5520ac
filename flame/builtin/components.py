"""The parts other than skin: eyeballs, lid rims, the inside of the mouth, teeth and ears.

Conventions: those of `sections.py`. Every part is a grid of points of the half x >= 0.
"""

import numpy as np

from ...shapes import Float
from .anthropometry import Measures
from .curves import bell, smoothstep
from .relief import LID, eye_centre
from .sections import widening

EYE_RINGS = np.radians([0, 9, 18, 27.5, 31, 44, 62, 90, 112, 140, 180])
"""Angles in radians between the gaze and the rings of the eyeball; the iris ends between the fourth and the fifth."""
EYE_SECTORS = 12
LID_RINGS = 2
MOUTH_RINGS = 8
EAR_RINGS, EAR_SECTORS = 10, 20


def eyeball(m: Measures) -> Float[np.ndarray, "rings sectors 3"]:
    """Build the eye as a sphere around its gaze (+z); the first and the last ring are single points."""
    turn = np.linspace(0, 2 * np.pi, EYE_SECTORS, endpoint=False)
    angle = EYE_RINGS[:, None]
    r = m.eye_radius * (1 + 0.030 * bell(angle, 0, np.radians(20)))  # the cornea stands out a little
    unit = np.stack(np.broadcast_arrays(np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)), -1)
    return unit * r[..., None] + eye_centre(m)


def lid_rims(m: Measures, edge: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "rings N 3"]:
    """Build the LID_RINGS rims that lead from the edge of the lids inwards and under the eyeball."""
    centre = eye_centre(m)
    away = edge - centre
    distance = np.linalg.norm(away, axis=-1, keepdims=True)
    touching = away / distance * (m.eye_radius + 0.25 * LID)
    hidden = away / distance * (m.eye_radius * 0.75)
    return centre + np.stack([touching, hidden])


def mouth_inside(edge: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "rings N 3"]:
    """Build the dark sack behind the edge of the lips as MOUTH_RINGS rings, from the upper to the lower lip.

    It has edges of its own, so its normals do not affect those of the lips.
    """
    #                 in     away from the line   narrower
    steps = np.array([[0, 0, 1.0], [0.0035, 0.0012, 1.0], [0.0110, 0.0060, 0.95], [0.0420, 0.0100, 0.80]])
    flat = 1 - 0.6 * smoothstep(np.arange(len(edge)) / len(edge), 0.3, 1.0)
    rings = []
    for sign, order in ((1, steps), (-1, steps[::-1])):
        for back, away, narrow in order:
            ring = edge * np.array([narrow, 1, 1]) - np.array([0, 0, back])
            ring[:, 1] += sign * away * flat
            rings.append(ring)
    return np.stack(rings)


def teeth(edge: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "4 N 3"]:
    """Build two rows of teeth behind the edge of the lips: gum and edge of the upper, edge and gum of the lower."""
    out = np.stack([edge] * 4) * np.array([0.94, 0, 1])
    out[..., 1] = edge[0, 1] + np.array([[0.0100], [-0.0010], [-0.0020], [-0.0085]])
    out[..., 2] -= np.array([[0.0085], [0.0080], [0.0100], [0.0115]])
    return out


def ear(m: Measures) -> Float[np.ndarray, "rings sectors 3"]:
    """Build the ear as a shell, from the concha over the helix to the back; ring 0 is one point.

    Sector 0 points to the back of the head; the next sectors go up.
    """
    turn = np.linspace(0, 2 * np.pi, EAR_SECTORS, endpoint=False)
    back, up = np.cos(turn), np.sin(turn)
    # outline, egg-shaped: the lobe is narrower than the top
    width = np.where(back > 0, 0.0185 * (1 + 0.22 * up), 0.0125)
    p_rim, q_rim = back * width * (1 - 0.10 * up**2), up * np.where(up > 0, 0.0300, 0.0320)
    reach = np.array([0.0, 0.28, 0.50, 0.64, 0.78, 0.90, 1.00, 1.00, 0.90, 0.55])[:, None]
    lobe = smoothstep(-up, 0.55, 0.95)
    fore = smoothstep(-back, -0.15, 0.80) * (1 - 0.6 * lobe)
    hollow = 1 - 0.75 * lobe
    # concha, its wall, antihelix, scapha, helix, rim, and the back down to the head
    relief = np.array([-0.0026, -0.0022, 0.0006, 0.0034, 0.0014, 0.0040, 0.0034, -0.0006, -0.0050, -0.0140])[:, None]
    front_side = np.arange(EAR_RINGS)[:, None] < 7
    height = relief * np.where(front_side, hollow, 1.0)
    height = height - np.where(front_side, 0.0080, 0.0040) * fore * reach**2  # the front blends into the cheek
    height = height - 0.0015 * lobe * reach
    tragus = bell(back, -1, 0.22) * bell(up, -0.12, 0.22) * bell(reach, 0.64, 0.16)
    height = height + 0.0045 * tragus
    p, q = reach * p_rim + 0.0030, reach * q_rim
    p, q, height = m.ear_size * p, m.ear_size * q, m.ear_size * height
    # axes of the ear: backwards and outwards, upwards and tilted backwards, and its normal
    flare, tilt = m.ear_flare, 0.20
    along = np.array([np.sin(flare), 0.0, -np.cos(flare)])
    normal = np.array([np.cos(flare), 0.0, np.sin(flare)])
    upward = np.array([0.17, np.cos(tilt), -np.sin(tilt)])
    origin = np.array([0.0742, 0.0105, -0.0430])
    origin[0] *= widening(m, origin[1])
    return origin + p[..., None] * along + q[..., None] * upward + height[..., None] * normal
