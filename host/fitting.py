"""From photos to heads: detector, DECA and the landmark fit together.

Conventions: pixels are those of the photos; frame units and cameras as in `flame.model.camera`.
"""

from dataclasses import dataclass

import comfy.model_management as mm
import comfy.utils
import torch
from torch import Tensor

from ..errors import BadInput, CapFaceError, MissingFile
from ..files import catalogue
from ..flame.fitting import DECA_KINDS, deca_heads, fit_landmarks, landmark_error, smooth
from ..flame.model import HeadModel, HeadParams, half_side
from ..flame.render import overlay, render_head
from . import model_folders
from .reader import FaceReader, frame_points

AUTO, REFINED, DECA, LANDMARKS = METHODS = ("auto", "DECA refined by landmarks", "DECA", "landmarks")
ERROR, SKIP, HOLD = ON_NO_FACE = ("error", "skip", "hold last")
PREVIEW_SIDE = 1024
"""Longest side of a preview, in pixels."""


@dataclass(frozen=True, eq=False)
class FittedHeads:
    """Heads read from photos."""

    params: HeadParams
    """N heads."""
    frames: list[int]
    """Which of the photos each belongs to."""
    errors: Tensor
    """`[N]` root mean square distance of the landmarks, in pixels; NaN where the model has none."""
    method: str
    """How they were read; one of METHODS."""

    @property
    def error(self) -> float:
        """The mean of the errors."""
        return self.errors.mean().item()

    def summary(self) -> str:
        """Say in a line what was done and how well."""
        heads = f"{len(self.frames)} head{'s' if len(self.frames) > 1 else ''} by {self.method}"
        if self.errors.isnan().any():
            return f"{heads}; the error is not known, as the head model has no landmarks"
        worst = f", at most {self.errors.max().item():.1f}" if len(self.frames) > 1 else ""
        return f"{heads}: landmarks {self.error:.1f} pixels off{worst}"


def choose_method(method: str, model: HeadModel, reader: FaceReader) -> str:
    """Return the method that will be used.

    Args:
        method: One of METHODS; AUTO takes DECA and landmarks where both can be had, else what can.
        model: The head model.
        reader: The face reader, which knows whether DECA's file is there.

    Raises:
        BadInput: the head model does not allow it.
        MissingFile: DECA's file is missing.
    """
    if method not in METHODS:
        raise BadInput(f"Methods are {', '.join(METHODS)}, got {method!r}.")
    problems = {DECA: _deca_problem(model, reader), LANDMARKS: _landmark_problem(model)}
    needed = {REFINED: (DECA, LANDMARKS)}.get(method, (method,))
    if method == AUTO:
        needed = [name for name, problem in problems.items() if problem is None] or [LANDMARKS]
        method = needed[0] if len(needed) == 1 else REFINED
    for name in needed:
        if problems[name] is not None:
            raise problems[name]
    return method


def _deca_problem(model: HeadModel, reader: FaceReader) -> CapFaceError | None:
    if model.kind not in DECA_KINDS:
        return BadInput(
            f"DECA reads heads in the components of FLAME 2020, which mean nothing on the head model '{model.name}'. "
            f'Choose the method "{LANDMARKS}", or {catalogue.FLAME.file} of FLAME 2020 in Load Head Model.'
        )
    if not reader.has_deca:
        try:
            model_folders.path_of(catalogue.DECA, reader.deca_file)
        except MissingFile as error:
            return error
    return None


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
    reader: FaceReader,
    model: HeadModel,
    *,
    face: str = "largest",
    face_index: int = 0,
    method: str = AUTO,
    on_no_face: str = ERROR,
    smoothing: float = 0.0,
) -> FittedHeads:
    """Read one head from each photo.

    Args:
        images: RGB `[B, 3, H, W]` in 0..1.
        reader: Detector and DECA.
        model: The head model.
        face: The order in which faces are counted, as for `choose_face`.
        face_index: Which face in that order.
        method: One of METHODS.
        on_no_face: What to do about photos that do not show the face: fail, leave them out, or repeat the head before (before
            the first head, that one).
        smoothing: 0 to 1, for the frames of a sequence.

    Returns:
        At most B heads on the CPU.

    Raises:
        NoFaceFound: no photo shows the face, or with "error" one does not.
        BadInput, MissingFile: the method cannot be used, as for `choose_method`.
        BadFile: DECA's weights are none.
    """
    method = choose_method(method, model, reader)
    if on_no_face not in ON_NO_FACE:
        raise BadInput(f"Without a face, expected one of {', '.join(ON_NO_FACE)}, got {on_no_face!r}.")
    if not reader.locates:
        raise BadInput(
            "This Face Reader takes every picture for a portrait and looks for no face in it, so no head can be fitted. "
            "Connect Load Face Reader, or pose a head with Edit Head."
        )
    find = reader.faces if on_no_face == ERROR else reader.faces_where_there_are
    found = find(images, face, face_index)
    frames = [i for i, one in enumerate(found) if one is not None]
    faces, (height, width) = [found[i] for i in frames], images.shape[-2:]

    start = None
    if method != LANDMARKS:
        code, crops = reader.deca([images[i] for i in frames], faces)
        start = deca_heads(code, crops, height, width)
    points = frame_points(faces, height, width)
    params = start if method == DECA else _fit_each(model, points, start)
    params = smooth(params, smoothing, torch.tensor(frames))
    errors = torch.full((len(frames),), torch.nan)
    if model.has_landmarks:
        errors = landmark_error(model, params, points) * half_side(height, width)

    if on_no_face == HOLD:
        # For every photo the last of the heads up to it, or the first of all.
        held = [max((k for k, frame in enumerate(frames) if frame <= i), default=0) for i in range(len(found))]
        params, errors, frames = params[held], errors[held], list(range(len(found)))
    return FittedHeads(params, frames, errors, method)


def _fit_each(model: HeadModel, points: Tensor, start: HeadParams | None) -> HeadParams:
    """The landmark fit, face by face, so that it shows its progress and can be interrupted."""
    progress = comfy.utils.ProgressBar(len(points))
    heads = []
    for i in range(len(points)):
        mm.throw_exception_if_processing_interrupted()
        heads.append(fit_landmarks(model, points[i : i + 1], start=None if start is None else start[i]).params)
        progress.update(1)
    return HeadParams.cat(heads)


def fit_preview(images: Tensor, fitted: FittedHeads, model: HeadModel) -> Tensor:
    """Lay the heads over their photos.

    Args:
        images: RGB `[B, 3, H, W]` in 0..1, what the heads were read from.
        fitted: N heads.
        model: Their model.

    Returns:
        `[N, 3, h, w]`, the longest side at most PREVIEW_SIDE.
    """
    scale = min(1.0, PREVIEW_SIDE / max(images.shape[-2:]))
    size = [max(1, round(side * scale)) for side in images.shape[-2:]]
    pictures = []
    for k, frame in enumerate(fitted.frames):  # one by one: the maps of a long sequence take much memory
        photo = torch.nn.functional.interpolate(images[frame : frame + 1].cpu(), size, mode="bilinear", antialias=True)
        pictures.append(overlay(photo, render_head(model, fitted.params[k], *size)))
    return torch.cat(pictures)
