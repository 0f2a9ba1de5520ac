"""Pictures of synthetic people taken apart: what is seen where, without the light, the shirt's colour and the background.

Finding what each pixel sees takes nearly all of the time of a picture. Where that is kept, pictures in any light, shirt and
place take about a hundredth of it, so that training may see each head in as many as it likes (deferred shading).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...flame.model import shade


@dataclass(frozen=True, eq=False)
class Surfaces:
    """What is seen in each pixel of pictures, in 8 bits a number; means over the pixel's samples."""

    paint: Tensor
    """uint8 `[B, 5, H, W]`, in 255ths: the albedo (RGB) of all but the shirt times its share of the pixel, the albedo of a
    white shirt times its share, and the share that is not background."""
    normal: Tensor
    """int8 `[B, 3, H, W]`, in 127ths: the mean normal of what is not background, in head space."""

    def lit(self, light: Tensor, shirts: Tensor, places: Tensor) -> Tensor:
        """The pictures, as `draw_people` draws them but for edges, where it lights each sample apart.

        Args:
            light: `[B, 9, 3]`, as `HeadParams.light` holds it.
            shirts: `[B, 3]` RGB in 0..1.
            places: The backgrounds, uint8 `[B, 3, H, W]`.

        Returns:
            RGB `[B, 3, H, W]` in 0..1.
        """
        # one at a time: a picture fits into a core's cache, which makes it several times as fast on a CPU
        pictures = zip(self.paint, self.normal, light, shirts, places, strict=True)
        return torch.stack([_lit(*picture) for picture in pictures])


def _lit(paint: Tensor, normal: Tensor, light: Tensor, shirt: Tensor, place: Tensor) -> Tensor:
    paint = paint.float().mul_(1 / 255)
    albedo = torch.addcmul(paint[:3], shirt[:, None, None], paint[3])
    seen = albedo.mul_(shade(normal.flatten(1).float().mul_(1 / 127), light).view_as(albedo)).clamp_(0, 1)
    return seen.addcmul_(place.float(), 1 - paint[4], value=1 / 255).clamp_(max=1)
