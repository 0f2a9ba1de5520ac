"""Sheets of samples: what the network makes of a few people while it is trained."""

from collections.abc import Callable

import torch
from torch import Tensor

from .batch import TrainingBatch
from .objective import IDENTITY, TrainedCapFace
from .sampling import capface_control, ddim, noise_prediction
from .schedule import NoiseSchedule


class Preview:
    """Draws the same people from the same noise at every stage of training, so that sheets can be compared."""

    def __init__(
        self,
        denoiser: torch.nn.Module,
        decode: Callable[[Tensor], Tensor],
        batch: TrainingBatch,
        *,
        identity: str = "both",
        steps: int = 20,
        guidance: float = 7.0,
        schedule: NoiseSchedule | None = None,
        seed: int = 0,
    ):
        """Choose the people.

        Args:
            denoiser: eps_theta.
            decode: Latents to pictures `[B, 3, H, W]` in 0..1.
            batch: The people, on the denoiser's device.
            identity: Which identity features are used, out of `IDENTITY`.
            steps: Of DDIM.
            guidance: Of the text.
            schedule: The base's.
            seed: Of the noise.
        """
        self.denoiser, self.decode, self.batch, self.identity = denoiser, decode, batch, identity
        self.steps, self.guidance, self.schedule = steps, guidance, schedule
        noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(seed))
        self.noise = noise.to(batch.latents)

    @torch.no_grad()
    def __call__(self, trained: TrainedCapFace) -> Tensor:
        """Return the sheet `[3, H, W]` in 0..1.

        A row for each person: the picture, its Lambertian map, a portrait by the base alone, with the head, and with head and
        identity.
        """
        batch = self.batch
        everybody = torch.ones(len(batch), dtype=torch.bool, device=batch.latents.device)
        tokens = trained.context(batch, IDENTITY[self.identity], everybody)
        columns = [self.decode(batch.latents), batch.hint[:, 6:9]]
        full = capface_control(trained.capface, batch.hint, tokens)
        head = capface_control(trained.capface, batch.hint, None)
        for controls in ([], [head]) if self.identity == "none" else ([], [head], [full]):
            predict = noise_prediction(self.denoiser, batch.context, batch.null_context, controls, guidance=self.guidance)
            columns.append(self.decode(ddim(predict, self.noise, steps=self.steps, schedule=self.schedule)))
        rows = torch.cat([c.float().cpu().clamp(0, 1) for c in columns], dim=-1)
        return torch.cat(list(rows), dim=-2)
