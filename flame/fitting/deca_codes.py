"""Heads from the codes that DECA's encoder predicts for a face.

Source: Feng et al., *Learning an Animatable Detailed 3D Face Model from In-the-Wild Images* (SIGGRAPH 2021), whose codes are
coefficients of the components of FLAME 2020.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ...errors import BadFile
from ...files.catalogue import DECA
from ...shapes import Float
from ..model import HeadParams, deca_camera

DECA_KINDS = ("flame2020", "flame")
"""Kinds of head model that DECA's codes fit: their components are those of the codes."""
_FIELDS = ("shape", "texture", "expression", "rotation", "jaw", "light")


@runtime_checkable
class DecaCodes(Protocol):
    """DECA's parameters of B heads, as `models.faces.DecaCode` holds them."""

    @property
    def shape(self) -> Tensor:
        """`[B, 100]`."""
        ...

    @property
    def texture(self) -> Tensor:
        """`[B, 50]`."""
        ...

    @property
    def expression(self) -> Tensor:
        """`[B, 50]`."""
        ...

    @property
    def rotation(self) -> Tensor:
        """`[B, 3]` axis-angle, radians."""
        ...

    @property
    def jaw(self) -> Tensor:
        """`[B, 3]` axis-angle, radians."""
        ...

    @property
    def camera(self) -> Tensor:
        """`[B, 3]` scale and translation in the crop."""
        ...

    @property
    def light(self) -> Tensor:
        """`[B, 9, 3]` spherical-harmonic coefficients."""
        ...


def deca_heads(code: DecaCodes, crops: Float[Tensor, "B 3 3"], height: int, width: int) -> HeadParams:
    """Convert DECA's codes to heads in the frame that the crops were cut from.

    Args:
        code: B codes, named as in `HeadParams`, with DECA's own `camera` `[B, 3]`.
        crops: Transforms `[B, 3, 3]` from photo pixels to crop pixels.
        height: Height of the photos in pixels.
        width: Width of the photos in pixels.

    Returns:
        B heads.

    Raises:
        BadFile: The codes are invalid: not finite, or with a scale that is not above 0.
    """
    camera = deca_camera(code.camera, crops, height, width)
    parts = {name: getattr(code, name) for name in _FIELDS}
    if (camera[:, 0] <= 0).any() or not all(torch.isfinite(part).all() for part in (camera, *parts.values())):
        raise BadFile(
            "DECA's network gave no head: expected finite numbers and scales above 0, got scales "
            f"{[round(scale, 3) for scale in code.camera[:, 0].tolist()]}. Its file is not the trained one. "
            f"Expected {DECA.reference}."
        )
    return HeadParams.neutral(len(camera)).replace(camera=camera, **parts)
