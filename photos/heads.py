"""Head fitting: photos to heads by DECA, by landmarks, or by DECA refined by landmarks.

Conventions: pixels are those of the photos; frame units and cameras are those of `flame.model.camera`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadInput, CapFaceError
from ..files import catalogue
from ..flame.fitting import DECA_KINDS, deca_heads, smooth
from ..flame.model import HeadModel, HeadParams, half_side
from ..flame.render import overlay, render_head
from ..models.faces import split_code
from .analysis import FaceAnalyzer
from .given import GivenFaces
from .landmarks import Landmarks, landmarks_of

AUTO, REFINED, BY_DECA, BY_LANDMARKS = "auto", "DECA refined by landmarks", "DECA", "landmarks"
METHODS = (AUTO, REFINED, BY_DECA, BY_LANDMARKS)
ERROR, SKIP, HOLD = "error", "skip", "hold last"
ON_NO_FACE = (ERROR, SKIP, HOLD)
PREVIEW_SIDE = 1024
"""Longest side of a preview in pixels."""

Progress = Callable[[int, int], None]
"""Called with the number of heads that are fitted and that of all heads; it may raise to interrupt the fit."""


def _silent(_done: int, _total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, eq=False)
class FittedHeads:
    """Heads that were fitted to photos."""

    params: HeadParams
    """N heads."""
    frames: list[int]
    """Index of the photo of each head."""
    errors: Tensor
    """Root mean square distance of the landmarks in pixels, `[N]`; NaN if the head model has no landmarks."""
    method: str
    """The method that was used; one of `METHODS`."""
    shown: str = ""
    """What the landmarks show, from `Landmarks.summary`; empty if the head model has no landmarks."""

    @property
    def error(self) -> float:
        """The mean of the errors."""
        return self.errors.mean().item()

    def summary(self) -> str:
        """Describe method and error in one line."""
        heads = f"{len(self.frames)} head{'s' if len(self.frames) > 1 else ''} by {self.method}"
        if self.errors.isnan().any():
            return f"{heads}; the error is not known, as the head model has no landmarks"
        worst = f", at most {self.errors.max().item():.1f}" if len(self.frames) > 1 else ""
        return f"{heads}: landmarks {self.error:.1f} pixels off{worst} ({self.shown})"


def deca_refusal(model: HeadModel, remedy: str) -> BadInput | None:
    """Return an error if DECA's codes do not fit a head model.

    Args:
        model: The head model.
        remedy: The sentence at the end of the message, which says what to do.
    """
    if model.kind in DECA_KINDS:
        return None
    return BadInput(
        f"DECA's codes are in the components of FLAME 2020, which do not apply to the head model '{model.name}'. {remedy}"
    )


def choose_method(method: str, model: HeadModel, analyzer: FaceAnalyzer) -> str:
    """Return the method that will be used.

    Args:
        method: One of `METHODS`; "auto" uses DECA and landmarks if both are available, else the one that is.
        model: The head model.
        analyzer: The face analyzer, which knows whether DECA can be used.

    Raises:
        BadInput: The head model does not allow the method.
        MissingFile: DECA's file is missing.
    """
    if method not in METHODS:
        raise BadInput(f"Methods are {', '.join(METHODS)}, got {method!r}.")
    remedy = f'Choose the method "{BY_LANDMARKS}", or {catalogue.FLAME.file} of FLAME 2020 in Load Head Model.'
    problems: dict[str, CapFaceError | None] = {
        BY_DECA: deca_refusal(model, remedy) or analyzer.networks.deca_problem(),
        BY_LANDMARKS: _landmark_problem(model),
    }
    needed = [BY_DECA, BY_LANDMARKS] if method == REFINED else [method]
    if method == AUTO:
        needed = [name for name, problem in problems.items() if problem is None] or [BY_LANDMARKS]
        method = needed[0] if len(needed) == 1 else REFINED
    for name in needed:
        problem = problems[name]
        if problem is not None:
            raise problem
    return method


def _landmark_problem(model: HeadModel) -> CapFaceError | None:
    if model.has_landmarks:
        return None
    return BadInput(
        f"The head model '{model.name}' was loaded without landmarks, so it cannot be fitted to them. "
        f"{catalogue.FLAME_LANDMARKS.how_to_get()}, put it into "
        f"models/{catalogue.FLAME_LANDMARKS.folder} and load the model again."
    )


def fit_heads(
    images: Tensor,
    analyzer: FaceAnalyzer,
    model: HeadModel,
    *,
    face: str = "largest",
    face_index: int = 0,
    method: str = AUTO,
    on_no_face: str = ERROR,
    smoothing: float = 0.0,
    given: GivenFaces | None = None,
    progress: Progress = _silent,
) -> FittedHeads:
    """Fit one head to each photo.

    Args:
        images: RGB `[B, 3, H, W]` in 0..1.
        analyzer: The face analyzer.
        model: The head model.
        face: The order in which faces are counted, as for `choose_face`.
        face_index: Which face in that order.
        method: One of `METHODS`.
        on_no_face: One of `ON_NO_FACE`, for photos that do not show the face: "error" fails, "skip" leaves them out,
            "hold last" repeats the previous head (the first head, before there is one).
        smoothing: 0 to 1, for the frames of a sequence.
        given: The faces among which one is chosen, if they are known.
        progress: Called during the landmark fit.

    Returns:
        At most B heads on the CPU.

    Raises:
        NoFaceFound: No photo shows the face, or with "error" one does not.
        BadInput: The method cannot be used with the head model, or a choice is unknown.
        MissingFile: DECA's file is missing.
        BadFile: DECA's weights are invalid.
    """
    method = choose_method(method, model, analyzer)
    if on_no_face not in ON_NO_FACE:
        raise BadInput(f"on_no_face must be one of {', '.join(ON_NO_FACE)}, got {on_no_face!r}.")
    find = analyzer.find_faces if on_no_face == ERROR else analyzer.find_faces_or_none
    found = find(images, face, face_index, given)
    detected = [(i, one) for i, one in enumerate(found) if one is not None]
    frames, faces, (height, width) = [i for i, _ in detected], [one for _, one in detected], images.shape[-2:]

    params = None
    if method != BY_LANDMARKS:
        codes, crops = analyzer.deca_codes([images[i] for i in frames], faces)
        params = heads_from_codes(codes, crops, height, width)
    landmarks = landmarks_of(model, faces, height, width) if model.has_landmarks else None
    if landmarks is not None and (params is None or method == REFINED):
        params = fit_one_by_one(landmarks, params, progress)
    assert params is not None, "choose_method refuses landmarks for a head model without them"
    params = smooth(params, smoothing, torch.tensor(frames))
    errors = torch.full((len(frames),), torch.nan)
    if landmarks is not None:
        errors = landmarks.error(params) * half_side(height, width)

    if on_no_face == HOLD:
        # The last head up to each photo, or the first head of all.
        held = [max((k for k, frame in enumerate(frames) if frame <= i), default=0) for i in range(len(found))]
        params, errors, frames = params[held], errors[held], list(range(len(found)))
    return FittedHeads(params, frames, errors, method, "" if landmarks is None else landmarks.summary())


def heads_from_codes(codes: Tensor, crops: Tensor, height: int, width: int) -> HeadParams:
    """Return the heads of DECA's codes.

    Args:
        codes: `[B, 236]`, from `FaceAnalyzer.deca_codes`.
        crops: The transforms `[B, 3, 3]` of the crops, image pixel to crop pixel.
        height: Height of the images in pixels.
        width: Width of the images in pixels.

    Raises:
        BadFile: The codes are not those of heads, so the weights are not DECA's.
    """
    return deca_heads(split_code(codes), crops, height, width)


def fit_one_by_one(landmarks: Landmarks, start: HeadParams | None = None, progress: Progress = _silent) -> HeadParams:
    """Fit heads to landmarks, one after the other.

    Args:
        landmarks: The landmarks of B faces.
        start: B heads to start from, or None.
        progress: Called before each head and after the last one.

    Returns:
        B heads.

    Raises:
        BadInput: The points coincide or are not finite.
    """
    heads = []
    for i in range(len(landmarks)):
        progress(i, len(landmarks))
        heads.append(landmarks[i].fit(None if start is None else start[i]))
    progress(len(landmarks), len(landmarks))
    return HeadParams.cat(heads)


def fit_preview(images: Tensor, fitted: FittedHeads, model: HeadModel) -> Tensor:
    """Render the heads over their photos.

    Args:
        images: RGB `[B, 3, H, W]` in 0..1: the photos that the heads were fitted to.
        fitted: N heads.
        model: Their head model.

    Returns:
        RGB `[N, 3, h, w]` in 0..1; the longest side has at most `PREVIEW_SIDE` pixels.
    """
    scale = min(1.0, PREVIEW_SIDE / max(images.shape[-2:]))
    height, width = (max(1, round(side * scale)) for side in images.shape[-2:])
    pictures = []
    for k, frame in enumerate(fitted.frames):  # one by one: the maps of a long sequence take much memory
        photo = F.interpolate(images[frame : frame + 1].cpu(), (height, width), mode="bilinear", antialias=True)
        pictures.append(overlay(photo, render_head(model, fitted.params[k], height, width)))
    return torch.cat(pictures)
