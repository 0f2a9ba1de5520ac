"""Conversion between ComfyUI's images and masks and the pack's.

ComfyUI: IMAGE float32 `[B, H, W, C]` in 0..1, MASK float32 `[B, H, W]` in 0..1. The pack: float32 `[B, C, H, W]`.
"""

from torch import Tensor

from ..errors import BadInput
from ..photos.pictures import rgb_of


def from_image(image: Tensor) -> Tensor:
    """Convert an IMAGE `[B, H, W, 1 to 4]` to RGB `[B, 3, H, W]`. Alpha is laid on white, and grey is repeated.

    Raises:
        BadInput: The shape is not that of an IMAGE, or the IMAGE is empty.
    """
    if image.ndim != 4 or not 1 <= image.shape[-1] <= 4:
        raise BadInput(f"Expected an IMAGE of shape [B, H, W, 3], got {list(image.shape)}.")
    if image.numel() == 0:
        raise BadInput(f"Expected an IMAGE with at least one pixel, got an empty one of shape {list(image.shape)}.")
    return rgb_of(image.movedim(-1, 1).float())


def to_image(image: Tensor) -> Tensor:
    """Convert `[B, 3, H, W]` to an IMAGE `[B, H, W, 3]` on the CPU, clamped to 0..1."""
    return image.movedim(1, -1).clamp(0, 1).float().cpu().contiguous()


def to_mask(mask: Tensor) -> Tensor:
    """Convert `[B, 1, H, W]` to a MASK `[B, H, W]` on the CPU."""
    return mask[:, 0].float().cpu().contiguous()


def from_mask(mask: Tensor) -> Tensor:
    """Convert a MASK `[B, H, W]` or `[H, W]` to `[B, 1, H, W]`.

    Raises:
        BadInput: The shape is not that of a MASK.
    """
    if mask.ndim not in (2, 3):
        raise BadInput(f"Expected a MASK of shape [B, H, W], got {list(mask.shape)}.")
    return mask.reshape(-1, 1, *mask.shape[-2:]).float()
