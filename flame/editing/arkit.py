"""ARKit's 52 blendshapes as expression, jaw and gaze of a head model, and back.

`blendshapes.py` corrects for the face network that predicts such coefficients from photos. Here they are what an animator or a
motion capture means by them: at 1, the whole movement.

Conventions: names are ARKit's; "Left" is the person's left. Coefficients are in 0..1. Forwards, each blendshape is an amount of
the sliders of `expressions.py`, a turn of the jaw, or a turn of an eye; those that heads cannot show have no effect. Backwards,
the coefficients are those whose movement of the landmarks is closest to the head's:
`min_c |sum_k c_k D_k - t|² + sum_k lambda_k c_k²` with `0 <= c_k <= 1`, in millimetres.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float, Num
from ..model import CONTOUR, HeadModel, HeadParams
from .expressions import JAW_DEVIATION, SLIDERS, bounded_least_squares, express, point_derivatives

# fmt: off
ARKIT = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft", "eyeWideLeft",
    "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight", "eyeSquintRight",
    "eyeWideRight", "jawForward", "jawLeft", "jawRight", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft",
    "mouthRight", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft",
    "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper", "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)
# fmt: on
"""The 52 names, in ARKit's order."""

_SIDES = {
    "eyeBlink": {"eyes_closed": 1.0},
    "eyeSquint": {"squint": 1.0},
    "eyeWide": {"eyes_closed": -0.4},
    "mouthSmile": {"smile": 1.0},
    "mouthUpperUp": {"sneer": 0.6},
    "noseSneer": {"sneer": 1.0},
    "browOuterUp": {"brows_up": 0.6},
}
"""Amounts of the slider of the same side, for a blendshape of 1."""
_BOTH = {
    "mouthFrownLeft": {"frown": 0.5},
    "mouthFrownRight": {"frown": 0.5},
    "jawOpen": {"mouth_open": 1.5},
    "mouthFunnel": {"pucker": 0.5, "mouth_open": 0.25},
    "mouthPucker": {"pucker": 1.0},
    "browDownLeft": {"brows_down": 0.5},
    "browDownRight": {"brows_down": 0.5},
    "browInnerUp": {"brows_up_left": 0.6, "brows_up_right": 0.6},
    "cheekPuff": {"cheeks": 1.0},
}
"""Amounts of sliders by name."""
_EFFECTS: dict[str, dict[str, float]] = {
    **{
        f"{name}{side.capitalize()}": {f"{slider}_{side}": amount for slider, amount in sliders.items()}
        for name, sliders in _SIDES.items()
        for side in ("left", "right")
    },
    **_BOTH,
}
_SECONDARY = ("eyeSquint", "mouthUpperUp", "mouthFunnel")
"""Blendshapes that look almost like another one: they get what the others cannot explain."""
_JAW_ASIDE = 0.15
"""Radians that the jaw turns aside for a coefficient of 1."""
_LOOK = math.radians(30)
"""Radians that an eye turns for a coefficient of 1."""
_PRIMARY_PRIOR, _SECONDARY_PRIOR = 0.5, 30.0
_SWEEPS = 300
SHOWN = (
    *_EFFECTS,
    "jawLeft",
    "jawRight",
    *(f"eyeLook{way}{side}" for way in ("In", "Out", "Up", "Down") for side in ("Left", "Right")),
)
"""The blendshapes that heads can show."""


