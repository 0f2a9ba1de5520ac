"""Where in the picture a person's residuals act."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import BadInput
from ..models.capface import CapFace
from .evaluation import Evaluation, rows

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

    def factors(self, evaluation: Evaluation, x: Tensor, frames: list[int], sizes: Sequence[torch.Size]) -> dict:
        """Return what to multiply residuals with.

        Args:
            evaluation: The person's.
            x: Latents `[n, 4, h, w]`; their size and device count.
            frames: The n frames that they stand for.
            sizes: Sizes (h, w) of the residuals.

        Returns:
            By size, `[n or 1, 1, h, w]` in 0..1 on the latents' device.
        """
        own = rows(evaluation.mask(x), frames)
        others = [rows(other.mask(x), frames) for other in self.nearer]
        extra = None if self.extra is None else rows(self.extra.float().cpu(), frames)
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
