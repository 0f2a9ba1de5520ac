"""Expression sliders that have the same effect on every head model.

Conventions: left and right are the person's (the person's left is on the picture's right, x > 0). A slider is a displacement of
landmarks (indices 0 to 67 of 300-W) and of a point on each cheek, relative to the average head at rest, from the front. The
unit is the eye distance, between the centres of the landmarks of both eyes. Lids move by fractions of their own opening. Axes
are out (away from the middle of the face), up and forwards. At 1 a slider shows the whole displacement.

The parameters of a head model are solved once, by least squares over its expression basis and, for the open mouth, its jaw
joint: `min_e sum_i w_i |D_i e - t_i|² / sigma² + |e|²` with the points' derivatives D and their displacements t, 0 for those
that the slider does not move. The components of a model need no annotation.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Bool, Float, Num
from ..model import CONTOUR, N_LANDMARKS, HeadModel, HeadParams

LEFT_CHEEK = N_LANDMARKS
"""Index of the point on the person's left cheek. The one on the right cheek follows it."""

# sigma, in eye distances. Followers have a low weight because they may lag behind. So has the contour: it slides over the skin.
DEVIATION = 0.02
FOLLOWER_WEIGHT = 0.15
CONTOUR_WEIGHT = 0.3
# The prior reduces a slider's effect. To show the whole displacement, the solution may be scaled by at most this factor.
MOST_GAIN = 1.5
# Limit of each component in standard deviations, for models that cannot show a displacement.
MOST_DEVIATIONS = 4.0
# The motion of the jaw is linearised over JAW_REFERENCE radians. Its coefficient has a standard deviation of JAW_DEVIATION.
JAW_REFERENCE, JAW_DEVIATION = 0.3, 0.2
# Amounts are read from a head in this many rounds. The prior, in squared eye distances, keeps those small that move no point.
AMOUNT_ROUNDS = 100
AMOUNT_PRIOR = 1e-4

# The mirror image of each landmark on the other side of the face.
_MIRROR = {
    **{i: 16 - i for i in range(17)},
    **{i: 43 - i for i in range(17, 27)},
    **{i: i for i in range(27, 31)},
    **{i: 66 - i for i in range(31, 36)},
    **{36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46},
    **{45: 36, 44: 37, 43: 38, 42: 39, 47: 40, 46: 41},
    **{i: 102 - i for i in range(48, 55)},
    **{i: 114 - i for i in range(55, 60)},
    **{i: 124 - i for i in range(60, 65)},
    **{i: 132 - i for i in range(65, 68)},
    LEFT_CHEEK: LEFT_CHEEK + 1,
}
# Pairs (lower lid, upper lid) that meet when the person's left eye closes.
_LIDS = ((47, 43), (46, 44))

Move = tuple[float, float, float]
"""Out, up and forwards."""


@dataclass(frozen=True)
class Slider:
    """A displacement, defined on the person's left side."""

    sides: str
    """The side of the face that moves: "left", "right" or "both"."""
    own: Mapping[int, Move] = field(default_factory=dict)
    """Displacements of the landmarks that show the slider, in eye distances."""
    followers: Mapping[int, Move] = field(default_factory=dict)
    """Displacements of landmarks that may follow only partly."""
    lids: tuple[float, float] = (0.0, 0.0)
    """How far the upper lid moves down and the lower lid up, as fractions of the eye's opening."""
    free: tuple[int, ...] = ()
    """Landmarks that may move freely."""
    jaw: bool = False
    """Whether the slider also moves the jaw joint."""
    least: float = -1.0
    most: float = 1.5
    """The useful range is `least` to `most`. Values below 0 reduce the head's own expression."""
    help: str = ""


class _Displacement(TypedDict, total=False):
    """The fields of `Slider` that two sliders share."""

    own: Mapping[int, Move]
    followers: Mapping[int, Move]
    free: tuple[int, ...]


