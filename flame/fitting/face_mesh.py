"""The 478 points of MediaPipe's face mesh on a head model.

`face_mesh.npz` holds the points' positions on the built-in head. They were measured: `tools/place_face_mesh.py` renders the
average head from known views, runs the network on the pictures, and solves each point's position in space by least squares. So
a point lies where the network sees it, whatever its name. Placing the network's canonical face on the head instead is worse:
the two neutral faces differ, by 4 mm on average after the best similarity transform, and a fit takes the difference for pose,
shape and expression.

On another head model the points are moved as the 68 landmarks of the two models are, and projected onto the skin.

Conventions: the person's right eye is the one on the viewer's left. Points 468 to 477 are irises, five for each eye, the centre
first.
"""

import weakref
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...shapes import Float, Int
from ..model import HeadModel, HeadParams
from .point_sets import PointSet, still

N_MESH = 478
FILE = Path(__file__).with_name("face_mesh.npz")
"""`points`, int16 `[478, 3]`: the points on the average built-in head at rest, in hundredths of a millimetre."""
IRISES = (473, 468)
"""The centres of the person's left and right iris, in the order of the model's eye joints."""

LIDS = (
    33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7,
    263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249,
)  # fmt: skip
UPPER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_LIP = (146, 91, 181, 84, 17, 314, 405, 321, 375, 95, 88, 178, 87, 14, 317, 402, 318, 324)
BROWS = (46, 52, 53, 55, 63, 65, 66, 70, 105, 107, 276, 282, 283, 285, 293, 295, 296, 300, 334, 336)
# Weights of whole groups. All together weigh as much as the 68 landmarks, whose priors the fit keeps.
_GROUPS = ((LIDS, 12.0), (UPPER_LIP + LOWER_LIP, 20.0), (BROWS, 10.0))
_REST, _N_REST = 26.0, 110
_IRIS = 2.0
# Points of the remaining face closer than this to a lid or a lip, in metres, are left out: they move with it by unknown parts.
_NEAR = 0.005
# Points farther than this from the skin, in metres, are left out.
_FAR = 0.008
_JAW, _EYE_JOINTS = 2, (3, 4)
# A neighbourhood of the network's points errs alike: the noise of a fit is larger than the residual shows, by this factor.
_NOISE = 2.0
_placed: "weakref.WeakKeyDictionary[HeadModel, tuple[Tensor, Tensor]]" = weakref.WeakKeyDictionary()


def face_mesh_points(model: HeadModel) -> PointSet:
    """Place the face mesh on a head model.

    Args:
        model: A head model with landmarks.

    Returns:
        The points that a fit uses: lids, lips, brows, about a hundred points of the remaining face, and the irises.

    Raises:
        BadInput: The model has no landmarks.
    """
    model = model.to("cpu")
    points = _points_on(model)
    triangles, weights, distance = project_onto_skin(model, points[: IRISES[1]])
    used, importance = _choose(points, distance)
    triangles, weights, eyes = _with_irises(model, triangles, weights)
    irises = None
    if eyes:
        irises = (len(used), len(used) + 1)
        used = torch.cat([used, torch.tensor(IRISES)])
        importance = torch.cat([importance, importance.new_full((2,), _IRIS)])
    M = len(used)
    return PointSet(
        name="478 points",
        count=N_MESH,
        index=used,
        matrix=None,
        weights=importance,
        slides=torch.zeros(M, dtype=torch.bool),
        places=still(triangles[used], weights[used].float()),
        irises=irises,
        noise_factor=_NOISE,
        expression_deviation=0.5,
    )


