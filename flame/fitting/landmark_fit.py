"""Fit heads to landmarks in photos.

Conventions: points are (u, v) in frame units: origin at the frame's centre, one unit is half its short side, u right, v down
(`camera.pixels_to_frame` converts pixels). Rotations are axis-angle. Errors are relative to the face's size, which is the
height of the model's 68 landmarks times the camera's scale.

The fit starts from the closed-form pose. It minimises the landmarks' squared distances plus priors (both in standard
deviations) by damped Gauss-Newton steps in double precision. Contour landmarks follow the yaw of every step, between whole
degrees too, so the objective is continuous. The last few steps use whole degrees, as `HeadModel.landmarks` does.
"""

from collections.abc import Generator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float
from ..model import (
    SIZES,
    YAW_LIMIT,
    HeadModel,
    HeadParams,
    axis_angle_to_matrix,
    contour_yaw,
    matrix_to_axis_angle,
    points_on_mesh,
    project,
)
from .least_squares import Residuals, minimise
from .point_sets import PointSet, usual_point_set
from .scaled_orthography import scaled_orthography

# Standard deviations: of a landmark, as a fraction of the face's size; of the pitch, for five points; of the jaw.
# Five points include the effects of the person's shape and expression, and hardly constrain the pitch.
LANDMARK_DEVIATION = 0.01
FIVE_POINT_DEVIATION = 0.02
PITCH_DEVIATION = 0.2
JAW_DEVIATION = (0.2, 0.04, 0.04)
# Around a given start: the factor of the priors' deviations, and the deviation of the rotation, for five points.
START_FACTOR = 0.5
START_DEVIATION = 0.1
# Rotations of an eye about the axes of its frontal plane, and their differences between the eyes, in radians.
GAZE_DEVIATION = 0.3
VERGENCE_DEVIATION = 0.08
# Noise of 68 points, relative to the residual of a first fit: about half of their degrees of freedom go into the solution.
NOISE_FACTOR = 2**0.5
NOISE_RANGE = (0.003, 0.03)

POSE_STEPS = 12
STEPS = 15
LAST_STEPS = 8
POSE = 6
"""Number of pose values in a state."""


class _Places(NamedTuple):
    """Places of N points near a yaw, for D whole degrees: the nearest one, or two to interpolate between."""

    degrees: Tensor  # [B] the nearest degree, or the lower one
    used: Tensor  # [U] the vertices that the points touch
    corners: Tensor  # [B, D, N, 3] indices into `used`
    weights: Tensor  # [B, D, N, 3]


@dataclass(frozen=True, eq=False)
class HeadFit:
    """Fitted heads and how well they fit."""

    params: HeadParams
    """B heads: camera, rotation and, from 68 points, jaw, expression and shape. Other fields are those of the start."""
    error: Float[Tensor, " B"]
    """`[B]` root mean square distance to the given points, in frame units."""


def fit_landmarks(
    model: HeadModel,
    points: Float[Tensor, "B K 2"],
    weights: Float[Tensor, "B K"] | None = None,
    *,
    point_set: PointSet | None = None,
    n_shape: int = 40,
    n_expression: int = 50,
    start: HeadParams | None = None,
    expected: HeadParams | None = None,
) -> HeadFit:
    """Fit heads to points.

    From 68 points (300-W order) the fit solves camera, rotation, jaw, the first expression and the first shape coefficients.
    From the 5 points of face detectors (eye on the viewer's left, eye on the viewer's right, nose tip, mouth corner on the
    viewer's left, mouth corner on the viewer's right) it solves only camera and rotation, with a weak prior for a level pitch,
    because the length of the nose and the pitch have the same effect on five points.

    Start heads, for example another method's, replace the average head: the fit changes them only as far as the points
    require. From 5 points, their rotation is almost kept; this replaces the prior for a level pitch.

    Args:
        model: A head model with landmarks.
        points: `[B, 68, 2]` or `[B, 5, 2]` (u, v) in frame units.
        weights: Weights of the points, `[B, 68]` or `[B, 5]`, at least 0. Missing points have weight 0 and are ignored.
        point_set: The set that the points are of, on this model. By default that of 68 or five points.
        n_shape: How many shape coefficients to solve from 68 points, at most as many as the model has.
        n_expression: How many expression coefficients to solve from 68 points, at most as many as the model has.
        start: B heads to start from. The result keeps their other fields.
        expected: B heads whose jaw, expression and eyes the priors are centred on, for sets that show the face.

    Returns:
        The fitted heads and their errors, on the points' device.

    Raises:
        BadInput: The points have another shape or are not finite, a face has fewer than three points with a weight above 0 or
            all of them at one place, or `start` does not hold B heads.
    """
    point_set = usual_point_set(model, points) if point_set is None else point_set
    observed, counted = _check(points, weights, point_set)
    face = _Face(model, point_set, min(n_shape, model.n_shape), min(n_expression, model.n_expression))
    if start is not None and start.batch != len(observed):
        raise BadInput(f"Expected as many heads to start from as faces, {len(observed)}, got {start.batch}.")
    # One face at a time: it is cheaper to pose only the vertices that its own landmarks touch.
    fits = []
    with _one_thread():
        for i in range(len(observed)):
            one = face if start is None else face.starting(start[i].to("cpu"))
            one = one if expected is None else one.expecting(expected, i)
            fits.append(_fit(one, observed[i : i + 1], counted[i : i + 1]))
    params, error = zip(*fits, strict=True)
    return HeadFit(HeadParams.cat(params).to(points.device), torch.cat(error).to(points.device))


