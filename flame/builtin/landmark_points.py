"""The 68 landmarks of the built-in head, found on its mesh.

Conventions: iBUG order (see `flame/model/landmarks.py`). A landmark is a triangle and barycentric weights. The contour is the
visible outline of the cheek: for each degree of yaw, it follows the points of each row that reach farthest to the side, down
to the border of the jaw, and then that border to the chin. Nine evenly spaced points of it on either side are landmarks.
"""

import numpy as np

from ...shapes import Float, Int
from ..model import CONTOUR, CONTOUR_ROWS, YAW_LIMIT
from .anthropometry import Measures
from .lines import brow_line, lip_thickness
from .mesh import SKIN, Mesh
from .sections import EYE_ROW, INNER_COL, JAW_ROW, MOUTH_COL, MOUTH_ROW, OUTER_COL, SIDE_COL

Landmark = tuple[int, Float[np.ndarray, "3"]]
"""A triangle and barycentric weights."""
_EAR_COL = SIDE_COL - 1
"""The last column in front of the ear."""


class Finder:
    """Finds landmarks on the head that has the half points `half`, in metres."""

    def __init__(self, mesh: Mesh, half: Float[np.ndarray, "H 3"]):
        self.mesh, self.half, self.faces = mesh, half, mesh.faces
        self.number = {tuple(sorted(face)): i for i, face in enumerate(self.faces.tolist())}
        self.face_of = np.zeros(len(mesh.source), int)
        for corner in range(3):
            self.face_of[self.faces[:, corner]] = np.arange(len(self.faces))
        self.skin = mesh.half_faces[mesh.face_kind == SKIN]

    def vertex(self, point: int, side: int = 1) -> Landmark:
        """Return a half point as a landmark; with side -1, its mirror image."""
        vertex = point if side > 0 else self.mesh.right[point]
        face = self.face_of[vertex]
        return int(face), (self.faces[face] == vertex).astype(float)

    def front(self, x: float, y: float, side: int = 1) -> Landmark:
        """Return the foremost point of the skin at (side · x, y), x >= 0."""
        a, b, c = self.half[self.skin].transpose(1, 0, 2)
        weights = _barycentric(np.array([max(x, 1e-6), y]), a, b, c)
        inside = np.flatnonzero((weights > -1e-9).all(1))
        depth = (weights[inside] * np.stack([a[inside, 2], b[inside, 2], c[inside, 2]], 1)).sum(1)
        best = inside[np.argmax(depth)]
        return self.place(self.skin[best], weights[best].clip(0) / weights[best].clip(0).sum(), side)

    def place(self, points: Int[np.ndarray, "3"], weights: Float[np.ndarray, "3"], side: int) -> Landmark:
        """Return a point in the triangle of three half points; with side -1, its mirror image."""
        vertices = points if side > 0 else self.mesh.right[points]
        face = self.number[tuple(sorted(vertices.tolist()))]
        weight_of = dict(zip(vertices.tolist(), weights.tolist(), strict=True))
        return face, np.array([weight_of[vertex] for vertex in self.faces[face].tolist()])

    def grid(self, row: float, col: float, side: int) -> Landmark:
        """Return the point at a fractional row and column of the skin."""
        r, c = min(int(row), len(self.mesh.upper) - 2), min(int(col), self.mesh.upper.shape[1] - 2)
        down, across = row - r, col - c
        top, bottom = self.mesh.lower[r], self.mesh.upper[r + 1]
        if down >= across:
            return self.place(np.array([top[c], bottom[c], bottom[c + 1]]), np.array([1 - down, down - across, across]), side)
        return self.place(np.array([top[c], bottom[c + 1], top[c + 1]]), np.array([1 - across, down, across - down]), side)


def landmark_arrays(mesh: Mesh, half: Float[np.ndarray, "H 3"]) -> dict[str, np.ndarray]:
    """Return the landmark arrays for `HeadModel.from_arrays`, found on the average head."""
    finder = Finder(mesh, half)
    inner = _inner_landmarks(finder)
    rows = [row if row <= YAW_LIMIT else YAW_LIMIT - row for row in range(CONTOUR_ROWS)]
    outline = {yaw: _outline(mesh, half, np.radians(yaw)) for yaw in range(-YAW_LIMIT, YAW_LIMIT + 1)}
    contour = []
    for yaw in rows:
        # The right side of a head turned by yaw is the mirror image of the left side of a head turned by -yaw.
        right = [finder.grid(row, col, -1) for row, col in outline[-yaw]]
        left = [finder.grid(row, col, 1) for row, col in outline[yaw]]
        contour.append(right + left[-2::-1])
    out = {}
    for name, found in (("static", inner), ("full", contour[0] + inner)):
        out[f"{name}_lmk_faces_idx"] = np.array([face for face, _ in found])
        out[f"{name}_lmk_bary_coords"] = np.array([weights for _, weights in found])
    out["dynamic_lmk_faces_idx"] = np.array([[face for face, _ in line] for line in contour])
    out["dynamic_lmk_bary_coords"] = np.array([[weights for _, weights in line] for line in contour])
    return out


