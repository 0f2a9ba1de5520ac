"""The UV layout of the mesh, and the position on the head of each pixel of the texture.

Conventions: UVs in [0, 1], v up; pixel (i, j) of an S × S texture has its centre at u = (j + ½) / S, v = 1 - (i + ½) / S. The
skin is a strip around the head above v = STRIP, with the middle of the face at u = ½ and the person's left at u > ½; the
face takes up most of it. Eyeball, ear, lid rims, teeth and the inside of the mouth are islands below it, which both sides
share.
"""

import numpy as np

from ...shapes import Float, Int
from . import components
from .mesh import LIDS, Mesh
from .sections import BROW_ROW, CHEEK_COL, JAW_ROW, N_COLS, N_ROWS, OUTER_COL, SIDE_COL

STRIP = 0.21
DISC = 0.095
"""Radius of the round islands."""
EYE_CENTRE, EAR_CENTRE = (0.11, 0.105), (0.33, 0.105)
RIM_BOX = (0.45, 0.03, 0.51, 0.18)
TEETH_BOX = (0.55, 0.03, 0.60, 0.18)
MOUTH_BOX = (0.64, 0.03, 0.96, 0.18)
"""u0, v0, u1, v1, as for the other boxes"""
_EYE_REACH = np.radians([0, 29.2, 110, 180]), np.array([0, 0.55, 1.0, 1.02])

_U_KNOTS = np.array([0, OUTER_COL, CHEEK_COL, SIDE_COL, N_COLS - 1]), np.array([0, 0.56, 0.62, 0.82, 0.996])
_V_KNOTS = np.array([0, BROW_ROW - 4, JAW_ROW, N_ROWS - 1]), np.array([0.998, 0.86, STRIP + 0.10, STRIP])


def uv_layout(mesh: Mesh) -> tuple[Float[np.ndarray, "T 2"], Int[np.ndarray, "F 3"]]:
    """Return UVs and the triangles into them, in the order of the mesh's faces."""
    rims = np.arange(mesh.count, mesh.count + len(mesh.rim_edge))
    half = np.zeros((mesh.count + len(rims), 2))
    strip = np.zeros(len(half), bool)
    u, v = np.interp(np.arange(N_COLS), *_U_KNOTS), np.interp(np.arange(N_ROWS), *_V_KNOTS)
    for grid in (mesh.lower, mesh.upper):
        half[grid] = np.stack(np.broadcast_arrays(0.5 + 0.5 * u, v[:, None]), axis=-1)
        strip[grid] = True
    half[mesh.upper[0, 0], 0] = 0.75
    turn = np.linspace(0, 2 * np.pi, components.EYE_SECTORS, endpoint=False)
    half[mesh.eye] = _disc(EYE_CENTRE, np.interp(components.EYE_RINGS, *_EYE_REACH), turn)
    turn = np.linspace(0, 2 * np.pi, components.EAR_SECTORS, endpoint=False)
    half[mesh.ear] = _disc(EAR_CENTRE, np.linspace(0, 1, components.EAR_RINGS), turn)
    half[np.concatenate([rims[None], mesh.rims])] = _box(RIM_BOX, 1 + len(mesh.rims), len(rims))
    half[mesh.teeth] = _box(TEETH_BOX, *mesh.teeth.shape)
    half[mesh.mouth] = _box(MOUTH_BOX, *mesh.mouth.shape)
    half[mesh.mouth[0, -1]] = MOUTH_BOX[2], 0.5 * (MOUTH_BOX[1] + MOUTH_BOX[3])

    # The lid rims begin at the edge of the skin, but have UVs of their own there.
    own = np.arange(mesh.count)
    own[mesh.rim_edge] = rims
    triangles = np.where((mesh.face_kind == LIDS)[:, None], own[mesh.half_faces], mesh.half_faces)
    other = half.copy()
    other[strip, 0] = 1 - other[strip, 0]
    return np.concatenate([half, other]), np.concatenate([triangles, (triangles + len(half))[:, ::-1]])


def skin_positions(
    mesh: Mesh, half: Float[np.ndarray, "H 3"], size: int
) -> tuple[Float[np.ndarray, "R C 3"], Float[np.ndarray, "R 1"]]:
    """Return the position on the head of each pixel of the strip, for the person's left half of a `size` × `size` texture.

    Returns:
        Positions in metres, C = size / 2, and the row of the skin's grid that each row of pixels shows.
    """
    rows = round(size * (1 - STRIP)) + 1
    v = 1 - (np.arange(rows) + 0.5) / size
    u = 2 * (np.arange(size // 2) + 0.5) / size
    col = np.interp(u, _U_KNOTS[1], _U_KNOTS[0])
    row = np.interp(-v, -_V_KNOTS[1], _V_KNOTS[0])
    r, c = np.minimum(row.astype(int), N_ROWS - 2)[:, None], np.minimum(col.astype(int), N_COLS - 2)[None]
    down, across = (row[:, None] - r)[..., None], (col[None] - c)[..., None]
    top = half[mesh.lower[r, c]] * (1 - across) + half[mesh.lower[r, c + 1]] * across
    bottom = half[mesh.upper[r + 1, c]] * (1 - across) + half[mesh.upper[r + 1, c + 1]] * across
    return top * (1 - down) + bottom * down, row[:, None]


def island_coordinates(size: int) -> tuple[Float[np.ndarray, "size size"], Float[np.ndarray, "size size"]]:
    """Return u and v of every pixel of a `size` × `size` texture."""
    centre = (np.arange(size) + 0.5) / size
    u, v = np.meshgrid(centre, 1 - centre)
    return u, v


def eye_angle(radius: np.ndarray) -> np.ndarray:
    """Return the angle from the gaze in radians at a distance from the centre of the eye's island, in units of DISC."""
    return np.interp(radius, _EYE_REACH[1], _EYE_REACH[0])


def _disc(
    centre: tuple[float, float], radius: Float[np.ndarray, " R"], turn: Float[np.ndarray, " C"]
) -> Float[np.ndarray, "R C 2"]:
    """Return UVs of rings around a centre; the radius is in units of DISC."""
    reach = DISC * radius[:, None]
    return np.stack([centre[0] + reach * np.cos(turn), centre[1] + reach * np.sin(turn)], axis=-1)


def _box(box: tuple[float, float, float, float], rows: int, cols: int) -> Float[np.ndarray, "R C 2"]:
    """Return UVs of a grid that fills a box."""
    u, v = np.meshgrid(np.linspace(box[0], box[2], cols), np.linspace(box[3], box[1], rows))
    return np.stack([u, v], axis=-1)
