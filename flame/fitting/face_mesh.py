"""The 478 points of MediaPipe's face mesh on a head model.

The canonical face, which comes with the mesh's weights, is registered to the head model: a similarity and the model's shape
components bring the two together, a smooth warp makes the features of the canonical face coincide with the model's 68
landmarks, and each of its points is projected onto the nearest skin. So the brow of the mesh is the brow of the model, whatever
the two neutral faces look like.

Conventions: the person's right eye is the one on the viewer's left. The canonical face is in centimetres, x to the person's
left, y up, z forwards. Points 468 to 477 are irises, five for each eye, the centre first.
"""

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Bool, Float, Int
from ..model import SIZES, HeadModel, HeadParams
from .least_squares import minimise
from .point_sets import PointSet, _still

N_CANONICAL, N_MESH = 468, 478
IRISES = (473, 468)
"""The centres of the person's left and right iris."""

# Indices of the mesh in the order of landmarks 17 to 67; a brow is the line midway between its edges.
_BROW_EDGES = (
    (70, 46), (63, 53), (105, 52), (66, 65), (107, 55),
    (336, 285), (296, 295), (334, 282), (293, 283), (300, 276),
)  # fmt: skip
_NOSE = (168, 197, 5, 4, 98, 97, 2, 326, 327)
_EYES = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
_LIPS = (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87)
_CHIN = 152

LIDS = (
    33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7,
    263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249,
)  # fmt: skip
UPPER_LIP = (
    61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308,
)  # fmt: skip
LOWER_LIP = (146, 91, 181, 84, 17, 314, 405, 321, 375, 95, 88, 178, 87, 14, 317, 402, 318, 324)
BROWS = (46, 52, 53, 55, 63, 65, 66, 70, 105, 107, 276, 282, 283, 285, 293, 295, 296, 300, 334, 336)
_GROUPS = {"lids": (LIDS, 12.0), "lips": (UPPER_LIP + LOWER_LIP, 20.0), "brows": (BROWS, 10.0)}
_REST_WEIGHT, _N_REST = 26.0, 110
_IRIS_WEIGHT = 2.0

# Registration, in metres
_ROUNDS = 6
_FEATURE_DEVIATION, _SKIN_DEVIATION = 0.002, 0.003
_MOST_DISTANCE = 0.008
_LEAST_COSINE = 0.4
_NEAR_FEATURE = 0.005
_REACH = 0.012
_JAW, _EYE_JOINTS = 2, (3, 4)


def face_mesh_points(model: HeadModel, canonical: Float[Tensor, "468 3"]) -> PointSet:
    """Place the face mesh on a head model.

    Args:
        model: A head model with landmarks.
        canonical: The canonical face, in centimetres.

    Returns:
        The points that a fit uses: lids, lips, brows, about a hundred points of the remaining face, and the irises. The
        weights of a group sum to what the study of fits found best; all together they weigh as much as 68 landmarks.

    Raises:
        BadInput: The model has no landmarks, or the canonical face is of another shape.
    """
    if tuple(canonical.shape) != (N_CANONICAL, 3) or not torch.isfinite(canonical).all():
        raise BadInput(f"Expected a finite canonical face [{N_CANONICAL}, 3], got {list(canonical.shape)}.")
    registered = _register(model.to("cpu"), canonical.double().cpu() / 100)
    used, weights = _choose(registered, canonical.double().cpu() / 100)
    pupils = [_pupil(model, joint) for joint in _EYE_JOINTS]
    triangles = torch.cat([registered.triangles[used], torch.tensor([triangle for triangle, _ in pupils])])
    barycentric = torch.cat([registered.weights[used], torch.stack([weight for _, weight in pupils])]).float()
    index = torch.cat([used, torch.tensor(IRISES)])
    M = len(index)
    return PointSet(
        "478 points", N_MESH, index, torch.eye(M, dtype=torch.float64),
        torch.cat([weights, torch.full((2,), _IRIS_WEIGHT, dtype=torch.float64)]),
        torch.zeros(M, dtype=torch.bool), _still(triangles, barycentric), irises=(M - 2, M - 1),
    )  # fmt: skip


class _Registered:
    """Positions of the canonical face's points on the mesh, and their distances from it."""

    def __init__(self, triangles: Tensor, weights: Tensor, distance: Tensor, aligned: Tensor):
        self.triangles, self.weights, self.distance, self.aligned = triangles, weights, distance, aligned


