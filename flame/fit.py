"""Fitting a head to landmarks in a photo.

Conventions: points are (u, v) in frame units: origin at the frame's centre, one unit is half its short side, u right, v down
(`camera.pixels_to_frame` makes them from pixels). Rotations are axis-angle. The face's size, to which errors are compared,
is the height of the model's 68 landmarks times the camera's scale.

The fit minimises the landmarks' squared distances plus priors (both in standard deviations) by damped Gauss-Newton steps in
double precision, from the closed-form pose on. Contour landmarks are looked up anew for the yaw of every step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadInput
from .camera import project
from .head import HeadModel
from .landmarks import CONTOUR, LANDMARKS, five_point_weights
from .least_squares import Residuals, minimise
from .params import SIZES, HeadParams
from .pose import scaled_orthography
from .rotation import axis_angle_to_matrix, matrix_to_axis_angle

Places = tuple[Tensor, Tensor]

# Standard deviations: of a landmark, as a share of the face's size (five points also carry what the mean face lacks of
# the person's shape); of the pitch, only where five points leave it open; of the jaw.
LANDMARK_DEVIATION = 0.01
FIVE_POINT_DEVIATION = 0.03
PITCH_DEVIATION = 0.2
JAW_DEVIATION = (0.2, 0.04, 0.04)

POSE_STEPS = 12
STEPS = 15
POSE = 6


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
    n_expression: int = 20,
) -> HeadFit:
    """The heads whose landmarks lie over given points.

    From 68 points (300-W order) camera, rotation, jaw, the first expression and the first shape coefficients are solved. From
    the 5 points of face detectors (eye on the viewer's left, eye on the viewer's right, nose tip, mouth corner on the
    viewer's left, mouth corner on the viewer's right) only camera and rotation are, with a mild pull to a level pitch: the
    nose's length and the pitch change five points alike.

    Args:
        model: a head model with landmarks.
        points: `[B, 68, 2]` or `[B, 5, 2]` (u, v) in frame units.
        weights: `[B, 68]` or `[B, 5]` how much each point counts; 0 for a missing one, whose position is then ignored.
        n_shape: how many shape coefficients are solved from 68 points, at most what the model has.
        n_expression: how many expression coefficients are solved from 68 points, likewise.

    Returns:
        HeadFit on the points' device.

    Raises:
        BadInput: the points have another shape, are not finite, or fewer than three count.
    """
    seen, weights, layout = _check(points, weights)
    if len(layout) == LANDMARKS:
        face = _Face(model, layout, min(n_shape, model.n_shape), min(n_expression, model.n_expression))
        problem = _Problem(face, seen, weights, LANDMARK_DEVIATION, None)
    else:
        face = _Face(model, layout, 0, 0)
        problem = _Problem(face, seen, weights, FIVE_POINT_DEVIATION, PITCH_DEVIATION)
    state = problem.start()
    if len(layout) == LANDMARKS:
        state = minimise(problem.around(weights), state, face.size, STEPS)

    fields = face.fields(state)
    for name in ("shape", "expression"):
        fields[name] = torch.nn.functional.pad(fields[name], (0, SIZES[name][0] - fields[name].shape[1]))
    params = HeadParams.neutral(len(seen)).replace(**{name: value.float() for name, value in fields.items()})
    distance = (face.points(state, face.places(state)) - seen).square().sum(-1)
    error = ((weights * distance).sum(1) / weights.sum(1)).sqrt()
    return HeadFit(params.to(points.device), error.float().to(points.device))


def _check(points: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Points and weights in double precision on the CPU, and the points as combinations of the 68 landmarks."""
    layouts = {LANDMARKS: torch.eye(LANDMARKS), 5: five_point_weights()}
    if points.dim() != 3 or points.shape[1] not in layouts or points.shape[2] != 2 or len(points) == 0:
        raise BadInput(f"Expected points [B, 68, 2] or [B, 5, 2] in frame units, got {list(points.shape)}.")
    if weights is None:
        weights = torch.ones(points.shape[:2])
    if weights.shape != points.shape[:2] or not torch.isfinite(weights).all() or (weights < 0).any():
        raise BadInput(f"Expected weights {list(points.shape[:2])}, finite and not negative, got {list(weights.shape)}.")
    seen, weights = points.detach().double().cpu(), weights.detach().double().cpu()
    seen = torch.where(weights[..., None] > 0, seen, 0)
    if not torch.isfinite(seen).all():
        raise BadInput("Expected finite points, got NaN or infinite ones; give a missing point the weight 0.")
    for face, counted in enumerate((weights > 0).sum(1).tolist()):
        if counted < 3:
            raise BadInput(f"Expected at least 3 points of a face with a weight above 0, got {counted} of face {face}.")
        spread = seen[face][weights[face] > 0]
        if (spread.amax(0) - spread.amin(0)).max() == 0:
            raise BadInput(f"Expected points at different places, got one place for all of face {face}.")
    return seen, weights, layouts[points.shape[1]].double()


