"""Fitting a head to landmarks in a photo.

Conventions: points are (u, v) in frame units: origin at the frame's centre, one unit is half its short side, u right, v down
(`camera.pixels_to_frame` makes them from pixels). Rotations are axis-angle. The face's size, to which errors are compared,
is the height of the model's 68 landmarks times the camera's scale.

The fit minimises the landmarks' squared distances plus priors (both in standard deviations) by damped Gauss-Newton steps in
double precision, from the closed-form pose on. Contour landmarks follow the yaw of every step, between whole degrees too, so
that nothing jumps; the last few steps keep to whole degrees, as `HeadModel.landmarks` does.
"""

from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import BadInput
from ..model import (
    CONTOUR,
    N_LANDMARKS,
    SIZES,
    YAW_LIMIT,
    HeadModel,
    HeadParams,
    axis_angle_to_matrix,
    contour_yaw,
    five_point_weights,
    matrix_to_axis_angle,
    project,
)
from .least_squares import Residuals, minimise
from .scaled_orthography import scaled_orthography

# Standard deviations: of a landmark, as a share of the face's size; of the pitch, where there is a pull on it; of the jaw.
# Five points carry what the person's shape and expression do to them, and leave the pitch nearly open.
LANDMARK_DEVIATION = 0.01
FIVE_POINT_DEVIATION = 0.02
PITCH_DEVIATION = 0.2
JAW_DEVIATION = (0.2, 0.04, 0.04)
# Around a head to start from: the share of those deviations that it leaves open, and its rotation's, where 5 points are all.
START_SHARE = 0.5
START_DEVIATION = 0.1
# From what a first fit leaves over, the noise of 68 points: about half of their numbers are spent on what is solved.
NOISE_FACTOR = 2**0.5
NOISE_RANGE = (0.003, 0.03)

POSE_STEPS = 12
STEPS = 15
LAST_STEPS = 8
POSE = 6
"""How many numbers of a state are its pose."""


class _Places(NamedTuple):
    """Where landmarks sit near some yaw: on the contour of the degree below and of that above, to go between."""

    degrees: Tensor  # [B] the degree below
    used: Tensor  # [U] the vertices that are needed
    corners: Tensor  # [B, 2, 68, 3] numbers of used vertices
    weights: Tensor  # [B, 2, 68, 3]


@dataclass(frozen=True, eq=False)
class HeadFit:
    """Fitted heads and how well they fit."""

    params: HeadParams
    """B heads: camera, rotation and, from 68 points, jaw, expression and shape; everything else neutral."""
    error: Tensor
    """`[B]` root mean square distance of the points that were given, in frame units."""


def fit_landmarks(
    model: HeadModel,
    points: Tensor,
    weights: Tensor | None = None,
    *,
    n_shape: int = 40,
    n_expression: int = 50,
    start: HeadParams | None = None,
) -> HeadFit:
    """The heads whose landmarks lie over given points.

    From 68 points (300-W order) camera, rotation, jaw, the first expression and the first shape coefficients are solved. From
    the 5 points of face detectors (eye on the viewer's left, eye on the viewer's right, nose tip, mouth corner on the
    viewer's left, mouth corner on the viewer's right) only camera and rotation are, with a mild pull to a level pitch: the
    nose's length and the pitch change five points alike.

    Heads to start from, such as another method's, take the average head's place: the fit keeps what they are but for what the
    points say otherwise. From 5 points their rotation is kept nearly, instead of the pull to a level pitch.

    Args:
        model: a head model with landmarks.
        points: `[B, 68, 2]` or `[B, 5, 2]` (u, v) in frame units.
        weights: `[B, 68]` or `[B, 5]` how much each point counts; 0 for a missing one, whose position is then ignored.
        n_shape: how many shape coefficients are solved from 68 points, at most what the model has.
        n_expression: how many expression coefficients are solved from 68 points, likewise.
        start: B heads to start from; the other fields of the result are theirs.

    Returns:
        HeadFit on the points' device.

    Raises:
        BadInput: the points have another shape, are not finite, or fewer than three count, or there are not B heads.
    """
    seen, counted, layout = _check(points, weights)
    full = len(layout) == N_LANDMARKS
    face = _Face(model, layout, min(n_shape, model.n_shape) * full, min(n_expression, model.n_expression) * full)
    if start is not None and start.batch != len(seen):
        raise BadInput(f"Expected as many heads to start from as faces, {len(seen)}, got {start.batch}.")
    # One face at a time: posing the vertices that its own landmarks touch is cheaper than those of all faces' landmarks.
    fits = []
    with _one_thread():
        for i in range(len(seen)):
            one = face if start is None else face.starting(start[i].to("cpu"))
            fits.append(_fit(one, seen[i : i + 1], counted[i : i + 1]))
    params, error = zip(*fits, strict=True)
    return HeadFit(HeadParams.cat(params).to(points.device), torch.cat(error).to(points.device))