def landmark_error(
    model: HeadModel, heads: HeadParams, points: Float[Tensor, "B K 2"], point_set: PointSet | None = None
) -> Float[Tensor, " B"]:
    """Measure the distance between the landmarks of heads and observed points.

    Args:
        model: A head model with landmarks.
        heads: B heads on its device.
        points: `[B, K, 2]` (u, v) in frame units, as for `fit_landmarks`.
        point_set: As for `fit_landmarks`. Points count by their weights.

    Returns:
        `[B]` root mean square distance in frame units.

    Raises:
        BadInput: The points have another shape, or the model has no landmarks.
    """
    point_set = usual_point_set(model, points) if point_set is None else point_set
    observed, weights = _check(points, None, point_set)
    degrees = contour_yaw(heads.rotation, heads.neck).round()
    found = points_on_mesh(model.vertices(heads), model.faces, *point_set.places(degrees))
    placed = project(point_set.combine(found.double()), heads.camera.double())[..., :2].cpu()
    distance = (placed - observed).square().sum(-1)
    return ((weights * distance).sum(1) / weights.sum(1)).sqrt().float().to(points.device)


@contextmanager
def _one_thread() -> Generator[None, None, None]:
    """Limit torch to one CPU thread. Synchronising threads makes thousands of tiny steps ten times as slow."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fit(face: "_Face", observed: Tensor, weights: Tensor) -> tuple[HeadParams, Tensor]:
    """Fit one face: its head, and its error `[1]`."""
    state, size = _rigid(face, observed, weights)
    if face.point_set.shows_face:
        unit = LANDMARK_DEVIATION * size
        state = minimise(_Problem(face, observed, weights, unit).around, state, face.size, STEPS)
        # The residual shows the noise of the points. With it, the points and the priors can be weighted correctly.
        noise = (0.5 * _mean_square(face, state, observed, weights)).sqrt() * NOISE_FACTOR
        unit = torch.maximum(torch.minimum(noise, NOISE_RANGE[1] * size), NOISE_RANGE[0] * size) * face.point_set.noise_factor
        state = minimise(_Problem(face, observed, weights, unit, whole_degrees=True).around, state, face.size, LAST_STEPS)
    params = face.start.replace(**{name: value.float() for name, value in face.fields(state).items()})
    return params, _mean_square(face, state, observed, weights).sqrt().float()


def _rigid(face: "_Face", observed: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Solve the pose alone: the state `[1, P]`, and the face's size `[1]` in frame units.

    The candidates are the closed-form pose, its mirror image and the pose of a given start. Each is refined by a rigid fit;
    the best one wins.
    """
    # The contour slides with the unknown yaw. Ignore it if enough other points are left.
    inner = weights.clone()
    inner[:, face.point_set.slides] = 0
    weights = torch.where(((inner > 0).sum(1) >= 6)[:, None], inner, weights)
    rotations, scale = scaled_orthography(face.point_set.combine(face.at_rest)[None], observed, weights)
    size = scale * (face.at_rest[:, 1].max() - face.at_rest[:, 1].min())

    few = not face.point_set.shows_face
    problem = _Problem(face, observed, weights, (FIVE_POINT_DEVIATION if few else LANDMARK_DEVIATION) * size, few)
    fraction = (weights / weights.sum(1, keepdim=True))[..., None]
    candidates = [matrix_to_axis_angle(R) for R in rotations]
    if face.started:
        known = face.start.rotation.double()
        candidates = [known] if few else [*candidates, known]
    states, costs = [], []
    for rotation in candidates:
        state = torch.zeros(1, face.size, dtype=torch.float64)
        state[:, 0] = scale.log()
        state[:, 3:POSE] = rotation
        state[:, 1:3] = (fraction * (observed - face.points(state, face.places(state)))).sum(1)
        states.append(minimise(problem.around, state, POSE, POSE_STEPS))
        costs.append(problem.around(states[-1])(states[-1][None]).square().sum().item())
    return states[costs.index(min(costs))], size


