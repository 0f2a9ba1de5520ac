"""G-buffers of synthetic people: the visible surfaces, without light, shirt colour and background.

Finding the visible surface of each pixel takes nearly all of the time that a picture needs. With G-buffers, a picture in
another light, shirt or background takes about a hundredth of it (deferred shading), so training can vary them for each head
as often as it likes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...flame.model import shade
from ...shapes import Float, Int, Num


@dataclass(frozen=True, eq=False)
class Surfaces:
    """The visible surface in each pixel of B pictures, 8 bits per value, averaged over the pixel's samples."""

    paint: Num[Tensor, "B 5 H W"]
    """uint8 `[B, 5, H, W]`, in 255ths: the albedo (RGB) of everything but the shirt times the fraction of the pixel that it
    covers, the albedo of a white shirt times its fraction, and the fraction that is not background."""
    normal: Int[Tensor, "B 3 H W"]
    """int8 `[B, 3, H, W]`, in 127ths: the mean normal of the foreground, in head space."""

    def lit(
        self, light: Float[Tensor, "B 9 3"], shirts: Float[Tensor, "B 3"], places: Num[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B 3 H W"]:
        """Shade the pictures. They equal those of `draw_people` except at edges, where `draw_people` shades each sample.

        Args:
            light: `[B, 9, 3]`, as in `HeadParams.light`.
            shirts: Shirt colours `[B, 3]`, RGB in 0..1.
            places: The backgrounds, uint8 `[B, 3, H, W]`.

        Returns:
            RGB `[B, 3, H, W]` in 0..1.
        """
        # One picture at a time fits into a core's cache, which is several times as fast on a CPU.
        pictures = zip(self.paint, self.normal, light, shirts, places, strict=True)
        return torch.stack([_lit(*picture) for picture in pictures])


def _lit(paint: Tensor, normal: Tensor, light: Tensor, shirt: Tensor, place: Tensor) -> Tensor:
    paint = paint.float().mul_(1 / 255)
    albedo = torch.addcmul(paint[:3], shirt[:, None, None], paint[3])
    lit = albedo.mul_(shade(normal.flatten(1).float().mul_(1 / 127), light).view_as(albedo)).clamp_(0, 1)
    return lit.addcmul_(place.float(), 1 - paint[4], value=1 / 255).clamp_(max=1)
