"""The mesh of the built-in head: which points there are, how they are joined, and where they lie in the texture.

Conventions: points are numbered once for the half x >= 0 ("half points") and mirrored; faces are counter-clockwise seen from
outside. UVs: the skin is a strip around the head, the face's middle at u = 0.5, v up; eyeball, ear and mouth have islands
below it, which both sides share.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from . import parts
from .face import skin
from .measures import Measures
from .sections import EYE_ROW, INNER_COL, MOUTH_COL, MOUTH_ROW, N_COLS, N_ROWS, OUTER_COL

SKIN, LIDS, MOUTH, EYE, EAR = range(5)
"""Kinds of half points."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """Numbering and joining of the points."""

    count: int
    """How many half points there are."""
    kind: np.ndarray
    """`[H]` SKIN, LIDS, MOUTH, EYE or EAR"""
    upper: np.ndarray
    """`[N_ROWS, N_COLS]` half points of the skin, on a slit those of the edge above"""
    lower: np.ndarray
    """the same, on a slit those of the edge below"""
    rims: np.ndarray
    """`[LID_RINGS, N]`"""
    rim_edge: np.ndarray
    """`[N]` half points of the lids' edge, clockwise from the inner corner"""
    mouth: np.ndarray
    """`[MOUTH_RINGS, MOUTH_COL]`"""
    eye: np.ndarray
    """`[rings, sectors]`"""
    ear: np.ndarray
    """`[rings, sectors]`"""
    half_faces: np.ndarray
    """`[F / 2, 3]` into the half points"""
    face_kind: np.ndarray
    """`[F / 2]` SKIN, LIDS, MOUTH, EYE or EAR"""
    lips: np.ndarray
    """`[MOUTH_RINGS + 2, MOUTH_COL + 1]` the mouth's inside with the edges of the lips and the mouth's corner"""
    right: np.ndarray
    """`[H]` vertex of the mirrored half point; the vertex of the half point itself is its own number"""
    source: np.ndarray
    """`[V]` half point of each vertex"""
    side: np.ndarray
    """`[V]` 1 for x >= 0, −1 for mirrored points"""

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
    above, below = skin(m, shut), skin(m, shut, lower=True)
    out = np.empty((mesh.count, 3))
    out[mesh.lower] = below
    out[mesh.upper] = above
    out[mesh.rims] = parts.lid_rims(m, out[mesh.rim_edge])
    out[mesh.mouth] = parts.mouth_inside(above[MOUTH_ROW, :MOUTH_COL], below[MOUTH_ROW, :MOUTH_COL])
    out[mesh.eye] = parts.eyeball(m)
    out[mesh.ear] = parts.ear(m)
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
    rims = take(LIDS, parts.LID_RINGS, len(rim_edge))
    mouth = take(MOUTH, parts.MOUTH_RINGS, MOUTH_COL)

    def sphere(kind: int, rings: int, sectors: int, closed: bool) -> np.ndarray:
        first = np.broadcast_to(take(kind, 1), (1, sectors))
        body = take(kind, rings - 1 - closed, sectors)
        last = [np.broadcast_to(take(kind, 1), (1, sectors))] if closed else []
        return np.concatenate([first, body, *last])

    eye = sphere(EYE, len(parts.EYE_RINGS), parts.EYE_SECTORS, closed=True)
    ear = sphere(EAR, parts.EAR_RINGS, parts.EAR_SECTORS, closed=False)

    lips = np.concatenate([upper[None, MOUTH_ROW, : MOUTH_COL + 1],
                           np.pad(mouth, ((0, 0), (0, 1)), constant_values=upper[MOUTH_ROW, MOUTH_COL]),
                           lower[None, MOUTH_ROW, : MOUTH_COL + 1]])
    lids = np.concatenate([rim_edge[None], rims])
    around = lambda rings: np.concatenate([rings, rings[:, :1]], axis=1)  # noqa: E731
    blocks = [_quads(grid[0], grid[1]) for grid in (
        (lower[:-1], upper[1:]), (around(lids)[:-1], around(lids)[1:]), (lips[:-1], lips[1:]),
        (around(eye)[:-1], around(eye)[1:]), (around(ear)[:-1], around(ear)[1:]),
    )]  # fmt: skip
    half_faces = np.concatenate(blocks)
    face_kind = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    kind = np.concatenate(kinds)

    middle = np.zeros(count, bool)
    middle[upper[:, [0, -1]]] = middle[lower[:, [0, -1]]] = middle[mouth[:, 0]] = True
    right = np.where(middle, np.arange(count), count + np.cumsum(~middle) - 1)
    source = np.concatenate([np.arange(count), np.flatnonzero(~middle)])
    side = np.concatenate([np.ones(count), -np.ones((~middle).sum())])
    return Mesh(count, kind, upper, lower, rims, rim_edge, mouth, eye, ear, half_faces, face_kind, lips, right, source, side)


def _quads(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Two triangles for each cell between grids of points `[R, C]`; columns run to the right seen from outside."""
    a, b, c, d = top[:, :-1].ravel(), bottom[:, :-1].ravel(), bottom[:, 1:].ravel(), top[:, 1:].ravel()
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    first, second, third = triangles.T
    return triangles[(first != second) & (second != third) & (third != first)]