def _mean_square(face: "_Face", state: Tensor, observed: Tensor, weights: Tensor) -> Tensor:
    """Return the mean square distance `[1]` between the fitted and the observed points, in squared frame units."""
    distance = (face.points(state, face.places(state, whole_degrees=True)) - observed).square().sum(-1)
    return (weights * distance).sum(1) / weights.sum(1)


def _check(points: Tensor, weights: Tensor | None, point_set: PointSet) -> tuple[Tensor, Tensor]:
    """Check the input, and choose the points that the set uses.

    Returns:
        Points `[B, M, 2]` and weights `[B, M]` in double precision on the CPU.
    """
    if points.dim() != 3 or points.shape[1] != point_set.count or points.shape[2] != 2 or len(points) == 0:
        raise BadInput(f"Expected points [B, {point_set.count}, 2] in frame units, got {list(points.shape)}.")
    checked = torch.ones(points.shape[:2]) if weights is None else weights
    if checked.shape != points.shape[:2] or not torch.isfinite(checked).all() or (checked < 0).any():
        raise BadInput(f"Expected weights {list(points.shape[:2])}, finite and not negative, got {list(checked.shape)}.")
    observed, counts = (tensor.detach().double().cpu()[:, point_set.index] for tensor in (points, checked))
    observed = torch.where(counts[..., None] > 0, observed, 0)
    if not torch.isfinite(observed).all():
        raise BadInput("Expected finite points, got NaN or infinite ones; give a missing point the weight 0.")
    for face, counted in enumerate((counts > 0).sum(1).tolist()):
        if counted < 3:
            raise BadInput(f"Expected at least 3 points of a face with a weight above 0, got {counted} of face {face}.")
        spread = observed[face][counts[face] > 0]
        if (spread.amax(0) - spread.amin(0)).max() == 0:
            raise BadInput(f"Expected points at different places, got one place for all of face {face}.")
    return observed, counts * point_set.weights