_SMILE: _Displacement = {
    "own": {54: (0.08, 0.115, -0.045), 64: (0.075, 0.11, -0.04)},
    "followers": {53: (0.05, 0.05, -0.02), 55: (0.05, 0.055, -0.02), 63: (0.04, 0.04, -0.01), 65: (0.04, 0.045, -0.01)},
    "free": (LEFT_CHEEK, 46, 47, 52, 56),
}
_BROW_UP: Mapping[int, Move] = {22: (0, 0.11, 0), 23: (0, 0.12, 0), 24: (0, 0.12, 0), 25: (0, 0.11, 0), 26: (0, 0.08, 0)}
_BROW_DOWN: _Displacement = {
    "own": {22: (-0.03, -0.10, 0.02), 23: (-0.03, -0.11, 0.02), 24: (-0.02, -0.09, 0.01), 25: (0, -0.06, 0)},
    "followers": {26: (0, -0.03, 0)},
    "free": (27,),
}
_SNEER: _Displacement = {
    "own": {35: (0.01, 0.045, 0.01), 34: (0.005, 0.025, 0.01), 52: (0, 0.065, 0.01), 63: (0, 0.06, 0.01)},
    "followers": {53: (0, 0.04, 0.01), 51: (0, 0.02, 0), 62: (0, 0.02, 0), 22: (0, -0.01, 0.01)},
    "free": (LEFT_CHEEK, 33),
}

SLIDERS: dict[str, Slider] = {
    "smile_left": Slider("left", **_SMILE, help="Draws the mouth's corner up and out."),
    "smile_right": Slider("right", **_SMILE, help="Draws the mouth's corner up and out."),
    "frown": Slider(
        "both",
        own={54: (0.01, -0.10, -0.01), 64: (0.01, -0.095, -0.01), **dict.fromkeys((63, 65), (0, -0.04, 0))},
        followers={53: (0, -0.03, 0), 55: (0, -0.05, 0)},
        free=(LEFT_CHEEK,),
        help="Draws the mouth's corners down.",
    ),
    "mouth_open": Slider(
        "both",
        own=dict.fromkeys((56, 57, 65, 66), (0, -0.40, -0.28)),
        followers={55: (-0.02, -0.26, -0.18), **dict.fromkeys((54, 64), (-0.03, -0.12, -0.09)), 8: (0, -0.38, -0.42)},
        free=(9, 10, 11, 12, 13, 14, LEFT_CHEEK),
        jaw=True,
        help="Opens the jaw.",
    ),
    "pucker": Slider(
        "both",
        own={
            **{54: (-0.14, 0, 0.04), 64: (-0.12, 0, 0.04), 51: (0, 0.01, 0.07), 57: (0, -0.01, 0.07)},
            **dict.fromkeys((62, 66), (0, 0, 0.06)),
            **dict.fromkeys((63, 65), (-0.03, 0, 0.06)),
        },
        followers={**dict.fromkeys((53, 55), (-0.08, 0, 0.06)), **dict.fromkeys((52, 56), (-0.03, 0, 0.06))},
        free=(LEFT_CHEEK,),
        help="Purses the lips as for a kiss.",
    ),
    "brows_up_left": Slider("left", own=_BROW_UP, help="Raises the brow."),
    "brows_up_right": Slider("right", own=_BROW_UP, help="Raises the brow."),
    "brows_down": Slider("both", **_BROW_DOWN, help="Lowers both brows and draws them together."),
    "eyes_closed_left": Slider("left", lids=(0.8, 0.2), most=1.0, help="Shuts the eye."),
    "eyes_closed_right": Slider("right", lids=(0.8, 0.2), most=1.0, help="Shuts the eye."),
    "squint_left": Slider("left", lids=(0.3, 0.15), most=1.0, help="Narrows the eye."),
    "squint_right": Slider("right", lids=(0.3, 0.15), most=1.0, help="Narrows the eye."),
    "sneer_left": Slider("left", **_SNEER, help="Raises the nostril and the upper lip."),
    "sneer_right": Slider("right", **_SNEER, help="Raises the nostril and the upper lip."),
    "cheeks": Slider(
        "both", own={LEFT_CHEEK: (0.08, 0, 0.09)}, free=(10, 11, 12, 13, 53, 54, 55, 64), help="Puffs both cheeks."
    ),
}
"""All sliders by name."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Parameter changes of each slider at 1, for one head model."""

    expression: Float[Tensor, "S 50"]
    """`[S, 50]`, in the order of SLIDERS."""
    jaw: Float[Tensor, "S 3"]
    """`[S, 3]` axis-angle, radians."""


@dataclass(frozen=True, eq=False)
class Target:
    """Target displacements of a slider for the points of one head model."""

    displacement: Float[Tensor, "70 3"]
    """`[70, 3]` in metres."""
    weights: Float[Tensor, "70"]
    """`[70]` weights of the points in the fit."""
    own: Bool[Tensor, "70"]
    """`[70]` bool, the points that show the slider."""


_solved: "weakref.WeakKeyDictionary[HeadModel, Directions]" = weakref.WeakKeyDictionary()


