"""Convert heads to a region of the picture, as they appear after the region is cut out and resized to any size.

Conventions: frame units and pixel coordinates as in `camera.py`. A region (x, y, width, height) is in pixels of the whole
picture, with (x, y) its upper left corner. It may extend beyond the picture, so a crop can be undone by another crop.
"""

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Num
from ..model import HeadParams


def crop_head(head: HeadParams, regions: Num[Tensor, "R 4"], height: int, width: int) -> HeadParams:
    """Convert heads to the frames of regions.

    Args:
        head: B heads in the whole picture.
        regions: `[R, 4]` (x, y, width, height) in pixels of the whole picture. R is 1 or B, or B is 1.
        height: Height of the whole picture in pixels.
        width: Width of the whole picture in pixels.

    Returns:
        max(B, R) heads, in frame units of their region. Only their cameras change.

    Raises:
        BadInput: A region or the picture has no pixels, or the numbers of heads and regions do not match.
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
    # Pixels do not move: half·(u, v) + centre is the same place for the half side and centre of the frame and of the region.
    whole, part = min(height, width) / 2, torch.minimum(w, h) / 2
    right = (whole * tx + width / 2 - x - w / 2) / part
    down = (whole * ty + height / 2 - y - h / 2) / part
    return head.replace(camera=torch.stack([s * whole / part, right, down], dim=1).float())