def _register(model: HeadModel, canonical: Tensor) -> _Registered:
    """Register the canonical face `[468, 3]` in metres to the model at rest."""
    neutral = HeadParams.neutral()
    rig = model.rig.to(dtype=torch.float64)
    features, pairs = _features(canonical), model.landmark_places(torch.zeros(1))
    corners, barycentric = model.faces[pairs[0][0]], pairs[1][0].double()
    on_model = torch.cat([torch.arange(27, 68), torch.tensor([8])])
    n_shape = min(model.n_shape, SIZES["shape"][0])
    at_rest = rig.template
    shapes = rig.basis[:n_shape]

    def landmarks(vertices: Tensor) -> Tensor:
        return (vertices[corners] * barycentric[..., None]).sum(1)[on_model]

    skin = _skin(model)
    normals_of_canonical = None
    shape = torch.zeros(n_shape, dtype=torch.float64)
    vertices, aligned, found = at_rest, canonical, None
    for round_ in range(_ROUNDS):
        R, scale, shift = _similarity(_features(canonical), landmarks(vertices))
        aligned = scale * canonical @ R.T + shift
        # min over shape: |features|² / sd² + |distance along the normal|² / sd² + |shape|²
        rows = [(_features(aligned) - landmarks(at_rest)).flatten() / _FEATURE_DEVIATION]
        columns = [_landmark_columns(shapes, corners, barycentric, on_model) / _FEATURE_DEVIATION]
        if round_:
            closest = _closest(aligned, vertices, model.faces[skin])
            face = model.faces[skin][closest[0]]
            normal = _normals(vertices, face)
            base = (at_rest[face] * closest[1][..., None]).sum(1)
            near = closest[2] < 2 * _MOST_DISTANCE
            w = near.double() * (52 / len(canonical)) ** 0.5
            rows.append(w * ((aligned - base) * normal).sum(1) / _SKIN_DEVIATION)
            moved = (shapes[:, face] * closest[1][None, ..., None]).sum(2)
            columns.append((w[:, None] * (moved * normal).sum(2).T) / _SKIN_DEVIATION)
        A, b = torch.cat(columns), torch.cat(rows)
        shape = torch.linalg.solve(A.T @ A + torch.eye(n_shape, dtype=A.dtype), A.T @ b)
        vertices = at_rest + torch.einsum("k,kvc->vc", shape, shapes)
    warped = _warp(aligned, _features(aligned), landmarks(vertices))
    return _project(model, vertices, warped, skin)


def _features(points: Tensor) -> Tensor:
    """Return the points of the mesh that correspond to landmarks 17 to 67 and 8, `[42, 3]`."""
    return points[list((*_NOSE, *_EYES, *_LIPS, _CHIN))]


def _landmark_columns(shapes: Tensor, corners: Tensor, barycentric: Tensor, on_model: Tensor) -> Tensor:
    moved = (shapes[:, corners] * barycentric[None, ..., None]).sum(2)[:, on_model]
    return moved.flatten(1).T


def _similarity(points: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find rotation, scale and shift that bring points closest to a target (Umeyama, 1991)."""
    p, q = points - points.mean(0), target - target.mean(0)
    U, S, Vh = torch.linalg.svd(q.T @ p)
    sign = torch.ones(3, dtype=p.dtype)
    sign[2] = torch.sign(torch.linalg.det(U @ Vh))
    R = U @ torch.diag(sign) @ Vh
    scale = (S * sign).sum() / p.square().sum()
    return R, scale, target.mean(0) - scale * R @ points.mean(0)


def _warp(points: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
    """Move points smoothly so that the sources come close to the targets: Gaussian kernels, which vanish far from the features."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-0.5 * (torch.cdist(a, b) / _REACH).square())

    K = kernel(sources, sources)
    weights = torch.linalg.solve(K + 0.05 * torch.eye(len(K), dtype=K.dtype), targets - sources)
    return points + kernel(points, sources) @ weights


def _skin(model: HeadModel) -> Tensor:
    """Return the triangles that are not of the eyeballs and look forwards or sideways at rest."""
    eyes = model.rig.weights[:, list(_EYE_JOINTS)].sum(1) > 0.5
    vertices = model.rig.template.double()
    normal = _normals(vertices, model.faces)
    centre = vertices[model.faces].mean(1)
    ok = ~eyes[model.faces].any(1) & (normal[:, 2] > -0.2) & (centre[:, 2] > -0.05)
    return ok.nonzero()[:, 0]


def _normals(vertices: Tensor, faces: Tensor) -> Tensor:
    a, b, c = vertices[faces].unbind(1)
    return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1, eps=1e-20)