def _inner_landmarks(finder: Finder) -> list[Landmark]:
    m, mesh, half = Measures(), finder.mesh, finder.half
    slit = half[mesh.upper[MOUTH_ROW, :MOUTH_COL]]

    def lip(x: float, sign: int) -> tuple[float, float]:
        line = float(np.interp(x, slit[:, 0], slit[:, 1]))
        return x, line + sign * float(lip_thickness(m, np.array(x))[sign < 0])

    brow = [(x, float(brow_line(m, np.array(x)))) for x in (0.0465, 0.0380, 0.0290, 0.0200, 0.0115)]
    points = [finder.front(*at, -1) for at in brow] + [finder.front(*at) for at in brow[::-1]]
    tip = half[mesh.upper[:, 0]][np.argmax(half[mesh.upper[:, 0], 2]), 1]
    points += [finder.front(0, y) for y in np.linspace(0.026, tip, 4)]
    base = [(0.0135, -0.0180), (0.0068, -0.0198), (0.0, -0.0212)]
    points += [finder.front(*at, -1) for at in base] + [finder.front(*at) for at in base[1::-1]]
    third, two_thirds = INNER_COL + 3, OUTER_COL - 3
    above, below = mesh.upper[EYE_ROW].tolist(), mesh.lower[EYE_ROW].tolist()
    outer, inner = above[OUTER_COL], above[INNER_COL]
    points += [finder.vertex(p, -1) for p in (outer, above[two_thirds], above[third], inner, below[third], below[two_thirds])]
    points += [finder.vertex(p) for p in (inner, above[third], above[two_thirds], outer, below[two_thirds], below[third])]
    corner = int(mesh.upper[MOUTH_ROW, MOUTH_COL])
    upper, lower = [lip(x, 1) for x in (0.0160, 0.0064, 0.0)], [lip(x, -1) for x in (0.0160, 0.0080, 0.0)]
    points += [finder.vertex(corner, -1), *(finder.front(*at, -1) for at in upper)]
    points += [*(finder.front(*at) for at in upper[1::-1]), finder.vertex(corner)]
    points += [*(finder.front(*at) for at in lower), *(finder.front(*at, -1) for at in lower[1::-1])]
    above, below = mesh.upper[MOUTH_ROW].tolist(), mesh.lower[MOUTH_ROW].tolist()
    side, quarter = MOUTH_COL - 1, MOUTH_COL // 2 - 1
    points += [finder.vertex(above[side], -1), finder.vertex(above[quarter], -1), finder.vertex(above[0])]
    points += [finder.vertex(above[quarter]), finder.vertex(above[side])]
    return [*points, finder.vertex(below[quarter]), finder.vertex(below[0]), finder.vertex(below[quarter], -1)]


def _outline(mesh: Mesh, half: Float[np.ndarray, "H 3"], yaw: float) -> Float[np.ndarray, "9 2"]:
    """Return row and column of nine points from beside the eye to the chin, on the left of a head turned by yaw."""
    grid = half[mesh.upper]
    across = grid[..., 0] * np.cos(yaw) + grid[..., 2] * np.sin(yaw)
    path = []
    for row in range(EYE_ROW, JAW_ROW + 1):
        reach = across[row, : _EAR_COL + 1]
        col = int(np.argmax(reach))
        offset = 0.0
        if 0 < col < _EAR_COL:
            # the vertex of the parabola through the farthest point and its neighbours
            before, here, after = reach[col - 1 : col + 2]
            offset = 0.5 * (before - after) / (before - 2 * here + after)
        path.append((row, col + offset))
    path += [(JAW_ROW, col) for col in range(int(np.ceil(path[-1][1])) - 1, -1, -1)]
    path = np.array(path, dtype=float)
    r, c = path[:, 0].astype(int), np.minimum(path[:, 1].astype(int), grid.shape[1] - 2)
    t = (path[:, 1] - c)[:, None]
    seen = np.stack([across, grid[..., 1]], axis=-1)
    points = (1 - t) * seen[r, c] + t * seen[r, c + 1]
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    at = np.linspace(0, length[-1], CONTOUR // 2 + 1)
    return np.stack([np.interp(at, length, path[:, i]) for i in range(2)], axis=1)


def _barycentric(
    p: Float[np.ndarray, "2"], a: Float[np.ndarray, "N 3"], b: Float[np.ndarray, "N 3"], c: Float[np.ndarray, "N 3"]
) -> Float[np.ndarray, "N 3"]:
    """Return the weights of a point in triangles seen along z; those of triangles seen edge-on are far outside."""
    ab, ac, ap = b[:, :2] - a[:, :2], c[:, :2] - a[:, :2], p - a[:, :2]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    area = np.where(np.abs(area) < 1e-14, np.nan, area)
    v = (ap[:, 0] * ac[:, 1] - ap[:, 1] * ac[:, 0]) / area
    w = (ab[:, 0] * ap[:, 1] - ab[:, 1] * ap[:, 0]) / area
    return np.nan_to_num(np.stack([1 - v - w, v, w], axis=1), nan=-1.0)
