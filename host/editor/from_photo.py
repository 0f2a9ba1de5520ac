"""Edit Head's widget values from a photo: a head is fitted to the photo as Fit Head does, and read as values of a section."""

import threading

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...files import catalogue
from ...flame.editing import amounts_of, angles_of, custom_light_of, head_angles, head_centre
from ...flame.fitting import light_from_photo
from ...flame.model import NEUTRAL_SCALE, HeadModel, HeadParams
from ...photos.heads import fit_heads
from ...photos.pictures import read_picture
from .. import face_analyzer, head_models, model_folders, user_files

SECTIONS = ("Pose", "Position", "Expression", "Brows", "Gaze", "Light")
"""The sections of Edit Head that a photo shows."""
LONGEST_SIDE = 1536
"""Pixels to which a larger photo is reduced."""

_one_fit = threading.Lock()


def read_values(name: str, section: str, model_name: str) -> tuple[dict[str, float | str], str]:
    """Fit a head to a photo, and read it as widget values.

    Args:
        name: Name of a picture in the input folder, or in the temporary folder with " [temp]" at its end.
        section: One of `SECTIONS`.
        model_name: A choice of Load Head Model.

    Returns:
        Values by widget, within the head's own: they replace the values of the input head, except for the gaze of "Gaze", which
        is relative to the skull. And Fit Head's summary.

    Raises:
        CapFaceError: The photo cannot be read, or as `photos.heads.fit_heads`.
    """
    photo = _reduced(read_picture(user_files.find_picture(name))[None])
    model = head_models.load_head_model(model_name)
    with _one_fit, torch.no_grad():
        fitted = fit_heads(photo, _analyzer(), model)
        return values_of(model, fitted.params, photo, section), fitted.summary()


def values_of(model: HeadModel, head: HeadParams, photo: Tensor, section: str) -> dict[str, float | str]:
    """Read a head as the widget values of a section.

    Args:
        model: The head model.
        head: One head, fitted to the photo.
        photo: `[1, 3, H, W]` in 0..1.
        section: One of `SECTIONS`.

    Raises:
        BadInput: As `light_from_photo`.
    """
    angles = head_angles(head)
    if section == "Pose":
        return {"pose_mode": "absolute"} | {name: angles[name] for name in angles if not name.startswith("gaze")}
    if section == "Gaze":
        return {name: angles[name] for name in angles if name.startswith("gaze")}
    if section == "Position":
        x, y = head_centre(model, head)[0].tolist()
        place = {"position_x": x, "position_y": y, "size": head.camera[0, 0].item() / NEUTRAL_SCALE}
        return {"position_mode": "absolute"} | place
    if section == "Light":
        return {"light": "custom", "light_strength": 1.0} | custom_light_of(light_from_photo(model, head, photo)[0])
    side = angles_of(head.jaw[0].double())[0].item()
    return {"expression_mode": "absolute", "jaw_open": 0.0, "jaw_side": side} | amounts_of(model, head)


def _reduced(photo: Tensor) -> Tensor:
    factor = LONGEST_SIDE / max(photo.shape[2:])
    if factor >= 1:
        return photo
    size = [max(1, round(side * factor)) for side in photo.shape[2:]]
    return interpolate(photo, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def _analyzer() -> face_analyzer.HostFaceAnalyzer:
    """Return a face analyzer of the files that Load Face Reader chooses by default."""
    deca, parser = (model_folders.choices(asset)[0] for asset in (catalogue.DECA, catalogue.PARSER))
    return face_analyzer.open_face_analyzer("auto", catalogue.FACENET.file, deca, parser)
