"""The mesh of the built-in head: its points and how they are connected.

Conventions: points are numbered once for the half x >= 0 ("half points") and mirrored; faces are counter-clockwise seen from
outside. UVs are those of `uv.py`.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...shapes import Float, Int
from . import components
from .anthropometry import Measures
from .curves import smoothstep
from .face import skin_surface
from .sections import EYE_ROW, INNER_COL, MOUTH_COL, MOUTH_ROW, N_COLS, N_ROWS, OUTER_COL

SKIN, LIDS, MOUTH, EYE, EAR, TEETH = range(6)
"""Kinds of half points."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """The numbering of the points and the triangles between them."""

    count: int
    """Number of half points H."""
    kind: Int[np.ndarray, " H"]
    """SKIN, LIDS, MOUTH, EYE, EAR or TEETH"""
    upper: Int[np.ndarray, "R C"]
    """Half points of the skin, R = N_ROWS and C = N_COLS; on a slit, those of its upper edge"""
    lower: Int[np.ndarray, "R C"]
    """The same; on a slit, those of its lower edge"""
    rims: Int[np.ndarray, "lid_rings N"]
    """Half points of the lid rims"""
    rim_edge: Int[np.ndarray, " N"]
    """Half points of the edge of the lids, clockwise from the inner corner"""
    mouth: Int[np.ndarray, "mouth_rings M"]
    """Half points of the inside of the mouth, M = MOUTH_COL + 1; the corner is one point"""
    teeth: Int[np.ndarray, "4 T"]
    eye: Int[np.ndarray, "eye_rings eye_sectors"]
    ear: Int[np.ndarray, "ear_rings ear_sectors"]
    half_faces: Int[np.ndarray, "half_F 3"]
    """Triangles of the half x >= 0, into the half points"""
    face_kind: Int[np.ndarray, " half_F"]
    """SKIN, LIDS, MOUTH, EYE, EAR or TEETH"""
    right: Int[np.ndarray, " H"]
    """Vertex of each mirrored half point; the vertex of the half point itself has the half point's number"""
    source: Int[np.ndarray, " V"]
    """Half point of each vertex"""
    side: Float[np.ndarray, " V"]
    """1 for x >= 0, -1 for mirrored points"""

    @property
    def faces(self) -> Int[np.ndarray, "F 3"]:
        """Triangles of the whole head."""
        return np.concatenate([self.half_faces, self.right[self.half_faces][:, ::-1]])

    def whole(self, half: Float[np.ndarray, "H 3"]) -> Float[np.ndarray, "V 3"]:
        """Extend vectors at the half points to all vertices by mirroring."""
        out = half[self.source]
        out[:, 0] *= self.side
        return out


def half_points(m: Measures, shut: tuple[float, float] = (0.0, 0.0)) -> Float[np.ndarray, "H 3"]:
    """Return all half points of a head in metres.

    Args:
        m: Measures of the head.
        shut: How far the upper and the lower lid are closed, 0 to 1.
    """
    mesh = head_mesh()
    *rows, lower_lid = skin_surface(m, shut)
    out = np.empty((mesh.count, 3))
    out[mesh.lower] = out[mesh.upper] = rows
    out[mesh.lower[EYE_ROW, INNER_COL + 1 : OUTER_COL]] = lower_lid[INNER_COL + 1 : OUTER_COL]
    lips = rows[MOUTH_ROW]
    out[mesh.rims] = components.lid_rims(m, out[mesh.rim_edge])
    out[mesh.mouth] = components.mouth_inside(lips[: MOUTH_COL + 1])
    out[mesh.mouth[0, -1]] = lips[MOUTH_COL]
    out[mesh.teeth] = components.teeth(lips[: mesh.teeth.shape[1]])
    out[mesh.eye] = components.eyeball(m)
    out[mesh.ear] = components.ear(m)
    y = out[:, 1]
    stretched = m.face_length * smoothstep(y, 0.018, -0.060) * smoothstep(y, -0.165, -0.105)
    out[:, 1] -= stretched * (mesh.kind != EYE) * (mesh.kind != EAR)
    return out


