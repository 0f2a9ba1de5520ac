"""The region of the picture in which a person's residuals act."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import BadInput
from ...models.diffusion import CapFace
from .coordinates import crop_view
from .evaluation import PIXELS_PER_LATENT, Evaluation, Row, select_frames

EDGES = ("hard", "soft")


@dataclass(frozen=True, eq=False)
class Region:
    """The head's predicted mask, limited by the user's mask and by nearer heads."""

    edge: str = "hard"
    """"hard": the predicted mask, set to 1 above 0.5 and to 0 elsewhere, as in the paper. "soft": the predicted mask itself."""
    extra: Tensor | None = None
    """The user's mask `[B, 1, H, W]` in 0..1, stretched over the frame. None means everywhere."""
    nearer: tuple[Evaluation, ...] = ()
    """People in front of this one. This person's residuals do not act on their heads."""

    def __post_init__(self):
        if self.edge not in EDGES:
            raise BadInput(f"Expected a mask edge of {' or '.join(EDGES)}, got {self.edge!r}.")

    def behind(self, evaluation: Evaluation) -> "Region":
        """Return this region without the head of a nearer person."""
        return replace(self, nearer=(*self.nearer, evaluation))

    def on(self, device: torch.device) -> "Region":
        """Return this region on another device, for ComfyUI's multi-GPU sampling."""
        return replace(self, nearer=tuple(evaluation.on(device) for evaluation in self.nearer))

    def factors(
        self, evaluation: Evaluation, x: Tensor, rows: list[Row], sizes: Sequence[torch.Size]
    ) -> dict[torch.Size, Tensor]:
        """Return the factors by which to multiply residuals.

        Args:
            evaluation: The person's evaluation.
            x: Latents `[n, 4, h, w]`. Only their size, and the device for encoding, are used.
            rows: View and frame of each of the n latents.
            sizes: Sizes (h, w) of the residuals.

        Returns:
            Factors `[n or 1, 1, h, w]` in 0..1 on the CPU, by size.
        """
        own = evaluation.mask(x, rows)
        others = [other.mask(x, rows) for other in self.nearer]
        extra = None if self.extra is None else _crop_mask(self.extra, rows, *x.shape[-2:])
        factors = {}
        for size in set(sizes):
            factor = CapFace.resize_mask(own, size)
            if self.edge == "hard":
                factor = (factor > 0.5).float()
            for other in others:
                factor = factor * (CapFace.resize_mask(other, size) <= 0.5)
            if extra is not None:
                factor = factor * CapFace.resize_mask(extra, size)
            factors[size] = factor
        return factors


def _crop_mask(mask: Tensor, rows: list[Row], height: int, width: int) -> Tensor:
    """Crop a mask `[B, 1, H, W]` to the views of latents of a size (height, width): `[n or 1, 1, h, w]`."""
    mask = mask.float().cpu()
    views = dict.fromkeys(view for view, _ in rows)
    parts = {view: crop_view(mask, view, height * PIXELS_PER_LATENT, width * PIXELS_PER_LATENT) for view in views}
    if len(parts) == 1:
        (part,) = parts.values()
        return select_frames(part, [frame for _, frame in rows])
    return torch.cat([select_frames(parts[view], [frame]) for view, frame in rows])