def face_mesh_places(model: HeadModel) -> tuple[Int[Tensor, "478"], Float[Tensor, "478 3"]]:
    """Return the places of the face mesh's outlines and iris centres on a head model. They are found once per model.

    Args:
        model: A head model with landmarks.

    Returns:
        Triangles and barycentric weights of the 478 points. Points without a place have weights of 0: those around each iris,
        and the iris centres of a head without eyeballs.

    Raises:
        BadInput: The model has no landmarks.
    """
    if model not in _placed:
        still_model = model.to("cpu")
        triangles, weights, _ = project_onto_skin(still_model, _points_on(still_model)[: IRISES[1]])
        triangles, weights, _ = _with_irises(still_model, triangles, weights)
        _placed[model] = triangles, weights.float()
    return _placed[model]


def _points_on(model: HeadModel) -> Tensor:
    """Return the points of the mesh near the skin of a model's average head at rest."""
    points = measured_points()
    return points if model.kind == "builtin" else _moved(points, model)


def _with_irises(model: HeadModel, triangles: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Append the irises to the places on the skin. Also returns whether the model has both eyeballs."""
    triangles = torch.cat([triangles, torch.zeros(N_MESH - len(triangles), dtype=torch.long)])
    weights = torch.cat([weights, weights.new_zeros(N_MESH - len(weights), 3)])
    pupils = [_pupil(model, joint) for joint in _EYE_JOINTS]
    for index, pupil in zip(IRISES, pupils, strict=True):
        if pupil is not None:
            triangles[index], weights[index] = pupil
    return triangles, weights, all(pupil is not None for pupil in pupils)


@cache
def measured_points() -> Float[Tensor, "478 3"]:
    """Return the points on the average built-in head at rest, in metres."""
    with np.load(FILE) as content:
        return torch.from_numpy(content["points"].astype(np.float64)) / 1e5


def _moved(points: Tensor, model: HeadModel) -> Tensor:
    """Move points of the built-in head as its landmarks move to those of another model (thin plate in space, kernel |r|)."""
    from ..builtin import builtin_head

    neutral = HeadParams.neutral()
    source, target = (head.landmarks(neutral)[0].double() for head in (builtin_head(), model))
    n = len(source)

    def affine(x: Tensor) -> Tensor:
        return torch.cat([torch.ones(len(x), 1, dtype=x.dtype), x], dim=1)

    system = torch.zeros(n + 4, n + 4, dtype=source.dtype)
    # The regularisation, 1 mm in the kernel's unit, keeps two landmarks at almost one place from pulling the space apart.
    system[:n, :n] = torch.cdist(source, source) + 1e-3 * torch.eye(n, dtype=source.dtype)
    system[:n, n:], system[n:, :n] = affine(source), affine(source).T
    solution = torch.linalg.solve(system, torch.cat([target - source, source.new_zeros(4, 3)]))
    return points + torch.cdist(points, source) @ solution[:n] + affine(points) @ solution[n:]


def project_onto_skin(
    model: HeadModel, points: Float[Tensor, "N 3"]
) -> tuple[Int[Tensor, " N"], Float[Tensor, "N 3"], Float[Tensor, " N"]]:
    """Find the nearest point of the skin of the average head at rest. Points of a lip stay on that lip.

    Args:
        model: The head model, on the CPU.
        points: The first N points of the mesh, in metres, in double precision.

    Returns:
        Triangles, barycentric weights and distances in metres.
    """
    vertices = model.rig.template.double()
    eyes = model.rig.weights[:, list(_EYE_JOINTS)].sum(1) > 0.5
    a, b, c = vertices[model.faces].unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1, eps=1e-20)
    # the front and the sides of the head, without eyeballs and the inside of the mouth
    skin = (~eyes[model.faces].any(1) & (normal[:, 2] > -0.2)).nonzero()[:, 0]
    jaw = model.rig.weights[:, _JAW][model.faces[skin]].mean(1)
    upper, lower = (torch.tensor([i for i in lip if i < len(points)]) for lip in (UPPER_LIP, LOWER_LIP))
    rest = torch.arange(len(points))
    rest = rest[~torch.isin(rest, torch.cat([upper, lower]))]
    triangles = torch.zeros(len(points), dtype=torch.long)
    weights, distance = points.new_zeros(len(points), 3), points.new_zeros(len(points))
    for rows, allowed in ((rest, torch.ones_like(jaw, dtype=torch.bool)), (upper, jaw < 0.5), (lower, jaw >= 0.5)):
        if not allowed.any():  # a head whose jaw does not move
            allowed = torch.ones_like(allowed)
        found, weight, far = _closest(points[rows], vertices, model.faces[skin[allowed]])
        triangles[rows], weights[rows], distance[rows] = skin[allowed][found], weight, far
    return triangles, weights, distance


def _closest(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the closest point of triangles to each point: rows of `faces` `[N]`, weights `[N, 3]` and distances `[N]`."""
    a, b, c = vertices[faces].unbind(1)
    found = []
    for part in points.split(64):
        weights = _nearest_weights(part[:, None], a, b, c)
        at = (weights[..., None] * torch.stack([a, b, c], dim=1)).sum(2)
        distance = (part[:, None] - at).norm(dim=2)
        best, rows = distance.argmin(1), torch.arange(len(part))
        found.append((best, weights[rows, best], distance[rows, best]))
    triangles, weights, distance = zip(*found, strict=True)
    return torch.cat(triangles), torch.cat(weights), torch.cat(distance)


def _nearest_weights(p: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return barycentric weights of the points of triangles nearest to `p`: its projection if inside, else on an edge."""
    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    scale = (d00 * d11 - d01 * d01).clamp(min=1e-30)
    v, w = (d11 * d20 - d01 * d21) / scale, (d00 * d21 - d01 * d20) / scale
    best = torch.stack([1 - v - w, v, w], -1)
    nearest = torch.where((best >= 0).all(-1), -1.0, torch.inf)
    for start, end, first, second in ((a, b, 0, 1), (b, c, 1, 2), (c, a, 2, 0)):
        edge = end - start
        t = (((p - start) * edge).sum(-1) / (edge * edge).sum(-1).clamp(min=1e-30)).clamp(0, 1)
        distance = (p - start - t[..., None] * edge).square().sum(-1)
        on_edge = torch.zeros_like(best)
        on_edge[..., first], on_edge[..., second] = 1 - t, t
        better = distance < nearest
        best = torch.where(better[..., None], on_edge, best)
        nearest = torch.where(better, distance, nearest)
    return best


def _choose(points: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the points that a fit uses: indices `[M]` and weights `[M]`."""
    groups = [(torch.tensor(members), weight) for members, weight in _GROUPS]
    features = torch.cat([members for members, _ in groups])
    near = torch.cdist(points[: len(distance)], points[features[: len(LIDS + UPPER_LIP + LOWER_LIP)]]).amin(1) < _NEAR
    free = (distance < _FAR) & ~near
    free[features] = False
    groups.append((_spread(points, free.nonzero()[:, 0]), _REST))
    used = torch.cat([members for members, _ in groups])
    return used, torch.cat([points.new_full((len(members),), weight / len(members)) for members, weight in groups])


def _spread(points: Tensor, among: Tensor) -> Tensor:
    """Choose evenly spread points: each is the farthest from those before it."""
    candidates = points[among]
    chosen = [int(candidates[:, 0].abs().argmin())]
    distance = (candidates - candidates[chosen[0]]).norm(dim=1)
    while len(chosen) < min(_N_REST, len(among)):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (candidates - candidates[chosen[-1]]).norm(dim=1))
    return among[chosen]


def _pupil(model: HeadModel, joint: int) -> tuple[int, Tensor] | None:
    """Return the foremost point of an eyeball at rest as a triangle and weights, or None if there is no eyeball."""
    mine = model.rig.weights[:, joint] > 0.5
    if not mine.any():
        return None
    vertex = int(torch.where(mine, model.rig.template[:, 2], -torch.inf).argmax())
    triangle = int((model.faces == vertex).any(1).nonzero()[0, 0])
    return triangle, (model.faces[triangle] == vertex).double()
