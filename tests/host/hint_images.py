"""Head conditions from pixels: golden cases store hints, but no heads."""

from dataclasses import replace

from torch import Tensor
from torch.nn.functional import interpolate

from capface.flame.builtin import builtin_head
from capface.flame.model import HeadParams, Window
from capface.flame.render import HeadCondition, crop_to_window


class HintImages(HeadCondition):
    """A head condition whose hint is `[B, 9, H, W]` pixels, resized where another size is requested."""

    images: Tensor

    def __init__(self, images: Tensor):
        super().__init__(replace(builtin_head(), kind="custom"), HeadParams.neutral(len(images)))
        self.images = images

    def hint(self, height: int, width: int) -> Tensor:
        """Return the maps at a size: float32 `[B, 9, height, width]`."""
        if self.images.shape[-2:] == (height, width):
            return self.images
        return interpolate(self.images, size=(height, width), mode="bilinear", antialias=True)

    def hint_in(self, window: Window, height: int, width: int) -> Tensor:
        """Return the maps of a part of the frame: float32 `[B, 9, height, width]`, 0 beyond the frame."""
        return crop_to_window(self.images, window, height, width)
