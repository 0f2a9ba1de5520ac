"""Head fitting with ComfyUI's progress bar and interruption."""

from typing import Any

import comfy.model_management as mm
import comfy.utils
from torch import Tensor

from ..errors import BadInput
from ..flame.model import HeadModel
from ..photos import heads
from ..photos.analysis import FaceAnalyzer
from .encode import EncoderProvider


def fit_heads(images: Tensor, reader: EncoderProvider, model: HeadModel, **settings: Any) -> tuple[heads.FittedHeads, Tensor]:
    """Fit one head to each photo.

    Args:
        images: RGB `[B, 3, H, W]` in 0..1.
        reader: The value of the CAPFACE_READER socket.
        model: The head model.
        **settings: As for `photos.heads.fit_heads`.

    Returns:
        The heads, and a preview of each over its photo, as from `photos.heads.fit_preview`.

    Raises:
        BadInput: The reader is the miniature's, which finds no faces.
        CapFaceError: As for `photos.heads.fit_heads`.
    """
    if not isinstance(reader, FaceAnalyzer):
        raise BadInput(
            "The miniature's reader treats the whole picture as the portrait and does not detect faces, so no head can be "
            "fitted. Connect Load Face Reader, or pose a head with Edit Head."
        )
    bar = comfy.utils.ProgressBar(len(images))

    def progress(done: int, total: int) -> None:
        mm.throw_exception_if_processing_interrupted()
        if done:
            bar.update_absolute(done, total)

    fitted = heads.fit_heads(images, reader, model, progress=progress, **settings)
    return fitted, heads.fit_preview(images, fitted, model)
