"""Edges of heads, and masks that grow and fade out, by kornia, which comes with ComfyUI.

The edges are those of a grey picture of the lit head on black. A quarter of its brightness is the head's silhouette, so that
the outline is an edge on the shaded side too.
"""

from typing import Any

import torch
from torch import Tensor

from ...errors import BadInput, MissingPackage, how_to_install
from ...shapes import Float
from ..render import HeadMaps

SILHOUETTE = 0.25
"""Part of the silhouette in the brightness of the grey picture."""
_SOFT_SCALES = (0.8, 1.6, 3.2)
"""Standard deviations of the blur of soft edges, in pixels at 512 pixels."""
_WHITE = 0.5
"""The step in brightness that makes a white soft edge."""
_LUMINANCE = (0.299, 0.587, 0.114)
MOST_GROWTH = 512
"""Pixels."""


def edge_source(maps: HeadMaps) -> Float[Tensor, "B 1 H W"]:
    """Make the grey picture, in 0..1, whose edges are taken."""
    weights = maps.lambertian.new_tensor(_LUMINANCE)[:, None, None]
    grey = (maps.lambertian.clamp(0, 1) * weights).sum(1, keepdim=True)
    return (1 - SILHOUETTE) * grey + SILHOUETTE * maps.alpha


def canny_edges(grey: Float[Tensor, "B 1 H W"], low: float, high: float) -> Float[Tensor, "B 3 H W"]:
    """Find edges by Canny's method: lines of one pixel, white on black.

    Args:
        grey: Pictures in 0..1.
        low: Gradients above this continue an edge.
        high: Gradients above this start an edge. Gradients are Sobel's, in the unit of ComfyUI's Canny node: 0.4 and 0.8 there
            are about 100 and 200 of OpenCV's.

    Raises:
        BadInput: The thresholds are not `0 < low < high < 1`.
        MissingPackage: kornia is not installed.
    """
    if not 0 < low < high < 1:
        raise BadInput(f"Expected thresholds with 0 < low < high < 1, got {low:g} and {high:g}.")
    _, edges = _kornia().filters.canny(grey, low, high)
    return edges.expand(-1, 3, -1, -1)


def soft_edges(grey: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Find soft edges: wide lines, brighter where the contrast is larger, as HED and PiDiNet draw them.

    Those are networks with weights of their own. This is the square root of the largest of the gradients at three widths, each
    relative to the gradient of a step of `_WHITE`.

    Args:
        grey: Pictures in 0..1.

    Raises:
        MissingPackage: kornia is not installed.
    """
    filters = _kornia().filters
    scale = min(grey.shape[-2:]) / 512
    strongest = torch.zeros_like(grey)
    for sigma in _SOFT_SCALES:
        sigma = max(sigma * scale, 0.5)
        blurred = filters.gaussian_blur2d(grey, _kernel(sigma), (sigma, sigma), border_type="replicate")
        # A blurred step of 1 has the gradient 1 / (sqrt(2 pi) sigma).
        strongest = torch.maximum(strongest, filters.sobel(blurred, eps=1e-12) * ((2 * torch.pi) ** 0.5 * sigma))
    return (strongest / _WHITE).clamp(0, 1).sqrt().expand(-1, 3, -1, -1)


def shape_mask(mask: Float[Tensor, "B 1 H W"], grow: int, feather: int) -> Float[Tensor, "B 1 H W"]:
    """Grow or shrink a mask, and fade out its border.

    Args:
        mask: Masks in 0..1.
        grow: Pixels by which the mask grows; it shrinks if this is negative.
        feather: Width in pixels over which the border fades from 1 to 0, half of it inside.

    Raises:
        BadInput: The mask would grow or fade by more than `MOST_GROWTH`.
        MissingPackage: kornia is not installed. It is not needed if both are 0.
    """
    if abs(grow) > MOST_GROWTH or not 0 <= feather <= MOST_GROWTH:
        raise BadInput(f"Expected a mask that grows and fades by at most {MOST_GROWTH} pixels, got {grow} and {feather}.")
    if grow:
        morphology = _kornia().morphology
        change = morphology.dilation if grow > 0 else morphology.erosion
        # Steps by a cross and a square in turn make an octagon, close to a disc, in a time that grows with the radius only.
        cross, square = mask.new_tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]]), mask.new_ones(3, 3)
        for step in range(abs(grow)):
            mask = change(mask, square if step % 5 in (1, 3) else cross)
    if feather:
        sigma = feather / 4
        mask = _kornia().filters.gaussian_blur2d(mask, _kernel(sigma), (sigma, sigma), border_type="replicate")
    return mask


def _kernel(sigma: float) -> tuple[int, int]:
    """Return the size of a Gaussian kernel that reaches three standard deviations to either side."""
    size = 2 * max(1, round(3 * sigma)) + 1
    return (size, size)


def _kornia() -> Any:
    try:
        import kornia
    except ImportError:
        raise MissingPackage(how_to_install("kornia")) from None
    return kornia
