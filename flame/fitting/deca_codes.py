"""Heads from what DECA's encoder says of a face.

Source: Feng et al., *Learning an Animatable Detailed 3D Face Model from In-the-Wild Images* (SIGGRAPH 2021), whose codes are
coefficients of FLAME 2020's components.
"""

from typing import Any

import torch
from torch import Tensor

from ...errors import BadFile
from ...files.catalogue import DECA
from ..model import HeadParams, deca_camera

DECA_KINDS = ("flame2020", "flame")
"""Kinds of head model whose components DECA's codes are made of."""
FIELDS = ("shape", "texture", "expression", "rotation", "jaw", "light")


def deca_heads(code: Any, crops: Tensor, height: int, width: int) -> HeadParams:
    """DECA's codes as heads in the frame that the crops were cut from.

    Args:
        code: B codes, with their parts under the names of `HeadParams` and DECA's own `camera` `[B, 3]`.
        crops: `[B, 3, 3]`, image pixel to crop pixel.
        height: Of the photos, in pixels.
        width: Of the photos, in pixels.

    Raises:
        BadFile: the codes are none of heads.
    """
    camera = deca_camera(code.camera, crops, height, width)
    parts = {name: getattr(code, name) for name in FIELDS}
    if (camera[:, 0] <= 0).any() or not all(torch.isfinite(part).all() for part in (camera, *parts.values())):
        raise BadFile(
            "DECA's network gave no head: expected finite numbers and scales above 0, got scales "
            f"{[round(scale, 3) for scale in code.camera[:, 0].tolist()]}. Its file is not the trained one. "
            f"Expected {DECA.reference}."
        )
    return HeadParams.neutral(len(camera)).replace(camera=camera, **parts)
