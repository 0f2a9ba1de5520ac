"""Head conditions: a head rendered at any size as the nine-channel hint `[normal; albedo; Lambertian]`.

Conventions: a hint is float32 `[B, 9, H, W]` with normals in -1..1 (x right, y up, z towards the viewer), albedo in 0..1 and
unclamped Lambertian shading. The background is 0 in all channels.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ...shapes import Float
from ..model import HeadModel, HeadParams, Window
from .maps import BUILT_IN_BACKEND, render_head

MAX_HINT_BYTES = 2**28
"""Size of a hint that a condition keeps: 28 frames of 512 × 512 pixels. ComfyUI keeps the condition between prompts."""


@dataclass(frozen=True, eq=False)
class HeadCondition:
    """A head model and its parameters, rendered on demand at the requested size. The only pixels it keeps are the last hint."""

    model: HeadModel
    params: HeadParams
    backend: str = BUILT_IN_BACKEND
    """The rasteriser, a name in `render.BACKENDS`."""
    _last: dict[tuple[int, int], Float[Tensor, "B 9 H W"]] = field(default_factory=dict, repr=False)

    @property
    def batch(self) -> int:
        """Number of heads (frames)."""
        return self.params.batch

    def hint(self, height: int, width: int) -> Float[Tensor, "B 9 H W"]:
        """Render the hint.

        Args:
            height: Height in pixels.
            width: Width in pixels.

        Returns:
            The hint on the parameters' device. It is cached until another size is requested, unless it has more than
            `MAX_HINT_BYTES`: do not write to it.
        """
        size = (height, width)
        last = self._last.get(size)
        if last is None:
            self._last.clear()
            last = render_head(self.model, self.params, height, width, self.backend).hint()
            if last.numel() * last.element_size() <= MAX_HINT_BYTES:
                self._last[size] = last
        return last

    def hint_in(self, window: Window, height: int, width: int) -> Float[Tensor, "B 9 H W"]:
        """Render the hint of a part of the frame at full sharpness.

        Args:
            window: The part of the frame.
            height: Height in pixels.
            width: Width in pixels.

        Returns:
            The hint on the parameters' device.
        """
        return render_head(self.model, self.params, height, width, self.backend, window).hint()


def crop_to_window(images: Float[Tensor, "B C H W"], window: Window, height: int, width: int) -> Float[Tensor, "B C h w"]:
    """Crop a window from images of the frame and resize it bilinearly.

    Args:
        images: Images that cover the frame.
        window: The part of the frame.
        height: Height of the result in pixels.
        width: Width of the result in pixels.

    Returns:
        The window; 0 beyond the frame.
    """
    x = torch.linspace(window.left, window.right, 2 * width + 1, dtype=images.dtype, device=images.device)[1::2]
    y = torch.linspace(window.top, window.bottom, 2 * height + 1, dtype=images.dtype, device=images.device)[1::2]
    return sample(images, x.expand(1, height, -1), y[:, None].expand(1, -1, width))


def sample(images: Float[Tensor, "B C H W"], x: Float[Tensor, "b h w"], y: Float[Tensor, "b h w"]) -> Float[Tensor, "B C h w"]:
    """Sample images of the frame bilinearly at arbitrary positions.

    Args:
        images: Images that cover the frame.
        x: Horizontal positions as fractions of the frame's width; b is 1 or B.
        y: Vertical positions as fractions of the frame's height.

    Returns:
        The samples; 0 beyond the frame.
    """
    grid = torch.stack([x, y], dim=-1) * 2 - 1
    return F.grid_sample(images, grid.expand(len(images), -1, -1, -1), padding_mode="zeros", align_corners=False)
