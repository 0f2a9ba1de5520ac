"""Blendshape coefficients of a face network as expression, jaw and gaze of a head model.

Conventions: names are ARKit's, as MediaPipe's blendshape network uses them; "Left" is the person's left. Coefficients are in
0..1.
"""

import math
from collections.abc import Mapping

import torch

from ...shapes import Float
from ..model import HeadModel, HeadParams
from .expressions import SLIDERS, express

_PAIRS = {
    "smile": {"mouthSmile": 1.0},
    "eyes_closed": {"eyeBlink": 1.6},
    "brows_up": {"browOuterUp": 0.5},
    "sneer": {"noseSneer": 0.5},
}
"""Sliders with a left and a right side: their amount for a blendshape of 1 on that side."""
_BOTH = {
    "brows_up_left": {"browInnerUp": 0.5},
    "brows_up_right": {"browInnerUp": 0.5},
    "brows_down": {"browDownLeft": 0.15, "browDownRight": 0.15},
    "mouth_open": {"jawOpen": 1.5},
    "pucker": {"mouthPucker": 0.8},
    "frown": {"mouthFrownLeft": 0.5, "mouthFrownRight": 0.5},
}
_OPEN_EYE = 0.06
"""The coefficient eyeBlink of an open eye."""
_LOOK_ASIDE, _LOOK_UP = 30.0, 10.0
"""Degrees that an eye turns for a coefficient of 1. Up and down show in the lids as well, and are predicted less well."""

BLENDSHAPE_NAMES = (
    *(f"{name}{side}" for group in _PAIRS.values() for name in group for side in ("Left", "Right")),
    *dict.fromkeys(name for group in _BOTH.values() for name in group),
    *(f"eyeLook{way}{side}" for way in ("In", "Out", "Up", "Down") for side in ("Left", "Right")),
)
"""The blendshapes that are used."""


def head_from_blendshapes(model: HeadModel, coefficients: Mapping[str, Float[torch.Tensor, " B"]]) -> HeadParams:
    """Return average heads with the expression, jaw and gaze that blendshapes describe.

    The amounts of the sliders for a coefficient of 1 were chosen so that the sliders of rendered heads are predicted without
    bias (`python tasks.py bench face_mesh`).

    Args:
        model: A head model with landmarks.
        coefficients: Coefficients of B faces by name; those in BLENDSHAPE_NAMES are needed.

    Raises:
        BadInput: The model has no landmarks.
    """
    amounts = {name: torch.zeros(()) for name in SLIDERS}
    for slider, group in _PAIRS.items():
        for name, factor in group.items():
            for side in ("left", "right"):
                value = coefficients[name + side.capitalize()]
                rest = _OPEN_EYE if name == "eyeBlink" else 0.0
                amounts[f"{slider}_{side}"] = amounts[f"{slider}_{side}"] + factor * (value - rest).clamp(min=0)
    for slider, group in _BOTH.items():
        for name, factor in group.items():
            amounts[slider] = amounts[slider] + factor * coefficients[name]
    amounts = {name: amount.clamp(max=SLIDERS[name].most) for name, amount in amounts.items()}
    count = len(coefficients["eyeLookInLeft"])
    head = express(model, HeadParams.neutral(count), amounts)

    def look(way: str, side: str) -> torch.Tensor:
        return coefficients[f"eyeLook{way}{side}"]

    # Both eyes look at one point: the person's left eye looks out where the right one looks in.
    aside = (look("Out", "Left") - look("In", "Left") + look("In", "Right") - look("Out", "Right")) / 2
    up = (look("Up", "Left") - look("Down", "Left") + look("Up", "Right") - look("Down", "Right")) / 2
    yaw, pitch = aside * math.radians(_LOOK_ASIDE), up * math.radians(_LOOK_UP)
    eye = torch.stack([-pitch, yaw, torch.zeros_like(yaw)], dim=1).float()
    return head.replace(eyes=torch.cat([eye, eye], dim=1))