def _closest(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the closest point of triangles to each point: row of `faces` `[N]`, weights `[N, 3]` and distance `[N]`."""
    a, b, c = vertices[faces].unbind(1)
    best = []
    for p in points.split(64):
        w = _triangle_weights(p[:, None], a, b, c)
        at = w[..., :1] * a + w[..., 1:2] * b + w[..., 2:] * c
        d = (p[:, None] - at).norm(dim=2)
        k = d.argmin(1)
        rows = torch.arange(len(p))
        best.append((k, w[rows, k], d[rows, k]))
    return tuple(torch.cat(x) for x in zip(*best, strict=True))


def _triangle_weights(p: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Barycentric weights of the closest points of triangles (the inside, else the best of the three edges)."""
    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    det = (d00 * d11 - d01 * d01).clamp(min=1e-30)
    v, w = (d11 * d20 - d01 * d21) / det, (d00 * d21 - d01 * d20) / det
    inside = torch.stack([1 - v - w, v, w], -1)
    best, nearest = inside, torch.where((inside >= 0).all(-1), -1.0, torch.inf)
    zero = torch.zeros_like(v)
    for start, end, place in ((a, b, (0, 1)), (b, c, (1, 2)), (c, a, (2, 0))):
        edge = end - start
        t = (((p - start) * edge).sum(-1) / (edge * edge).sum(-1).clamp(min=1e-30)).clamp(0, 1)
        d = (p - start - t[..., None] * edge).square().sum(-1)
        parts = [zero, zero, zero]
        parts[place[0]], parts[place[1]] = 1 - t, t
        better = d < nearest
        best = torch.where(better[..., None], torch.stack(parts, -1), best)
        nearest = torch.where(better, d, nearest)
    return best


def _project(model: HeadModel, vertices: Tensor, points: Tensor, skin: Tensor) -> _Registered:
    """Project points onto the nearest skin; lips onto the lip of the same side of the mouth."""
    jaw = model.rig.weights[:, _JAW][model.faces[skin]].mean(1)
    triangles = torch.zeros(len(points), dtype=torch.long)
    weights = torch.zeros(len(points), 3, dtype=torch.float64)
    distance = torch.zeros(len(points), dtype=torch.float64)
    everything = torch.arange(len(points))
    upper, lower = torch.tensor(UPPER_LIP), torch.tensor(LOWER_LIP)
    rest = everything[~torch.isin(everything, torch.cat([upper, lower]))]
    for rows, allowed in ((rest, torch.ones_like(jaw, dtype=torch.bool)), (upper, jaw < 0.5), (lower, jaw >= 0.5)):
        k, w, d = _closest(points[rows], vertices, model.faces[skin[allowed]])
        triangles[rows], weights[rows], distance[rows] = skin[allowed][k], w, d
    return _Registered(triangles, weights, distance, points)


def _choose(registered: _Registered, canonical: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the points that a fit uses, and their weights."""
    features = sorted({i for members, _ in _GROUPS.values() for i in members})
    near = torch.cdist(canonical, canonical[[*LIDS, *UPPER_LIP, *LOWER_LIP]]).amin(1) < _NEAR_FEATURE
    good = registered.distance < _MOST_DISTANCE
    used, weights = [], []
    for members, weight in _GROUPS.values():
        index = torch.tensor(members)
        used.append(index)
        weights.append(torch.full((len(index),), weight / len(index), dtype=torch.float64))
    free = good & ~near
    free[features] = False
    rest = _spread(canonical, free.nonzero()[:, 0], _N_REST)
    used.append(rest)
    weights.append(torch.full((len(rest),), _REST_WEIGHT / len(rest), dtype=torch.float64))
    return torch.cat(used), torch.cat(weights)


def _spread(points: Tensor, among: Tensor, count: int) -> Tensor:
    """Choose points that are spread evenly: each is the farthest from those before it."""
    candidates = points[among]
    chosen = [int(candidates[:, 0].abs().argmin())]
    distance = (candidates - candidates[chosen[0]]).norm(dim=1)
    while len(chosen) < min(count, len(among)):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (candidates - candidates[chosen[-1]]).norm(dim=1))
    return among[chosen]


def _pupil(model: HeadModel, joint: int) -> tuple[int, Tensor]:
    """Return the foremost point of an eyeball at rest as a triangle and weights."""
    mine = model.rig.weights[:, joint] > 0.5
    if not mine.any():
        raise BadInput(f"The head model '{model.name}' has no eyeballs.")
    z = torch.where(mine, model.rig.template[:, 2], -torch.inf)
    vertex = int(z.argmax())
    triangle = int((model.faces == vertex).any(1).nonzero()[0])
    return triangle, (model.faces[triangle] == vertex).double()
