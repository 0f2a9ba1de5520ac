"""Head conditions: what a head shall look like, as the nine-channel hint `[normal; albedo; Lambertian]` of any size.

Conventions: a hint is float32 `[B, 9, H, W]`: normals in -1..1 (x right, y up, z towards the viewer), albedo in 0..1,
Lambertian unclamped; the background is 0 in all of them.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model import HeadModel, HeadParams, Window
from .maps import BUILT_IN, render_head


@dataclass(frozen=True, eq=False)
class HeadCondition:
    """A head model and its parameters, rendered on demand at the size asked for. It holds no pixels but the last hint."""

    model: HeadModel
    params: HeadParams
    backend: str = BUILT_IN
    """What draws it, a name out of `render.BACKENDS`."""
    _last: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False)

    @property
    def batch(self) -> int:
        """Number of heads (frames)."""
        return self.params.batch

    def hint(self, height: int, width: int) -> Tensor:
        """Render the hint.

        Args:
            height: Pixels.
            width: Pixels.

        Returns:
            float32 `[B, 9, height, width]` on the parameters' device. The last one is kept: do not write to it.
        """
        size = (height, width)
        last = self._last.get(size)
        if last is None:
            last = render_head(self.model, self.params, height, width, self.backend).hint()
            self._last.clear()
            self._last[size] = last
        return last

    def hint_in(self, window: Window, height: int, width: int) -> Tensor:
        """Render the hint of a part of the frame, as sharp as its size allows.

        Args:
            window: The part.
            height: Pixels.
            width: Pixels.

        Returns:
            float32 `[B, 9, height, width]` on the parameters' device.
        """
        return render_head(self.model, self.params, height, width, self.backend, window).hint()


def cut(images: Tensor, window: Window, height: int, width: int) -> Tensor:
    """Cut a window out of images of the frame, resized bilinearly to a size.

    Args:
        images: float32 `[B, C, H, W]`, stretched over the frame.
        window: The part.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        `[B, C, height, width]`, 0 beyond the frame.
    """
    x = torch.linspace(window.left, window.right, 2 * width + 1, dtype=images.dtype, device=images.device)[1::2]
    y = torch.linspace(window.top, window.bottom, 2 * height + 1, dtype=images.dtype, device=images.device)[1::2]
    return sample(images, x.expand(1, height, -1), y[:, None].expand(1, -1, width))


def sample(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Look images of the frame up bilinearly at any places.

    Args:
        images: float32 `[B, C, H, W]`, stretched over the frame.
        x: `[1 or B, h, w]`, shares of the frame's width.
        y: `[1 or B, h, w]`, shares of its height.

    Returns:
        `[B, C, h, w]`, 0 beyond the frame.
    """
    places = torch.stack([x, y], dim=-1) * 2 - 1
    return F.grid_sample(images, places.expand(len(images), -1, -1, -1), padding_mode="zeros", align_corners=False)
