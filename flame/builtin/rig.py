"""Joints and skinning weights of the built-in head.

Conventions: the joints are root, neck, jaw, left eye and right eye; left is the person's left, x > 0.
"""

import numpy as np

from ...shapes import Float, Int
from .components import EYE_RINGS
from .curves import bell, smoothstep
from .mesh import EAR, EYE, MOUTH, SKIN, Mesh
from .sections import JAW_ROW, MOUTH_COL, MOUTH_ROW, N_ROWS, THROAT_ROW

PARENTS = (-1, 0, 1, 1, 1)
_JAW_HINGE = np.array([0.067, -0.002, -0.022])


def jaw_weights(mesh: Mesh, half: Float[np.ndarray, "H 3"]) -> Float[np.ndarray, " H"]:
    """Return how far each half point follows the jaw, 0 to 1.

    Points below the mouth, and below the line from the mouth to the hinge, follow it.
    """
    x, y, z = half.T
    corner = half[mesh.upper[MOUTH_ROW, MOUTH_COL]]
    slit = half[mesh.upper[MOUTH_ROW, :MOUTH_COL]]
    line = np.interp(x, slit[:, 0], slit[:, 1], right=corner[1])
    back = np.clip((corner[2] - z) / (corner[2] - _JAW_HINGE[2]), 0, 1)
    line = line + (_JAW_HINGE[1] - corner[1]) * back**1.3
    below = np.zeros(mesh.count, bool)
    below[mesh.lower[MOUTH_ROW:]] = True
    below[mesh.upper[MOUTH_ROW]] = False
    below[mesh.mouth[len(mesh.mouth) // 2 :]] = True
    # On the lips the weight jumps across the slit; at the corner of the mouth both edges have one half.
    half_way = 0.5 * np.clip(x / corner[0], 0, 1) ** 4
    reach = 0.012 + 0.25 * np.maximum(x - corner[0], 0) + 0.10 * np.maximum(corner[2] - z, 0)
    inside = mesh.kind == MOUTH
    far = np.where(inside, 0, smoothstep(np.abs(line - y), 0, reach))
    weight = np.where(below, 1 - half_way * (1 - far), half_way * (1 - far))
    beyond = smoothstep(line - y, -reach, reach)
    weight = np.where(x < corner[0], weight, beyond)
    weight[inside] = np.where(below, 1 - half_way, half_way)[inside]
    weight = weight * smoothstep(z, -0.045, -0.012)
    row = np.full(mesh.count, 0.0)
    row[mesh.lower] = np.arange(N_ROWS)[:, None]
    weight = weight * smoothstep(row, THROAT_ROW, JAW_ROW)
    weight[mesh.teeth] = np.array([[0], [0], [1], [1]])
    weight[(mesh.kind == EYE) | (mesh.kind == EAR)] = 0
    return weight


def skinning(mesh: Mesh, half: Float[np.ndarray, "H 3"]) -> Float[np.ndarray, "V 5"]:
    """Return the skinning weights; rows sum to 1."""
    jaw = jaw_weights(mesh, half)[mesh.source]
    y = half[mesh.source, 1]
    root = smoothstep(y, -0.105, half[:, 1].min())
    eye = (mesh.kind == EYE)[mesh.source]
    weights = np.zeros((len(mesh.source), 5))
    weights[:, 0] = root
    weights[:, 1] = (1 - root) * (1 - jaw)
    weights[:, 2] = (1 - root) * jaw
    weights[eye] = 0
    weights[eye & (mesh.side > 0), 3] = 1
    weights[eye & (mesh.side < 0), 4] = 1
    return weights


def joint_regressor(mesh: Mesh, half: Float[np.ndarray, "H 3"]) -> Float[np.ndarray, "5 V"]:
    """Return weights that make each joint the mean of the points around it, so that it moves with the shape."""
    regressor = np.zeros((5, len(mesh.source)))
    on_skin = (mesh.kind == SKIN)[mesh.source]
    distance = np.linalg.norm(half - _JAW_HINGE, axis=1)[mesh.source]
    regressor[0, _both(mesh, mesh.upper[-1])] = 1
    regressor[1, _both(mesh, mesh.upper[THROAT_ROW])] = 1
    regressor[2] = on_skin * bell(distance, 0, 0.006)
    equator = mesh.eye[np.argmin(np.abs(EYE_RINGS - np.pi / 2))]
    regressor[3, equator] = 1
    regressor[4, mesh.right[equator]] = 1
    return regressor / regressor.sum(axis=1, keepdims=True)


def _both(mesh: Mesh, points: Int[np.ndarray, "..."]) -> Int[np.ndarray, " N"]:
    """Return the vertices of these half points on both sides."""
    return np.unique(np.concatenate([points, mesh.right[points]]))
