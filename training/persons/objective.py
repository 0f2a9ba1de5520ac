"""The objective for one person: |eps_theta(z_t, t, c) - eps|² over noisy versions of one photo."""

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, eq=False)
class Pictures:
    """Encoded pictures to sample from, each with a caption."""

    mean: Tensor
    """Of the latents, `[P, C, h, w]`."""
    deviation: Tensor
    """Standard deviation of the latents, `[P, C, h, w]`."""
    tokens: Tensor
    """int64 `[P, N]`."""

    @classmethod
    def of_photo(cls, latents: tuple[Tensor, Tensor], tokens: Sequence[Tensor]) -> "Pictures":
        """Return one photo with several captions.

        Args:
            latents: Mean and standard deviation, `[1, C, h, w]`.
            tokens: The tokens of each caption, int64 `[N]`.
        """
        mean, deviation = (part.expand(len(tokens), -1, -1, -1) for part in latents)
        return cls(mean, deviation, torch.stack(list(tokens)))

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return latents `[count, C, h, w]` and tokens `[count, N]` of random pictures."""
        rows = torch.randint(len(self.tokens), (count,), generator=generator)
        noise = torch.randn((count, *self.mean.shape[1:]), generator=generator)
        return self.mean[rows] + self.deviation[rows] * noise, self.tokens[rows]


class PhotoBatches:
    """Samples batches of a photo and, with prior preservation, as many samples of pictures of other people."""

    def __init__(self, photo: Pictures, batch: int, prior: Pictures | None = None):
        """Keep the pictures.

        Args:
            photo: The photo.
            batch: Samples of the photo in a batch.
            prior: Pictures of other people, which the network shall not forget.
        """
        self.photo, self.batch, self.prior = photo, batch, prior

    def __call__(self, generator: torch.Generator) -> Tensors:
        """Sample a batch with a CPU generator."""
        latents, tokens = self.photo.sample(self.batch, generator)
        if self.prior is not None:
            others = self.prior.sample(self.batch, generator)
            latents, tokens = torch.cat([latents, others[0]]), torch.cat([tokens, others[1]])
        return Tensors({"latents": latents, "tokens": tokens})
