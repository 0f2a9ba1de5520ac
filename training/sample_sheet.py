"""Sheets of samples: portraits of a few people, made during training."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..models.diffusion import Denoiser
from .batch import TrainingBatch
from .objective import IDENTITY_PARTS, TrainedCapFace
from .sampling import capface_control, ddim, noise_prediction
from .schedule import NoiseSchedule


class Preview:
    """Makes portraits of the same people from the same noise at each call, so that sheets can be compared."""

    def __init__(
        self,
        denoiser: Denoiser,
        decode: Callable[[Tensor], Tensor],
        batch: TrainingBatch,
        *,
        identity: str = "both",
        steps: int = 20,
        guidance: float = 7.0,
        schedule: NoiseSchedule | None = None,
        seed: int = 0,
    ):
        """Choose the people and the noise.

        Args:
            denoiser: eps_theta.
            decode: Function from latents to pictures `[B, 3, H, W]` in 0..1.
            batch: The people, on the denoiser's device.
            identity: Identity features that are used, one of `IDENTITY_PARTS`.
            steps: Number of DDIM steps.
            guidance: Scale of classifier-free guidance.
            schedule: Noise schedule of the base; Stable Diffusion's by default.
            seed: Seed of the noise.
        """
        self.denoiser, self.decode, self.batch, self.identity = denoiser, decode, batch, identity
        self.steps, self.guidance, self.schedule = steps, guidance, schedule
        noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(seed))
        self.noise = noise.to(batch.latents)

    @torch.no_grad()
    def __call__(self, trained: TrainedCapFace) -> Tensor:
        """Return a sheet with a row for each person.

        A row shows the picture, its Lambertian map, a portrait by the base alone, one with the head, and one with head and
        identity; the last one is missing for a head-control model.

        Args:
            trained: The networks.

        Returns:
            `[3, H, W]` in 0..1.
        """
        batch = self.batch
        keep = torch.ones(len(batch), dtype=torch.bool, device=batch.latents.device)
        tokens = trained.context(batch, IDENTITY_PARTS[self.identity], keep)
        columns = [self.decode(batch.latents), batch.hint[:, 6:9]]
        full = capface_control(trained.capface, batch.hint, tokens)
        head = capface_control(trained.capface, batch.hint, None)
        for controls in ([], [head]) if self.identity == "none" else ([], [head], [full]):
            predict = noise_prediction(self.denoiser, batch.context, batch.null_context, controls, guidance=self.guidance)
            columns.append(self.decode(ddim(predict, self.noise, steps=self.steps, schedule=self.schedule)))
        rows = torch.cat([c.float().cpu().clamp(0, 1) for c in columns], dim=-1)
        return torch.cat(list(rows), dim=-2)
