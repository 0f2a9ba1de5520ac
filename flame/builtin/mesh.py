"""The mesh of the built-in head: which points there are, how they are joined, and where they lie in the texture.

Conventions: points are numbered once for the half x >= 0 ("half points") and mirrored; faces are counter-clockwise seen from
outside. UVs: the skin is a strip around the head, the face's middle at u = 0.5, v up; eyeball, ear and mouth have islands
below it, which both sides share.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from . import components
from .anthropometry import Measures
from .curves import smoothstep
from .face import skin_surface
from .sections import EYE_ROW, INNER_COL, MOUTH_COL, MOUTH_ROW, N_COLS, N_ROWS, OUTER_COL

SKIN, LIDS, MOUTH, EYE, EAR, TEETH = range(6)
"""Kinds of half points."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """Numbering and joining of the points."""

    count: int
    """How many half points there are."""
    kind: np.ndarray
    """`[H]` SKIN, LIDS, MOUTH, EYE, EAR or TEETH"""
    upper: np.ndarray
    """`[N_ROWS, N_COLS]` half points of the skin, on a slit those of the edge above"""
    lower: np.ndarray
    """the same, on a slit those of the edge below"""
    rims: np.ndarray
    """`[LID_RINGS, N]`"""
    rim_edge: np.ndarray
    """`[N]` half points of the lids' edge, clockwise from the inner corner"""
    mouth: np.ndarray
    """`[MOUTH_RINGS, MOUTH_COL + 1]`, one point in the corner"""
    teeth: np.ndarray
    """`[4, N]`"""
    eye: np.ndarray
    """`[rings, sectors]`"""
    ear: np.ndarray
    """`[rings, sectors]`"""
    half_faces: np.ndarray
    """`[F / 2, 3]` into the half points"""
    face_kind: np.ndarray
    """`[F / 2]` SKIN, LIDS, MOUTH, EYE, EAR or TEETH"""
    right: np.ndarray
    """`[H]` vertex of the mirrored half point; the vertex of the half point itself is its own number"""
    source: np.ndarray
    """`[V]` half point of each vertex"""
    side: np.ndarray
    """`[V]` 1 for x >= 0, -1 for mirrored points"""

    @property
    def faces(self) -> np.ndarray:
        """`[F, 3]` triangles of the whole head."""
        return np.concatenate([self.half_faces, self.right[self.half_faces][:, ::-1]])

    def whole(self, half: np.ndarray) -> np.ndarray:
        """Vectors `[H, 3]` of the half as those of all vertices `[V, 3]`, mirrored."""
        out = half[self.source]
        out[:, 0] *= self.side
        return out


def half_points(m: Measures, shut: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """All half points of a head with the given measures, `[H, 3]` metres; `shut` closes the upper and the lower lid."""
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
    """The one mesh that all built-in heads share."""
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
    around = lambda rings: np.concatenate([rings, rings[:, :1]], axis=1)  # noqa: E731
    blocks = [
        _quads(lower[:-1], upper[1:]),
        *(_quads(rings[:-1], rings[1:]) for rings in (around(lids), mouth, around(eye), around(ear))),
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


def _quads(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Two triangles for each cell between grids of points `[R, C]`; columns run to the right seen from outside."""
    a, b, c, d = top[:, :-1].ravel(), bottom[:, :-1].ravel(), bottom[:, 1:].ravel(), top[:, 1:].ravel()
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    first, second, third = triangles.T
    return triangles[(first != second) & (second != third) & (third != first)]