def express(model: HeadModel, head: HeadParams, amounts: Mapping[str, float | Num[Tensor, "..."]]) -> HeadParams:
    """Add expressions to heads.

    Args:
        model: The head model, with landmarks.
        head: B heads.
        amounts: Amounts by slider name, each one number or `[B]`; 1 is the whole displacement.

    Returns:
        The heads with other expression and jaw; the same object if every amount is 0.

    Raises:
        BadInput: A slider is unknown, an amount is neither one number nor `[B]`, or the model has no landmarks.
    """
    unknown = sorted(set(amounts) - set(SLIDERS))
    if unknown:
        raise BadInput(f"Expected expressions among {', '.join(SLIDERS)}; got {', '.join(unknown)}.")
    columns = [torch.as_tensor(amounts.get(name, 0.0), dtype=torch.float32, device=head.device) for name in SLIDERS]
    if not any(column.any() for column in columns):
        return head
    if any(column.dim() > 1 or (column.dim() == 1 and len(column) != head.batch) for column in columns):
        raise BadInput(f"Expected one number or {head.batch} for each expression, one a head.")
    amount = torch.stack([column.expand(head.batch) for column in columns], dim=1)
    directions = slider_directions(model)
    return head.replace(
        expression=head.expression + amount @ directions.expression.to(head.device),
        jaw=head.jaw + amount @ directions.jaw.to(head.device),
    )


def amounts_of(model: HeadModel, head: HeadParams) -> dict[str, float]:
    """Return the amounts whose sliders come closest to a head's expression and open jaw.

    The amounts are least squares over the displacements of the sliders' points, within the range of each slider. What no slider
    can show is left out.

    Args:
        model: A head model with landmarks.
        head: One head.

    Returns:
        Amounts by slider name, as for `express`.

    Raises:
        BadInput: The model has no landmarks.
    """
    directions = slider_directions(model)
    rest, derivatives, jaw = point_derivatives(model.to("cpu"))
    K = len(derivatives)
    # Each row is a displacement of all points, in eye distances.
    per_component = torch.cat([derivatives, jaw[None]]).flatten(1) / eye_distance(rest)

    def displacement(expression: Tensor, jaws: Tensor) -> Tensor:
        return torch.cat([expression[:, :K], jaws[:, :1] / JAW_DEVIATION], dim=1).double().cpu() @ per_component

    columns = displacement(directions.expression, directions.jaw)
    wanted = displacement(head.expression[:1], head.jaw[:1])
    least, most = (torch.tensor([getattr(one, end) for one in SLIDERS.values()]).double() for end in ("least", "most"))
    prior = torch.full_like(least, AMOUNT_PRIOR)
    (amounts,) = bounded_least_squares(columns, wanted, prior, least, most, AMOUNT_ROUNDS)
    return dict(zip(SLIDERS, amounts.tolist(), strict=True))


def bounded_least_squares(
    rows: Float[Tensor, "K M"],
    targets: Float[Tensor, "B M"],
    prior: Float[Tensor, " K"],
    least: Float[Tensor, " K"],
    most: Float[Tensor, " K"],
    rounds: int,
) -> Float[Tensor, "B K"]:
    """Minimise `|c rows - target|² + sum prior c²` over `least <= c <= most` for each target.

    Coordinate descent: in each round, each coefficient in turn becomes the best one for the others.

    Args:
        rows: What a coefficient of 1 contributes, one row each.
        targets: What the coefficients shall make.
        prior: Weights of the coefficients' squares.
        least: Least coefficients.
        most: Largest coefficients.
        rounds: Number of rounds.
    """
    gram, right = rows @ rows.T, targets @ rows.T
    c = torch.zeros_like(right)
    for _ in range(rounds):
        for k in range(len(rows)):
            rest = right[:, k] - c @ gram[:, k] + c[:, k] * gram[k, k]
            c[:, k] = (rest / (gram[k, k] + prior[k])).clamp(least[k], most[k])
    return c


def slider_directions(model: HeadModel) -> Directions:
    """Return the parameter changes of all sliders for a model. They are solved once per model.

    Args:
        model: A head model with landmarks.

    Raises:
        BadInput: The model has no landmarks.
    """
    if model not in _solved:
        _solved[model] = _solve(model.to("cpu"))
    return _solved[model]