def heads_from_arkit(model: HeadModel, coefficients: Mapping[str, Num[Tensor, " B"]], base: HeadParams) -> HeadParams:
    """Give heads the expression, jaw and gaze of ARKit's blendshapes.

    Args:
        model: A head model with landmarks.
        coefficients: `[B]` by name; those left out are 0, and values outside 0..1 are clamped.
        base: B heads, whose expression, jaw and gaze are replaced.

    Raises:
        BadInput: A name is unknown, or the model has no landmarks.
    """
    unknown = sorted(set(coefficients) - set(ARKIT))
    if unknown:
        raise BadInput(f"Expected ARKit's blendshapes, such as {ARKIT[0]}; got {', '.join(unknown[:5])}.")
    zero = base.shape.new_zeros(base.batch)

    def value(name: str) -> Tensor:
        return coefficients[name].to(zero).clamp(0, 1) if name in coefficients else zero

    amounts = dict.fromkeys(SLIDERS, zero)
    for name, sliders in _EFFECTS.items():
        for slider, amount in sliders.items():
            amounts[slider] = amounts[slider] + amount * value(name)
    amounts = {name: amount.clamp(SLIDERS[name].least, SLIDERS[name].most) for name, amount in amounts.items()}
    plain = base.replace(expression=torch.zeros_like(base.expression), jaw=torch.zeros_like(base.jaw))
    heads = express(model, plain, amounts)
    aside = _JAW_ASIDE * (value("jawLeft") - value("jawRight"))
    jaw = heads.jaw + torch.stack([zero, aside, zero], dim=1)
    # the person's left is x > 0, and a positive turn about y looks there
    turns = [
        part
        for side, sign in (("Left", 1.0), ("Right", -1.0))
        for part in (
            value(f"eyeLookDown{side}") - value(f"eyeLookUp{side}"),
            sign * (value(f"eyeLookOut{side}") - value(f"eyeLookIn{side}")),
            zero,
        )
    ]
    return heads.replace(jaw=jaw, eyes=_LOOK * torch.stack(turns, dim=1))


def arkit_of_heads(model: HeadModel, heads: HeadParams) -> dict[str, Float[Tensor, " B"]]:
    """Find the blendshapes that show the expression, jaw and gaze of heads.

    Args:
        model: The head model of the heads, with landmarks.
        heads: B heads.

    Returns:
        All 52 coefficients `[B]`, in ARKit's order. Those that heads cannot show are 0.

    Raises:
        BadInput: The model has no landmarks.
    """
    names = list(_EFFECTS)
    heads = heads.to("cpu")
    _, derivatives, jaw = point_derivatives(model.to("cpu"))
    # millimetres of the 53 points within the face, by expression and by the jaw's opening in radians
    by_expression = 1000 * derivatives[:, CONTOUR:].flatten(1)
    by_jaw = 1000 * jaw[CONTOUR:].flatten() / JAW_DEVIATION

    def moved(shown: HeadParams) -> Tensor:
        return shown.expression.double()[:, : len(by_expression)] @ by_expression + shown.jaw[:, :1].double() * by_jaw

    single = HeadParams.neutral(len(names))
    D = moved(heads_from_arkit(model, dict(zip(names, torch.eye(len(names)), strict=True)), single))
    prior = D.new_tensor([_SECONDARY_PRIOR if name.startswith(_SECONDARY) else _PRIMARY_PRIOR for name in names])
    solved = bounded_least_squares(D, moved(heads), prior, torch.zeros_like(prior), torch.ones_like(prior), _SWEEPS)
    found = dict(zip(names, solved.float().T, strict=True))
    down, aside = (heads.eyes.view(-1, 2, 3)[..., axis] / _LOOK for axis in (0, 1))
    for eye, (side, sign) in enumerate((("Left", 1.0), ("Right", -1.0))):
        found[f"eyeLookDown{side}"], found[f"eyeLookUp{side}"] = down[:, eye], -down[:, eye]
        found[f"eyeLookOut{side}"], found[f"eyeLookIn{side}"] = sign * aside[:, eye], -sign * aside[:, eye]
    found["jawLeft"], found["jawRight"] = heads.jaw[:, 1] / _JAW_ASIDE, -heads.jaw[:, 1] / _JAW_ASIDE
    zero = torch.zeros(heads.batch)
    return {name: found.get(name, zero).clamp(0, 1) for name in ARKIT}