def landmark_error(model: HeadModel, heads: HeadParams, points: Tensor) -> Tensor:
    """How far heads are from points that were seen.

    Args:
        model: a head model with landmarks.
        heads: B heads on its device.
        points: `[B, 68, 2]` or `[B, 5, 2]` (u, v) in frame units, as for `fit_landmarks`.

    Returns:
        `[B]` root mean square distance in frame units.

    Raises:
        BadInput: the points have another shape, or the model has no landmarks.
    """
    seen, _, layout = _check(points, None)
    found = project(model.landmarks(heads), heads.camera)[..., :2].double().cpu()
    return (layout @ found - seen).square().sum(-1).mean(1).sqrt().float().to(points.device)


@contextmanager
def _one_thread():
    """Keeps torch to one CPU thread: for thousands of tiny steps, threads that wait for each other cost tenfold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fit(face: "_Face", seen: Tensor, weights: Tensor) -> tuple[HeadParams, Tensor]:
    """One face."""
    state, size = _rigid(face, seen, weights)
    if len(face.layout) == N_LANDMARKS:
        unit = LANDMARK_DEVIATION * size
        state = minimise(_Problem(face, seen, weights, unit).around, state, face.size, STEPS)
        # Once the points' own noise shows, priors and points can be weighed against each other.
        noise = (0.5 * _mean_square(face, state, seen, weights)).sqrt() * NOISE_FACTOR
        unit = torch.maximum(torch.minimum(noise, NOISE_RANGE[1] * size), NOISE_RANGE[0] * size)
        state = minimise(_Problem(face, seen, weights, unit, whole_degrees=True).around, state, face.size, LAST_STEPS)
    params = face.start.replace(**{name: value.float() for name, value in face.fields(state).items()})
    return params, _mean_square(face, state, seen, weights).sqrt().float()


def _rigid(face: "_Face", seen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The state `[1, P]` of the pose alone, and the face's size `[1]` in frame units.

    Closed form, then a rigid fit; of the mirrored pair, and the pose to start from if there is one, what fits best.
    """
    # The contour slides with the unknown yaw; leave it out where enough is left.
    inner = weights.clone()
    inner[:, face.layout.argmax(1) < CONTOUR] = 0
    weights = torch.where(((inner > 0).sum(1) >= 6)[:, None], inner, weights)
    rotations, scale = scaled_orthography((face.layout @ face.at_rest)[None], seen, weights)
    size = scale * (face.at_rest[:, 1].max() - face.at_rest[:, 1].min())

    few = len(face.layout) < N_LANDMARKS
    problem = _Problem(face, seen, weights, (FIVE_POINT_DEVIATION if few else LANDMARK_DEVIATION) * size, few)
    share = (weights / weights.sum(1, keepdim=True))[..., None]
    candidates = [matrix_to_axis_angle(R) for R in rotations]
    if face.started:
        known = face.start.rotation.double()
        candidates = [known] if few else [*candidates, known]
    states, costs = [], []
    for rotation in candidates:
        state = torch.zeros(1, face.size, dtype=torch.float64)
        state[:, 0] = scale.log()
        state[:, 3:POSE] = rotation
        state[:, 1:3] = (share * (seen - face.points(state, face.places(state)))).sum(1)
        states.append(minimise(problem.around, state, POSE, POSE_STEPS))
        costs.append(problem.around(states[-1])(states[-1][None]).square().sum().item())
    return states[costs.index(min(costs))], size