@lru_cache(maxsize=1)
def head_mesh() -> Mesh:
    """Return the mesh that all built-in heads share."""
    count, kinds = 0, []

    def take(kind: int, *shape: int) -> np.ndarray:
        nonlocal count
        size = int(np.prod(shape))
        kinds.append(np.full(size, kind))
        count += size
        return np.arange(count - size, count).reshape(shape)

    pole = take(SKIN, 1)
    upper = np.concatenate([np.broadcast_to(pole, (1, N_COLS)), take(SKIN, N_ROWS - 1, N_COLS)])
    lower = upper.copy()
    lower[EYE_ROW, INNER_COL + 1 : OUTER_COL] = take(SKIN, OUTER_COL - INNER_COL - 1)
    lower[MOUTH_ROW, :MOUTH_COL] = take(SKIN, MOUTH_COL)
    rim_edge = np.concatenate([upper[EYE_ROW, INNER_COL:OUTER_COL], lower[EYE_ROW, OUTER_COL:INNER_COL:-1]])
    rims = take(LIDS, components.LID_RINGS, len(rim_edge))
    mouth = take(MOUTH, components.MOUTH_RINGS, MOUTH_COL)
    mouth = np.concatenate([mouth, np.broadcast_to(take(MOUTH, 1), (components.MOUTH_RINGS, 1))], axis=1)

    def sphere(kind: int, rings: int, sectors: int, closed: bool) -> np.ndarray:
        first = np.broadcast_to(take(kind, 1), (1, sectors))
        body = take(kind, rings - 1 - closed, sectors)
        last = [np.broadcast_to(take(kind, 1), (1, sectors))] if closed else []
        return np.concatenate([first, body, *last])

    eye = sphere(EYE, len(components.EYE_RINGS), components.EYE_SECTORS, closed=True)
    ear = sphere(EAR, components.EAR_RINGS, components.EAR_SECTORS, closed=False)

    teeth = take(TEETH, 4, MOUTH_COL - 1)
    lids = np.concatenate([rim_edge[None], rims])
    blocks = [
        _quads(lower[:-1], upper[1:]),
        *(_quads(rings[:-1], rings[1:]) for rings in (_closed(lids), mouth, _closed(eye), _closed(ear))),
        _quads(teeth[0::2], teeth[1::2]),
    ]
    half_faces = np.concatenate(blocks)
    face_kind = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    kind = np.concatenate(kinds)

    middle = np.zeros(count, bool)
    middle[upper[:, [0, -1]]] = middle[lower[:, [0, -1]]] = middle[mouth[:, 0]] = middle[teeth[:, 0]] = True
    right = np.where(middle, np.arange(count), count + np.cumsum(~middle) - 1)
    source = np.concatenate([np.arange(count), np.flatnonzero(~middle)])
    side = np.concatenate([np.ones(count), -np.ones((~middle).sum())])
    return Mesh(count, kind, upper, lower, rims, rim_edge, mouth, teeth, eye, ear, half_faces, face_kind, right, source, side)


def _closed(rings: Int[np.ndarray, "R C"]) -> Int[np.ndarray, "R C+1"]:
    """Repeat the first point of each ring at its end."""
    return np.concatenate([rings, rings[:, :1]], axis=1)


def _quads(top: Int[np.ndarray, "R C"], bottom: Int[np.ndarray, "R C"]) -> Int[np.ndarray, "N 3"]:
    """Return two triangles for each cell between grids of points; columns run to the right seen from outside."""
    a, b, c, d = top[:, :-1].ravel(), bottom[:, :-1].ravel(), bottom[:, 1:].ravel(), top[:, 1:].ravel()
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    first, second, third = triangles.T
    return triangles[(first != second) & (second != third) & (third != first)]
