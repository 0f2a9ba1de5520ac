"""Adding CapFace to conditionings: one person at a time, before or behind others, with or without a further head control."""

import logging
from dataclasses import dataclass

from torch import Tensor

from ...errors import BadInput
from ...flame.render import HeadCondition
from ..capface_model import CapFaceModel
from ..identity import Identity
from .control import CapFaceControl
from .evaluation import Evaluation
from .region import Region

log = logging.getLogger("capface")

OVERLAPS = ("add", "nearest")


@dataclass(frozen=True, eq=False)
class HeadControl:
    """Post-hoc head control pi* (equation 9): CapFace without identity, unmasked."""

    model: CapFaceModel
    alpha: float
    """Scale alpha of its residuals."""
    until: float
    """Share of the schedule, from its start, in which it acts."""


def apply_capface(
    conditionings,
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
) -> list:
    """Add a person to conditionings; controls that they have already stay before it.

    Args:
        conditionings: ComfyUI's conditionings, such as (positive, negative).
        model: The checkpoint.
        condition: The head.
        identity: The person; None controls the head alone.
        strength: Scale of the residuals; 0 leaves the conditionings as they are.
        tau: ID dropout tau in 0..1000 (equation 8).
        window: (start, end) in 0..1 of the schedule.
        mask: `[B, 1, H, W]` in 0..1, where the person may act at all.
        edge: "hard" (the paper's mask) or "soft".
        overlap: Where heads of several people overlap: "add" sums them as the paper does, "nearest" keeps the nearest one's.
            In weak perspective the nearer head is the larger one; of two alike, the one applied later.
        head_control: pi* of equation 9.

    Returns:
        As many new conditionings.
    """
    _warn_about_the_head(condition)
    if identity is not None:
        _check_features(model, identity)
    controls = []
    if head_control is not None and head_control.alpha != 0:
        settings = {"strength": head_control.alpha, "timestep_percent_range": (0.0, head_control.until), "region": None}
        controls.append(CapFaceControl(head_control.model, condition, None, **settings))
    if strength != 0:
        settings = {"strength": strength, "timestep_percent_range": window, "region": Region(edge, mask)}
        controls.append(CapFaceControl(model, condition, identity, tau=tau, **settings))
    if not controls:
        return list(conditionings)
    by_previous = {}  # positive and negative share one chain where they share what comes before it
    out = []
    for conditioning in conditionings:
        entries = []
        for embedding, options in conditioning:
            previous = options.get("control")
            if previous not in by_previous:
                by_previous[previous] = _chain(previous, controls, overlap)
            entries.append([embedding, {**options, "control": by_previous[previous], "control_apply_to_uncond": False}])
        out.append(entries)
    return out


def _chain(previous, controls: list[CapFaceControl], overlap: str):
    """Put copies of controls behind a chain and return the last; the chain itself stays as it is."""
    added = [control.copy() for control in controls]
    if overlap == "nearest" and added[-1].region is not None:
        previous = _order_by_depth(previous, added[-1])
    for control in added:
        previous = control.set_previous_controlnet(previous)
    return previous


def _order_by_depth(previous, newest: CapFaceControl):
    """Copy a chain so that of each earlier person and the newest one, the farther gives way to the nearer."""
    links = []
    while previous is not None:
        links.append(previous)
        previous = previous.previous_controlnet
    chain = None
    for link in reversed(links):
        copied = link.copy()
        if isinstance(copied, CapFaceControl) and copied.region is not None:
            if _nearness(newest.evaluation) >= _nearness(copied.evaluation):
                copied.region = copied.region.behind(newest.evaluation)
            else:
                newest.region = newest.region.behind(copied.evaluation)
        chain = copied.set_previous_controlnet(chain)
    return chain


def _nearness(evaluation: Evaluation) -> float:
    """Return the size of the head in the frame, averaged over the frames."""
    return evaluation.condition.params.camera[:, 0].mean().item()


def _check_features(model: CapFaceModel, identity: Identity):
    wanted = (model.tokens.id_linear.in_features, model.tokens.img_linear.in_features)
    if (identity.global_.shape[-1], identity.local.shape[-1]) != wanted:
        raise BadInput(
            f"{model.name} reads embeddings of {wanted[0]} numbers and tokens of {wanted[1]}; this identity has "
            f"{identity.features}. Encode it with the Face Reader that belongs to this CapFace."
        )


def _warn_about_the_head(condition: HeadCondition):
    if condition.model.kind == "builtin":
        log.info(
            "CapFace is driven by the built-in head. Released checkpoints were trained on FLAME's: position, pose and light "
            "carry over, the shape of the face less."
        )