class _Face:
    """Points of a face from its state.

    A state `[B, P]` holds log s, tx, ty and rotation (the pose), jaw, expression and shape coefficients.
    """

    def __init__(self, model: HeadModel, layout: Tensor, n_shape: int, n_expression: int):
        self.model = model.to("cpu")
        self.rig = self.model.rig.to(dtype=torch.float64)
        self.layout = layout
        self.n_shape, self.n_expression = n_shape, n_expression
        self.size = POSE + 3 + n_expression + n_shape
        rest = torch.zeros(1, self.size, dtype=torch.float64)
        self.at_rest = self.landmarks(rest, self.places(rest))[0]

    def fields(self, state: Tensor) -> dict[str, Tensor]:
        """What a state means, under the names of HeadParams; coefficients only as far as they are solved."""
        log_s, shift, rotation, jaw, expression, shape = state.split([1, 2, 3, 3, self.n_expression, self.n_shape], 1)
        camera = torch.cat([log_s.exp(), shift], dim=1)
        return {"camera": camera, "rotation": rotation, "jaw": jaw, "expression": expression, "shape": shape}

    def places(self, state: Tensor) -> Places:
        """The landmarks' triangles and weights for the yaw of each state."""
        rotation = state[:, 3:POSE]
        return self.model.landmark_places(rotation, torch.zeros_like(rotation))

    def landmarks(self, state: Tensor, places: Places) -> Tensor:
        """The 68 landmarks `[B, 68, 3]` in head space; no other vertices are posed."""
        triangles, barycentric = places
        used, corners = self.model.faces[triangles].unique(return_inverse=True)
        part = self.fields(state)
        rest = torch.zeros_like(part["rotation"])
        rotations = torch.stack([part["rotation"], rest, part["jaw"], rest, rest], dim=1)
        vertices = self.rig.select(used).pose(self.model.coefficients(part["shape"], part["expression"]), rotations)
        picked = vertices.gather(1, corners.flatten(1)[..., None].expand(-1, -1, 3)).unflatten(1, (LANDMARKS, 3))
        return (picked * barycentric[..., None]).sum(2)

    def points(self, state: Tensor, places: Places) -> Tensor:
        """The layout's points `[B, K, 2]` in frame units."""
        return project(self.layout @ self.landmarks(state, places), self.fields(state)["camera"])[..., :2]


class _Problem:
    """What the fit of B faces makes small."""

    def __init__(self, face: _Face, seen: Tensor, weights: Tensor, deviation: float, pitch_deviation: float | None):
        self.face, self.seen, self.weights, self.pitch_deviation = face, seen, weights, pitch_deviation
        spread = torch.ones(face.size - POSE, dtype=torch.float64)
        spread[:3] = torch.tensor(JAW_DEVIATION)
        self.spread = spread
        self.rotations, self.scale = self._closed_form()
        height = face.at_rest[:, 1].max() - face.at_rest[:, 1].min()
        self.unit = deviation * self.scale * height

    def _pose_weights(self) -> Tensor:
        """The contour slides with the unknown yaw; the first pose leaves it out where enough is left."""
        inner = self.weights.clone()
        inner[:, self.face.layout.argmax(1) < CONTOUR] = 0
        return torch.where(((inner > 0).sum(1) >= 6)[:, None], inner, self.weights)

    def _closed_form(self) -> tuple[Tensor, Tensor]:
        points = (self.face.layout @ self.face.at_rest).expand(len(self.seen), -1, -1)
        return scaled_orthography(points, self.seen, self._pose_weights())

    def start(self) -> Tensor:
        """States after the closed-form pose and a rigid fit, of its mirrored pair the one that fits better."""
        weights = self._pose_weights()
        share = (weights / weights.sum(1, keepdim=True))[..., None]
        around = self.around(weights)
        states = []
        for R in self.rotations:
            state = torch.zeros(len(self.seen), self.face.size, dtype=torch.float64)
            state[:, 0] = self.scale.log()
            state[:, 3:POSE] = matrix_to_axis_angle(R)
            state[:, 1:3] = (share * (self.seen - self.face.points(state, self.face.places(state)))).sum(1)
            states.append(minimise(around, state, POSE, POSE_STEPS))
        costs = [around(state)(state[None])[0].square().sum(1, keepdim=True) for state in states]
        return torch.where(costs[0] <= costs[1], *states)

    def around(self, weights: Tensor) -> Callable[[Tensor], Residuals]:
        """What `minimise` asks for: the residuals near a state, with that state's choice of contour points."""

        def choose(state: Tensor) -> Residuals:
            triangles, barycentric = self.face.places(state)

            def residuals(states: Tensor) -> Tensor:
                S = len(states)
                flat = states.flatten(0, 1)
                points = self.face.points(flat, (triangles.repeat(S, 1), barycentric.repeat(S, 1, 1)))
                gap = (points.unflatten(0, states.shape[:2]) - self.seen) / self.unit[:, None, None]
                parts = [(weights.sqrt()[..., None] * gap).flatten(2), states[..., POSE:] / self.spread]
                if self.pitch_deviation is not None:
                    R = axis_angle_to_matrix(states[..., 3:POSE])
                    parts.append(torch.atan2(R[..., 2, 1], R[..., 2, 2])[..., None] / self.pitch_deviation)
                return torch.cat(parts, dim=2)

            return residuals

        return choose
