"""Adding CapFace to conditionings, one person at a time, optionally with a post-hoc head control."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from comfy.controlnet import ControlBase
from torch import Tensor

from ...errors import BadInput
from ...flame.render import HeadCondition
from ..capface_model import CapFaceModel
from ..identity import Identity
from .control import CapFaceControl
from .evaluation import Evaluation
from .keyframes import Keyframes
from .region import Region

log = logging.getLogger("capface")

OVERLAPS = ("add", "nearest")

Conditioning = list[list[Any]]
"""ComfyUI's CONDITIONING: [embedding, options] pairs."""


@dataclass(frozen=True, eq=False)
class HeadControl:
    """Post-hoc head control pi* (equation 9): a CapFace without identity and without mask."""

    model: CapFaceModel
    alpha: float
    """Scale alpha of the residuals."""
    until: float
    """Fraction of the schedule after which it stops acting."""


def apply_capface(
    conditionings: Sequence[Conditioning],
    model: CapFaceModel,
    condition: HeadCondition,
    identity: Identity | None = None,
    *,
    strength: float = 1.0,
    tau: float = 1000.0,
    window: tuple[float, float] = (0.0, 1.0),
    mask: Tensor | None = None,
    edge: str = "hard",
    overlap: str = "add",
    head_control: HeadControl | None = None,
    likeness: float = 1.0,
    every: int = 1,
    keyframes: Keyframes | None = None,
) -> list[Conditioning]:
    """Add a person to conditionings. Existing controls are kept and come before it.

    Args:
        conditionings: ComfyUI's conditionings, such as (positive, negative), or those of a guider with three.
        model: The checkpoint.
        condition: The head.
        identity: The person. With None, only the head is controlled.
        strength: Scale of the residuals. With 0, the person is not added.
        tau: ID dropout tau in 0..1000 (equation 8).
        window: Start and end of the person's effect, as fractions of the schedule.
        mask: Where the person may act, `[B, 1, H, W]` in 0..1.
        edge: Edge of the head's own mask: "hard", as in the paper, or "soft".
        overlap: Where heads of several people overlap, "add" sums their residuals as the paper does, and "nearest" keeps those
            of the nearest head. In weak perspective the larger head is nearer; of two equal heads, the one applied later.
        head_control: Post-hoc head control pi* (equation 9).
        likeness: Factor gamma of the identity's effect: F_null + gamma · (F_id - F_null). 1 is the paper's.
        every: Number of steps for which the residuals of an evaluation are kept. With 1, every step is evaluated.
        keyframes: Factors of the strength, and tau, over steps and frames. The post-hoc head control does not follow them.

    Returns:
        The new conditionings, one for each given.

    Raises:
        BadInput: The identity's features do not fit the checkpoint, or a number is not finite.
    """
    numbers = {"strength": strength, "tau": tau, "start_percent": window[0], "end_percent": window[1], "likeness": likeness}
    if head_control is not None:
        numbers |= {"alpha": head_control.alpha, "head_control_until": head_control.until}
    for name, number in numbers.items():  # a host compares NaN with its limits, which NaN passes
        if not math.isfinite(number):
            raise BadInput(f"Apply CapFace: expected a finite number for {name}, got {number}. Set it again.")
    _log_builtin_head(condition)
    if identity is not None:
        _check_features(model, identity)
    controls = []
    if head_control is not None and head_control.alpha != 0:
        settings = {"strength": head_control.alpha, "timestep_percent_range": (0.0, head_control.until)}
        controls.append(CapFaceControl(head_control.model, condition, None, region=None, every=every, **settings))
    if strength != 0:
        settings = {"strength": strength, "timestep_percent_range": window, "region": Region(edge, mask)}
        settings |= {"tau": tau, "likeness": likeness, "every": every, "keyframes": keyframes}
        controls.append(CapFaceControl(model, condition, identity, **settings))
    if not controls:
        return list(conditionings)
    chains = {}  # by the control before them: positive and negative prompt share a chain if they share that control
    out = []
    for conditioning in conditionings:
        entries = []
        for embedding, options in conditioning:
            previous = options.get("control")
            if previous not in chains:
                chains[previous] = _chain(previous, controls, overlap)
            entries.append([embedding, {**options, "control": chains[previous], "control_apply_to_uncond": False}])
        out.append(entries)
    return out


def _chain(previous: ControlBase | None, controls: list[CapFaceControl], overlap: str) -> ControlBase | None:
    """Append copies of controls to a chain, and return the last one. The chain itself is not changed."""
    added = [control.copy() for control in controls]
    if overlap == "nearest" and added[-1].region is not None:
        previous = _order_by_depth(previous, added[-1])
    for control in added:
        previous = control.set_previous_controlnet(previous)
    return previous


def _order_by_depth(previous: ControlBase | None, newest: CapFaceControl) -> ControlBase | None:
    """Copy a chain. Of the newest person and each earlier one, the farther does not act on the nearer one's head."""
    links = []
    while previous is not None:
        links.append(previous)
        previous = previous.previous_controlnet
    chain = None
    for link in reversed(links):
        copied = link.copy()
        if isinstance(copied, CapFaceControl) and copied.region is not None and newest.region is not None:
            if _nearness(newest.evaluation) >= _nearness(copied.evaluation):
                copied.region = copied.region.behind(newest.evaluation)
            else:
                newest.region = newest.region.behind(copied.evaluation)
        chain = copied.set_previous_controlnet(chain)
    return chain


def _nearness(evaluation: Evaluation) -> float:
    """Return the head's mean size over the frames."""
    return evaluation.condition.params.camera[:, 0].mean().item()


def _check_features(model: CapFaceModel, identity: Identity) -> None:
    wanted = (model.tokens.id_linear.in_features, model.tokens.img_linear.in_features)
    if (identity.global_.shape[-1], identity.local.shape[-1]) != wanted:
        raise BadInput(
            f"{model.name} expects embeddings of {wanted[0]} values and tokens of {wanted[1]}; this identity has "
            f"{identity.features}. Encode it with the Face Reader that belongs to this CapFace."
        )


def _log_builtin_head(condition: HeadCondition) -> None:
    if condition.model.kind == "builtin":
        log.info(
            "CapFace is controlled by the built-in head. Released checkpoints were trained on FLAME heads: position, pose and "
            "light carry over, the shape of the face less."
        )