class _Face:
    """Computes the points of a face from its state.

    A state `[B, P]` holds log s, tx, ty and rotation (the pose), then the differences of jaw, expression and shape
    coefficients from the start head. The start head is the average head unless `starting` sets another one.
    """

    def __init__(self, model: HeadModel, point_set: PointSet, n_shape: int, n_expression: int):
        self.model = model.to("cpu")
        self.rig = self.model.rig.to(dtype=torch.float64)
        self.point_set = point_set
        full = point_set.shows_face
        self.n_shape, self.n_expression = (n_shape, n_expression) if full else (0, 0)
        self.n_gaze = 4 if point_set.irises else 0
        self.size = POSE + 3 + self.n_expression + self.n_shape + self.n_gaze
        self._start(HeadParams.neutral(), started=False)

    def starting(self, start: HeadParams) -> "_Face":
        """Return a copy with another start head."""
        face = copy(self)
        face._start(start, started=True)
        return face

    def _start(self, start: HeadParams, started: bool) -> None:
        self.start, self.started = start, started
        self.centre = torch.zeros(self.size - POSE, dtype=torch.float64)
        self.base = {name: getattr(start, name).double() for name in ("neck", "jaw", "expression", "shape", "eyes")}
        rest = torch.zeros(1, self.size, dtype=torch.float64)
        self.at_rest = self.landmarks(rest, self.places(rest))[0]

    def expecting(self, prior: HeadParams, row: int) -> "_Face":
        """Return a copy whose priors are centred on an expected expression."""
        face = copy(self)
        E = self.n_expression
        face.centre = self.centre.clone()
        face.centre[:3] += prior.jaw[row].double()
        face.centre[3 : 3 + E] += prior.expression[row, :E].double()
        if self.n_gaze:
            face.centre[-4:] += prior.eyes[row].double().view(2, 3)[:, :2].flatten()
        return face

    def fields(self, state: Tensor) -> dict[str, Tensor]:
        """Convert a state `[B, P]` to the fields of `HeadParams` that it describes."""
        sizes = [1, 2, 3, 3, self.n_expression, self.n_shape, self.n_gaze]
        log_s, shift, rotation, *solved, gaze = state.split(sizes, 1)
        fields = {"camera": torch.cat([log_s.exp(), shift], dim=1), "rotation": rotation}
        for name, change in zip(("jaw", "expression", "shape"), solved, strict=True):
            fields[name] = self.base[name] + torch.nn.functional.pad(change, (0, SIZES[name][0] - change.shape[1]))
        # Listing's law: an eye turns about axes in its frontal plane.
        turned = torch.nn.functional.pad(gaze.unflatten(1, (-1, 2)), (0, 1)).flatten(1) if self.n_gaze else 0
        fields["eyes"] = self.base["eyes"] + turned
        return fields

    def places(self, state: Tensor, whole_degrees: bool = False) -> _Places:
        """Find the places of the points for each state's yaw.

        They are those at both whole degrees around the yaw. The nearest degree is enough on request, and if no point slides.
        """
        yaw = self.yaw(state)
        if whole_degrees or not self.point_set.slides.any():
            sides = [yaw.round()]
        else:
            sides = [yaw.floor(), yaw.floor().add(1).clamp(max=YAW_LIMIT)]
        triangles, weights = zip(*(self.point_set.places(degrees) for degrees in sides), strict=True)
        used, corners = self.model.faces[torch.stack(triangles, dim=1)].unique(return_inverse=True)
        return _Places(sides[0], used, corners, torch.stack(weights, dim=1))

    def yaw(self, state: Tensor) -> Tensor:
        """Return the yaw `[B]` in degrees, clamped to the range that the contour follows."""
        rotation = state[:, 3:POSE]
        return contour_yaw(rotation, self.base["neck"].expand_as(rotation))

    def landmarks(self, state: Tensor, places: _Places) -> Tensor:
        """Pose N points of the mesh `[S·B, N, 3]` in head space, of S states for each of the B places."""
        part = self.fields(state)
        neck, eyes = self.base["neck"].expand_as(part["rotation"]), part["eyes"].expand(len(state), -1)
        rotations = torch.stack([part["rotation"], neck, part["jaw"], *eyes.split(3, dim=1)], dim=1)
        coefficients = self.model.coefficients(part["shape"], part["expression"])
        vertices = self.rig.select(places.used).pose(coefficients, rotations)
        S = len(state) // len(places.degrees)
        corners = places.corners.flatten(1)[..., None].repeat(S, 1, 3)
        picked = vertices.gather(1, corners).unflatten(1, (places.corners.shape[1], -1, 3))
        placed = (picked * places.weights.repeat(S, 1, 1, 1)[..., None]).sum(3)
        if placed.shape[1] == 1:
            return placed[:, 0]
        low, high = placed.unbind(1)
        return low + (self.yaw(state) - places.degrees.repeat(S))[:, None, None] * (high - low)

    def points(self, state: Tensor, places: _Places) -> Tensor:
        """Project the points `[B, K, 2]` of the layout, in frame units."""
        return project(self.point_set.combine(self.landmarks(state, places)), self.fields(state)["camera"])[..., :2]


@dataclass(frozen=True, eq=False)
class _Problem:
    """The residuals of a fit: distances of points and deviations from the priors, both in standard deviations."""

    face: _Face
    observed: Tensor  # [B, K, 2]
    weights: Tensor  # [B, K]
    unit: Tensor  # [B] a landmark's standard deviation in frame units
    few_points: bool = False  # whether the pose needs a prior
    whole_degrees: bool = False

    def around(self, state: Tensor) -> Residuals:
        """Return the residual function near a state, for `minimise`, with the contour points of that state."""
        places = self.face.places(state, self.whole_degrees)
        spread = torch.ones(self.face.size - POSE, dtype=torch.float64)
        centre = self.face.centre
        spread[:3] = torch.tensor(JAW_DEVIATION)
        spread[3 : 3 + self.face.n_expression] = self.face.point_set.expression_deviation
        spread *= START_FACTOR if self.face.started else 1
        if self.face.n_gaze:
            spread[-4:] = GAZE_DEVIATION
        known = axis_angle_to_matrix(self.face.start.rotation.double())

        def residuals(states: Tensor) -> Tensor:
            points = self.face.points(states.flatten(0, 1), places).unflatten(0, states.shape[:2])
            gap = (points - self.observed) / self.unit[:, None, None]
            parts = [(self.weights.sqrt()[..., None] * gap).flatten(2), (states[..., POSE:] - centre) / spread]
            if self.face.n_gaze:
                parts.append((states[..., -4:-2] - states[..., -2:]) / VERGENCE_DEVIATION)  # both eyes look at one thing
            if self.few_points:
                R = axis_angle_to_matrix(states[..., 3:POSE])
                if self.face.started:
                    parts.append(matrix_to_axis_angle(known.mT @ R) / START_DEVIATION)
                else:
                    parts.append(torch.atan2(R[..., 2, 1], R[..., 2, 2])[..., None] / PITCH_DEVIATION)
            return torch.cat(parts, dim=2)

        return residuals
