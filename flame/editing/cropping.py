"""Heads in a part of the picture: as they are seen once it is cut out, whatever size it is then given.

Conventions: frame units and pixel coordinates as in `camera.py`. A region (x, y, width, height) is in pixels of the whole
picture, (x, y) its upper left corner; it may reach beyond the picture, so that cropping back is a crop as well.
"""

import torch
from torch import Tensor

from ...errors import BadInput
from ..model import HeadParams


def crop_head(head: HeadParams, regions: Tensor, height: int, width: int) -> HeadParams:
    """Heads as the region shows them.

    Args:
        head: B heads in the whole picture.
        regions: `[R, 4]` (x, y, width, height) in pixels of it; R is 1 or B, or B is 1.
        height: rows of the whole picture.
        width: columns of the whole picture.

    Returns:
        max(B, R) heads, in frame units of the region: only their cameras differ.

    Raises:
        BadInput: a region or the picture has no pixels, or there are as many regions as fit neither one head nor all.
    """
    if regions.dim() != 2 or regions.shape[-1] != 4 or not len(regions):
        raise BadInput(f"Expected regions [R, 4] of (x, y, width, height), got {list(regions.shape)}.")
    if min(height, width) < 1 or (regions[:, 2:] <= 0).any():
        raise BadInput(f"Expected regions and a picture of at least a pixel, got {regions.tolist()} of {width} × {height}.")
    if head.batch > 1 and len(regions) not in (1, head.batch):
        raise BadInput(
            f"Expected one region for all {head.batch} heads, or one for each; got {len(regions)}. Choose one of them by its "
            "index, or give as many heads."
        )
    head = head.expand(max(head.batch, len(regions)))
    s, tx, ty = head.camera.double().unbind(1)
    x, y, w, h = regions.to(head.device, torch.float64).unbind(1)
    # Pixels stay where they are: half·(u, v) + middle is one place, by the frame's half side and middle or by the region's.
    whole, part = min(height, width) / 2, torch.minimum(w, h) / 2
    right = (whole * tx + width / 2 - x - w / 2) / part
    down = (whole * ty + height / 2 - y - h / 2) / part
    return head.replace(camera=torch.stack([s * whole / part, right, down], dim=1).float())