def _mean_square(face: "_Face", state: Tensor, seen: Tensor, weights: Tensor) -> Tensor:
    """The mean square distance `[1]` that is left between points, in frame units."""
    distance = (face.points(state, face.places(state, whole_degrees=True)) - seen).square().sum(-1)
    return (weights * distance).sum(1) / weights.sum(1)


def _check(points: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Points and weights in double precision on the CPU, and the points as combinations of the 68 landmarks."""
    layouts = {N_LANDMARKS: torch.eye(N_LANDMARKS), 5: five_point_weights()}
    if points.dim() != 3 or points.shape[1] not in layouts or points.shape[2] != 2 or len(points) == 0:
        raise BadInput(f"Expected points [B, 68, 2] or [B, 5, 2] in frame units, got {list(points.shape)}.")
    given = torch.ones(points.shape[:2]) if weights is None else weights
    if given.shape != points.shape[:2] or not torch.isfinite(given).all() or (given < 0).any():
        raise BadInput(f"Expected weights {list(points.shape[:2])}, finite and not negative, got {list(given.shape)}.")
    seen, counts = points.detach().double().cpu(), given.detach().double().cpu()
    seen = torch.where(counts[..., None] > 0, seen, 0)
    if not torch.isfinite(seen).all():
        raise BadInput("Expected finite points, got NaN or infinite ones; give a missing point the weight 0.")
    for face, counted in enumerate((counts > 0).sum(1).tolist()):
        if counted < 3:
            raise BadInput(f"Expected at least 3 points of a face with a weight above 0, got {counted} of face {face}.")
        spread = seen[face][counts[face] > 0]
        if (spread.amax(0) - spread.amin(0)).max() == 0:
            raise BadInput(f"Expected points at different places, got one place for all of face {face}.")
    return seen, counts, layouts[points.shape[1]].double()


class _Face:
    """Points of a face from its state.

    A state `[B, P]` holds log s, tx, ty and rotation (the pose), then how far jaw, expression and shape coefficients are from
    those of the head that the fit starts from: the average one, unless `starting` says otherwise.
    """

    def __init__(self, model: HeadModel, layout: Tensor, n_shape: int, n_expression: int):
        self.model = model.to("cpu")
        self.rig = self.model.rig.to(dtype=torch.float64)
        self.layout = layout
        self.n_shape, self.n_expression = n_shape, n_expression
        self.size = POSE + 3 + n_expression + n_shape
        self._start(HeadParams.neutral(), started=False)

    def starting(self, start: HeadParams) -> "_Face":
        """The same with another head to start from."""
        face = copy(self)
        face._start(start, started=True)
        return face

    def _start(self, start: HeadParams, started: bool):
        self.start, self.started = start, started
        self.base = {name: getattr(start, name).double() for name in ("neck", "jaw", "expression", "shape")}
        rest = torch.zeros(1, self.size, dtype=torch.float64)
        self.at_rest = self.landmarks(rest, self.places(rest))[0]

    def fields(self, state: Tensor) -> dict[str, Tensor]:
        """What a state means, under the names of HeadParams."""
        log_s, shift, rotation, *solved = state.split([1, 2, 3, 3, self.n_expression, self.n_shape], 1)
        fields = {"camera": torch.cat([log_s.exp(), shift], dim=1), "rotation": rotation}
        for name, change in zip(("jaw", "expression", "shape"), solved, strict=True):
            fields[name] = self.base[name] + torch.nn.functional.pad(change, (0, SIZES[name][0] - change.shape[1]))
        return fields

    def places(self, state: Tensor, whole_degrees: bool = False) -> _Places:
        """Where the landmarks sit for the yaw of each state; at its nearest whole degree, or on either side of it."""
        yaw = self.yaw(state)
        low = yaw.round() if whole_degrees else yaw.floor()
        high = low if whole_degrees else yaw.floor().add(1).clamp(max=YAW_LIMIT)
        triangles, weights = zip(*(self.model.landmark_places(degrees) for degrees in (low, high)), strict=True)
        used, corners = self.model.faces[torch.stack(triangles, dim=1)].unique(return_inverse=True)
        return _Places(low, used, corners, torch.stack(weights, dim=1))

    def yaw(self, state: Tensor) -> Tensor:
        """The yaw `[B]` in degrees, as far as the contour follows it."""
        rotation = state[:, 3:POSE]
        return contour_yaw(rotation, self.base["neck"].expand_as(rotation))

    def landmarks(self, state: Tensor, places: _Places) -> Tensor:
        """The 68 landmarks `[S·B, 68, 3]` of S states for each of the places, in head space; no other vertices are posed."""
        part = self.fields(state)
        neck, eye = self.base["neck"].expand_as(part["rotation"]), torch.zeros_like(part["rotation"])
        rotations = torch.stack([part["rotation"], neck, part["jaw"], eye, eye], dim=1)
        coefficients = self.model.coefficients(part["shape"], part["expression"])
        vertices = self.rig.select(places.used).pose(coefficients, rotations)
        S = len(state) // len(places.degrees)
        corners = places.corners.flatten(1)[..., None].repeat(S, 1, 3)
        picked = vertices.gather(1, corners).unflatten(1, (2, N_LANDMARKS, 3))
        low, high = (picked * places.weights.repeat(S, 1, 1, 1)[..., None]).sum(3).unbind(1)
        return low + (self.yaw(state) - places.degrees.repeat(S))[:, None, None] * (high - low)

    def points(self, state: Tensor, places: _Places) -> Tensor:
        """The layout's points `[B, K, 2]` in frame units."""
        return project(self.layout @ self.landmarks(state, places), self.fields(state)["camera"])[..., :2]


@dataclass(frozen=True, eq=False)
class _Problem:
    """What a fit makes small: distances and departures from the priors, both in standard deviations."""

    face: _Face
    seen: Tensor  # [B, K, 2]
    weights: Tensor  # [B, K]
    unit: Tensor  # [B] a landmark's standard deviation in frame units
    few_points: bool = False  # the pose needs help
    whole_degrees: bool = False

    def around(self, state: Tensor) -> Residuals:
        """The residuals near a state, as `minimise` asks for them, with that state's choice of contour points."""
        places = self.face.places(state, self.whole_degrees)
        spread = torch.ones(self.face.size - POSE, dtype=torch.float64)
        spread[:3] = torch.tensor(JAW_DEVIATION)
        spread *= START_SHARE if self.face.started else 1
        known = axis_angle_to_matrix(self.face.start.rotation.double())

        def residuals(states: Tensor) -> Tensor:
            points = self.face.points(states.flatten(0, 1), places).unflatten(0, states.shape[:2])
            gap = (points - self.seen) / self.unit[:, None, None]
            parts = [(self.weights.sqrt()[..., None] * gap).flatten(2), states[..., POSE:] / spread]
            if self.few_points:
                R = axis_angle_to_matrix(states[..., 3:POSE])
                if self.face.started:
                    parts.append(matrix_to_axis_angle(known.mT @ R) / START_DEVIATION)
                else:
                    parts.append(torch.atan2(R[..., 2, 1], R[..., 2, 2])[..., None] / PITCH_DEVIATION)
            return torch.cat(parts, dim=2)

        return residuals
