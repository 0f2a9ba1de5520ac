"""The objective for one person: |eps_theta(z_t, t, c) - eps|² over noisy versions of one photo."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..sampled import Tensors
from ..schedule import TIMESTEPS, NoiseSchedule
from .adaptation import Adaptation
from .tunable import Tunable


class PersonObjective(nn.Module):
    """The loss of a person's `Adaptation`; everything else of the base is frozen."""

    def __init__(self, base: Tunable, trained: Adaptation, schedule: NoiseSchedule, weighting: str):
        """Keep the networks.

        Args:
            base: The base model. Its parameters that are not in `trained` are frozen.
            trained: The parameters to train.
            schedule: Noise schedule of the base.
            weighting: Weight of each timestep's error, one of `schedule.WEIGHTS`.
        """
        super().__init__()
        trains = {id(p) for p in trained.parameters()}
        for network in (base.denoiser, base.text_encoder):
            network.eval()
            for parameter in network.parameters():
                parameter.requires_grad_(id(parameter) in trains)
        self.denoiser, self.text_encoder, self.trained = base.denoiser, base.text_encoder, trained
        self.base, self.schedule, self.weighting = base, schedule, weighting

    def forward(self, batch: Tensors, generator: torch.Generator) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Args:
            batch: `latents` `[B, C, h, w]` and `tokens` `[B, N]`.
            generator: CPU generator of timesteps and noise.

        Returns:
            `loss`, with a gradient; without one, for each sample its `timesteps` and `errors` `[B]`.
        """
        latents = batch["latents"]
        timesteps = torch.randint(TIMESTEPS, (len(latents),), generator=generator).to(latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        text = self.base.encode_text(batch["tokens"], self.trained.learned)
        predicted = self.denoiser(self.schedule.add_noise(latents, noise, timesteps), timesteps, text)
        errors = F.mse_loss(predicted.float(), noise, reduction="none").mean((1, 2, 3))
        loss = (errors * self.schedule.weights(self.weighting, timesteps)).mean()
        return {"loss": loss, "noise": errors.mean().detach(), "timesteps": timesteps, "errors": errors.detach()}


class PhotoBatches:
    """Samples batches of one photo: its latents and one of its captions for each sample."""

    def __init__(self, latents: tuple[Tensor, Tensor], tokens: Sequence[Tensor], batch: int):
        """Keep the photo.

        Args:
            latents: Mean and standard deviation of its latents, `[1, C, h, w]`.
            tokens: The tokens of each caption, int64 `[N]`.
            batch: Samples in a batch.
        """
        self.mean, self.deviation = latents
        self.tokens, self.batch = torch.stack(list(tokens)), batch

    def __call__(self, generator: torch.Generator) -> Tensors:
        """Sample a batch with a CPU generator."""
        caption = torch.randint(len(self.tokens), (self.batch,), generator=generator)
        noise = torch.randn((self.batch, *self.mean.shape[1:]), generator=generator)
        return Tensors({"latents": self.mean + self.deviation * noise, "tokens": self.tokens[caption]})