def _solve(model: HeadModel) -> Directions:
    """Solve the parameter changes of all sliders."""
    rest, derivatives, jaw = point_derivatives(model)
    unit = eye_distance(rest) * DEVIATION
    K = len(derivatives)
    expression = torch.zeros(len(SLIDERS), HeadParams.neutral().expression.shape[1])
    turns = torch.zeros(len(SLIDERS), 3)
    for row, slider in enumerate(SLIDERS.values()):
        target = slider_target(slider, rest)
        columns = torch.cat([derivatives, jaw[None]]) if slider.jaw else derivatives
        weight = (target.weights.sqrt() / unit)[:, None]
        A = (columns * weight).flatten(1).T
        t = (target.displacement * weight).flatten()
        # (A^T A + I) e = A^T t
        e = torch.linalg.solve(A.T @ A + torch.eye(A.shape[1], dtype=A.dtype), A.T @ t)
        # e <- e |t|² / t·De over the points that show the slider
        shown, wanted = (columns.flatten(1).T @ e).view(-1, 3)[target.own], target.displacement[target.own]
        achieved = float((shown * wanted).sum() / wanted.square().sum())
        e = e / min(max(achieved, 1 / MOST_GAIN), MOST_GAIN)
        e = e * min(1.0, MOST_DEVIATIONS / max(float(e.abs().max()), 1e-12))
        expression[row, :K] = e[:K].float()
        if slider.jaw:
            turns[row, 0] = float(e[K]) * JAW_DEVIATION
    return Directions(expression, turns)


def point_derivatives(model: HeadModel) -> tuple[Tensor, Tensor, Tensor]:
    """Return the points of the head at rest `[70, 3]`, and their derivatives by expression `[K, 70, 3]` and jaw `[70, 3]`.

    All are in double precision. K is at most the number of expression coefficients of a head.
    """
    neutral = HeadParams.neutral()
    K = min(model.n_expression, neutral.expression.shape[1])
    basis = model.rig.basis[model.n_shape : model.n_shape + K]
    opened = neutral.replace(jaw=torch.tensor([[JAW_REFERENCE, 0.0, 0.0]]))
    at_rest, with_jaw = model.vertices(HeadParams.cat([neutral, opened])).double()
    meshes = torch.cat([torch.stack([at_rest, with_jaw - at_rest]), basis.double()])
    triangles, weights = model.landmark_places(torch.zeros(1))
    corners, barycentric = model.faces[triangles[0]], weights[0].double()
    points = (meshes[:, corners] * barycentric[None, :, :, None]).sum(2)
    points = torch.cat([points, meshes[:, _cheeks(at_rest, points[0])]], dim=1)
    return points[0], points[2:], points[1] * (JAW_DEVIATION / JAW_REFERENCE)


def _cheeks(vertices: Tensor, landmarks: Tensor) -> Tensor:
    """Find the vertices `[2]` on the person's left and right cheek, midway between the mouth's corners and the jaw."""
    middles = torch.stack([landmarks[54] + landmarks[12], landmarks[48] + landmarks[4]]) / 2
    return torch.cdist(middles, vertices).argmin(1)


def eye_distance(landmarks: Float[Tensor, "N 3"]) -> float:
    """Measure the distance between the eyes.

    Args:
        landmarks: `[N, 3]`, the 68 landmarks first.

    Returns:
        The distance, in the unit of the landmarks.
    """
    return float((landmarks[42:48].mean(0) - landmarks[36:42].mean(0)).norm())


def slider_target(slider: Slider, rest: Float[Tensor, "70 3"]) -> Target:
    """Compute the target displacements of a slider.

    Args:
        slider: One of SLIDERS.
        rest: Landmarks and cheeks of a head at rest, `[70, 3]` in metres.
    """
    unit = eye_distance(rest)
    displacement = torch.zeros_like(rest)
    weights = torch.ones(len(rest), dtype=rest.dtype)
    weights[:CONTOUR] = CONTOUR_WEIGHT
    own = torch.zeros(len(rest), dtype=torch.bool)
    sides = ("left", "right") if slider.sides == "both" else (slider.sides,)
    for side in sides:

        def place(index: int, side: str = side) -> int:
            return index if side == "left" else _MIRROR[index]

        axes = rest.new_tensor([unit if side == "left" else -unit, unit, unit])
        for index in slider.free:
            weights[place(index)] = 0
        for moves, weight in ((slider.followers, FOLLOWER_WEIGHT), (slider.own, 1.0)):
            for index, move in moves.items():
                displacement[place(index)] = rest.new_tensor(move) * axes
                weights[place(index)] = weight
                own[place(index)] = weight == 1.0
        if any(slider.lids):
            for lower, upper in _LIDS:
                opening = rest[place(upper)] - rest[place(lower)]
                displacement[place(upper)], displacement[place(lower)] = -slider.lids[0] * opening, slider.lids[1] * opening
                own[[place(upper), place(lower)]] = True
    return Target(displacement, weights, own)
