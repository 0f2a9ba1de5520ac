"""Sets of face points that heads are fitted to, and their positions on a head model.

A point set says for each of its points where it lies on the mesh, how much it counts, whether it slides over the skin as the
head turns, and what the whole set shows: the pose alone, or expression, shape and gaze as well. The fit itself does not know
how many points there are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Bool, Float, Int
from ..model import CONTOUR, N_LANDMARKS, HeadModel, five_point_weights

Places = tuple[Int[Tensor, "B N"], Float[Tensor, "B N 3"]]
"""Triangles and barycentric weights of N points on B meshes."""


@dataclass(frozen=True, eq=False)
class PointSet:
    """Points of a face, and their positions on one head model.

    M of the K points of a detector are used. They are linear combinations of N points on the mesh.
    """

    name: str
    """The set's name in messages, such as "5 points"."""
    count: int
    """K, the number of points that a detector gives."""
    index: Int[Tensor, " M"]
    """The used ones among them."""
    matrix: Float[Tensor, "M N"] | None
    """The used points from the points on the mesh; rows sum to 1. None if they are the same."""
    weights: Float[Tensor, " M"]
    """How much each point counts. A weight of 1 is that of one of 68 landmarks."""
    slides: Bool[Tensor, " M"]
    """Whether a point's position depends on the head's yaw."""
    places: Callable[[Float[Tensor, " B"]], Places]
    """Returns the positions of the points on the mesh for each yaw, in whole degrees."""
    shows_face: bool = True
    """Whether the points show expression and shape. Otherwise a fit solves the pose alone."""
    irises: tuple[int, int] | None = None
    """Indices of the irises among the used points, in the order of the model's eye joints; None if the set has no irises."""
    noise_factor: float = 1.0
    """Factor of the points' noise, for sets whose points have correlated errors and are worth less than independent ones."""
    expression_deviation: float = 1.0
    """Standard deviation of expression coefficients around the expected expression."""

    def combine(self, points: Float[Tensor, "*batch N D"]) -> Float[Tensor, "*batch M D"]:
        """Return the used points from the points on the mesh."""
        return points if self.matrix is None else self.matrix @ points


def sliding_landmarks(model: HeadModel) -> PointSet:
    """Return the 68 landmarks of 2D detectors (300-W order). Their contour is the visible outline, which slides with the yaw.

    Raises:
        BadInput: The model has no landmarks.
    """
    slides = torch.arange(N_LANDMARKS) < CONTOUR if model.table is not None else torch.zeros(N_LANDMARKS, dtype=torch.bool)
    model.landmark_places(torch.zeros(1))  # raises if the model has no landmarks
    return _whole("68 landmarks", N_LANDMARKS, slides, model.landmark_places)


def fixed_landmarks(model: HeadModel) -> PointSet:
    """Return the 68 landmarks of 3D detectors (300-W order), whose contour stays at the same place on the jaw.

    Source: insightface's `1k3d68`, trained on projections of fixed points of a 3D face (Deng et al., "Menpo 3D", 2019).

    Raises:
        BadInput: The model has no such landmarks.
    """
    if model.full_landmarks is None:
        return sliding_landmarks(model)
    triangles, weights = model.full_landmarks
    return _whole("68 landmarks", N_LANDMARKS, torch.zeros(N_LANDMARKS, dtype=torch.bool), still(triangles, weights))


def five_points(model: HeadModel) -> PointSet:
    """Return the five points of face detectors, which show the pose alone.

    Raises:
        BadInput: The model has no landmarks.
    """
    dense = sliding_landmarks(model)
    matrix = five_point_weights().double()
    return replace(
        dense, name="5 points", count=5, index=torch.arange(5), matrix=matrix, weights=torch.ones(5, dtype=torch.float64),
        slides=torch.zeros(5, dtype=torch.bool), shows_face=False,
    )  # fmt: skip


def _whole(name: str, count: int, slides: Tensor, places: Callable[[Tensor], Places]) -> PointSet:
    return PointSet(name, count, torch.arange(count), None, torch.ones(count, dtype=torch.float64), slides, places)


def still(triangles: Int[Tensor, " N"], weights: Float[Tensor, "N 3"]) -> Callable[[Tensor], Places]:
    """Return positions that do not depend on the yaw."""

    def places(degrees: Tensor) -> Places:
        return triangles.expand(len(degrees), -1), weights.expand(len(degrees), -1, -1)

    return places


def usual_point_set(model: HeadModel, points: Float[Tensor, "B K 2"]) -> PointSet:
    """Return the set of points that their number suggests: 68 landmarks of a 2D detector, or five points.

    Raises:
        BadInput: There are neither 68 nor 5 points, or the model has no landmarks.
    """
    known = {N_LANDMARKS: sliding_landmarks, 5: five_points}
    if points.dim() != 3 or points.shape[1] not in known:
        raise BadInput(f"Expected points [B, 68, 2] or [B, 5, 2] in frame units, got {list(points.shape)}.")
    return known[points.shape[1]](model)
