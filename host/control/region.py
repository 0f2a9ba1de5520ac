"""Where in the picture a person's residuals act."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import BadInput
from ...models.diffusion import CapFace
from .coordinates import crop_view
from .evaluation import LATENT_SCALE, Evaluation, Row, select_frames

EDGES = ("hard", "soft")


@dataclass(frozen=True, eq=False)
class Region:
    """The head's predicted mask, and what further bounds it."""

    edge: str = "hard"
    """"hard": the mask as the paper uses it, 0 or 1 at > 0.5. "soft": the prediction itself."""
    extra: Tensor | None = None
    """The user's own mask `[B, 1, H, W]` in 0..1, stretched over the frame; None is everywhere."""
    nearer: tuple[Evaluation, ...] = ()
    """People in front of this one: where their heads are, this one's residuals do not act."""

    def __post_init__(self):
        if self.edge not in EDGES:
            raise BadInput(f"A mask's edge is {' or '.join(EDGES)}, got {self.edge!r}.")

    def behind(self, evaluation: Evaluation) -> "Region":
        """Return this region without the head of somebody nearer."""
        return replace(self, nearer=(*self.nearer, evaluation))

    def on(self, device: torch.device) -> "Region":
        """Return this region for the host's multi-GPU sampling."""
        return replace(self, nearer=tuple(evaluation.on(device) for evaluation in self.nearer))

    def factors(self, evaluation: Evaluation, x: Tensor, rows: list[Row], sizes: Sequence[torch.Size]) -> dict:
        """Return what to multiply residuals with.

        Args:
            evaluation: The person's.
            x: Latents `[n, 4, h, w]`; their size and device count.
            rows: What each of the n latents shows.
            sizes: Sizes (h, w) of the residuals.

        Returns:
            By size, `[n or 1, 1, h, w]` in 0..1 on the latents' device.
        """
        own = evaluation.mask(x, rows)
        others = [other.mask(x, rows) for other in self.nearer]
        extra = None if self.extra is None else self._extra_of(rows, *x.shape[-2:])
        factors = {}
        for size in set(sizes):
            factor = CapFace.resize_mask(own, size)
            if self.edge == "hard":
                factor = (factor > 0.5).float()
            for other in others:
                factor = factor * (CapFace.resize_mask(other, size) <= 0.5)
            if extra is not None:
                factor = factor * CapFace.resize_mask(extra, size)
            factors[size] = factor.to(x.device)
        return factors

    def _extra_of(self, rows: list[Row], height: int, width: int) -> Tensor:
        """The user's mask as latents of a size show it, `[n or 1, 1, H, W]`."""
        extra = self.extra.float().cpu()
        views = dict.fromkeys(view for view, _ in rows)
        parts = {view: crop_view(extra, view, height * LATENT_SCALE, width * LATENT_SCALE) for view in views}
        if len(parts) == 1:
            return select_frames(*parts.values(), [frame for _, frame in rows])
        return torch.cat([select_frames(parts[view], [frame]) for view, frame in rows])
