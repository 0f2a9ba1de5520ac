"""ComfyUI's images and masks, and the pack's.

ComfyUI: IMAGE float32 `[B, H, W, C]` in 0..1, MASK float32 `[B, H, W]` in 0..1. The pack: float32 `[B, C, H, W]`.
"""

from torch import Tensor

from ..errors import BadInput


def from_image(image: Tensor) -> Tensor:
    """IMAGE `[B,H,W,C]` -> RGB `[B,3,H,W]`; an alpha channel is dropped, grey is repeated.

    Raises:
        BadInput: for anything else.
    """
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise BadInput(f"Expected an IMAGE of shape [B, H, W, 3], got {list(image.shape)}.")
    rgb = image[..., :3].movedim(-1, 1).float()
    return rgb.expand(-1, 3, -1, -1) if image.shape[-1] == 1 else rgb


def to_image(image: Tensor) -> Tensor:
    """`[B,3,H,W]` -> IMAGE `[B,H,W,3]`, clamped to 0..1 on the CPU."""
    return image.movedim(1, -1).clamp(0, 1).float().cpu().contiguous()


def to_mask(mask: Tensor) -> Tensor:
    """`[B,1,H,W]` -> MASK `[B,H,W]`."""
    return mask[:, 0].float().cpu().contiguous()


def from_mask(mask: Tensor) -> Tensor:
    """MASK `[B,H,W]` or `[H,W]` -> `[B,1,H,W]`.

    Raises:
        BadInput: for anything else.
    """
    if mask.ndim not in (2, 3):
        raise BadInput(f"Expected a MASK of shape [B, H, W], got {list(mask.shape)}.")
    return mask.reshape(-1, 1, *mask.shape[-2:]).float()
