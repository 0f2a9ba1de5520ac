"""The named expressions of the built-in head.

Conventions: left and right are the person's (left is x > 0). One unit is a clear expression, and two units are its
natural limit: at 2, `eye_closed` has just shut the eye. Opening the mouth is a rotation of the jaw, not an expression.
"""

from dataclasses import dataclass

import numpy as np

from ...shapes import Float
from .anthropometry import Measures
from .curves import blob, smoothstep
from .mesh import EAR, EYE, TEETH, Mesh, half_points


@dataclass(frozen=True)
class Pull:
    """A displacement of part of the face, weighted by a Gaussian; given for the person's left."""

    at: tuple[float, float]
    """x >= 0 and y of the centre, in metres"""
    radius: tuple[float, float]
    """Standard deviations in x and y, in metres"""
    by: tuple[float, float, float]
    """Displacement to the person's left, upwards and forwards, in metres"""
    lip: str = ""
    """"upper" or "lower" if the other lip does not move"""


_CORNER = (0.027, -0.041)

# name: pulls, applied to both sides
_BOTH: dict[str, tuple[Pull, ...]] = {
    "mouth_wide": (Pull(_CORNER, (0.017, 0.014), (0.0042, 0.0, -0.0030)),),
    "pucker": (
        Pull(_CORNER, (0.0115, 0.009), (-0.0060, 0.0, 0.0030)),
        Pull((0.0, -0.036), (0.012, 0.007), (0.0, 0.0006, 0.0044), "upper"),
        Pull((0.0, -0.047), (0.012, 0.007), (0.0, -0.0006, 0.0044), "lower"),
    ),
    "funnel": (
        Pull(_CORNER, (0.012, 0.012), (-0.0032, 0.0, 0.0022)),
        Pull((0.0, -0.036), (0.016, 0.008), (0.0, 0.0030, 0.0026), "upper"),
        Pull((0.0, -0.047), (0.016, 0.008), (0.0, -0.0042, 0.0028), "lower"),
    ),
    "lips_pressed": (
        Pull((0.0, -0.037), (0.018, 0.006), (0.0, -0.0012, -0.0018), "upper"),
        Pull((0.0, -0.046), (0.018, 0.006), (0.0, 0.0012, -0.0018), "lower"),
    ),
    "chin_raised": (
        Pull((0.0, -0.068), (0.016, 0.010), (0.0, 0.0026, 0.0010)),
        Pull((0.0, -0.043), (0.018, 0.009), (0.0, 0.0016, 0.0006)),
    ),
    "nostrils_flared": (Pull((0.016, -0.0135), (0.006, 0.007), (0.0018, 0.0003, 0.0006)),),
}
# name: pulls of the left side; each entry gives one component per side
_SIDED: dict[str, tuple[Pull, ...]] = {
    "smile": (
        Pull(_CORNER, (0.0165, 0.011), (0.0040, 0.0050, -0.0032)),
        Pull((0.038, -0.010), (0.013, 0.011), (0.0006, 0.0022, 0.0022)),
        Pull((0.031, 0.018), (0.013, 0.004), (0.0, 0.0008, 0.0004)),
    ),
    "frown": (Pull(_CORNER, (0.015, 0.012), (0.0010, -0.0044, -0.0008)),),
    "upper_lip_raised": (Pull((0.009, -0.035), (0.010, 0.009), (0.0, 0.0032, 0.0006), "upper"),),
    "lower_lip_lowered": (Pull((0.009, -0.048), (0.010, 0.009), (0.0, -0.0034, 0.0004), "lower"),),
    "cheek_puffed": (Pull((0.041, -0.032), (0.014, 0.014), (0.0046, 0.0, 0.0050)),),
    "sneer": (
        Pull((0.0145, -0.010), (0.007, 0.009), (0.0004, 0.0024, 0.0008)),
        Pull((0.013, -0.034), (0.009, 0.007), (0.0, 0.0022, 0.0006), "upper"),
        Pull((0.010, 0.020), (0.006, 0.008), (0.0, 0.0006, 0.0008)),
    ),
    "brow_inner_up": (Pull((0.012, 0.048), (0.010, 0.0085), (0.0, 0.0038, 0.0)),),
    "brow_outer_up": (Pull((0.038, 0.050), (0.013, 0.0075), (0.0, 0.0038, 0.0)),),
    "brow_down": (Pull((0.020, 0.046), (0.015, 0.008), (-0.0012, -0.0034, 0.0008)),),
}
# name: how far two units close the upper and the lower lid, and the pulls that go with it
_LIDS: dict[str, tuple[tuple[float, float], tuple[Pull, ...]]] = {
    "eye_closed": ((1.0, 1.0), ()),
    "squint": ((0.10, 0.80), (Pull((0.034, 0.011), (0.014, 0.007), (0.0, 0.0018, 0.0012)),)),
}
# name: displacement of the whole jaw
_JAW: dict[str, tuple[float, float, float]] = {"jaw_forward": (0.0, 0.0, 0.0030), "jaw_left": (0.0026, 0.0, 0.0)}

EXPRESSION_NAMES = (
    *_BOTH, *_JAW, "mouth_left", *(f"{name}_{side}" for name in (*_SIDED, *_LIDS) for side in ("left", "right"))
)  # fmt: skip


def expression_basis(mesh: Mesh, half: Float[np.ndarray, "H 3"], jaw: Float[np.ndarray, " H"]) -> Float[np.ndarray, "E V 3"]:
    """Return the vertex offsets of one unit of each expression, in the order of EXPRESSION_NAMES.

    Args:
        mesh: The mesh.
        half: Half points of the average head, in metres.
        jaw: How far each half point follows the jaw, 0 to 1.
    """
    rest, jaw = mesh.whole(half), jaw[mesh.source]
    kind = mesh.kind[mesh.source]
    soft = smoothstep(rest[:, 2], -0.03, 0.0) * (kind != EYE) * (kind != EAR) * (kind != TEETH)
    lips = {"": soft, "upper": soft * (1 - jaw), "lower": soft * jaw}

    def pulled(pulls: tuple[Pull, ...], side: int) -> Float[np.ndarray, "V 3"]:
        total = np.zeros_like(rest)
        for pull in pulls:
            weight = lips[pull.lip] * blob(side * rest[:, 0], rest[:, 1], *pull.at, *pull.radius)
            total += weight[:, None] * np.array(pull.by) * np.array([side, 1, 1])
        return total

    def half_mask(side: int) -> Float[np.ndarray, "V 1"]:
        return smoothstep(side * rest[:, :1], -0.007, 0.007)

    out = {}
    for name, pulls in _BOTH.items():
        left, right = pulled(pulls, 1), pulled(pulls, -1)
        out[name] = left * half_mask(1) + right * half_mask(-1)
    for name, by in _JAW.items():
        out[name] = jaw[:, None] * np.array(by)
    out["mouth_left"] = (soft * blob(rest[:, 0], rest[:, 1], 0, -0.042, 0.024, 0.013))[:, None] * np.array([0.0036, 0, 0])
    for name, pulls in _SIDED.items():
        for side, label in ((1, "left"), (-1, "right")):
            out[f"{name}_{label}"] = pulled(pulls, side) * half_mask(side)
    for name, (shut, pulls) in _LIDS.items():
        moved = mesh.whole(0.5 * (half_points(Measures(), shut) - half))
        for side, label in ((1, "left"), (-1, "right")):
            out[f"{name}_{label}"] = moved * (side * mesh.side).clip(0)[:, None] + pulled(pulls, side) * half_mask(side)
    return np.stack([out[name] for name in EXPRESSION_NAMES])
