"""The training objective, equation 7, with dropout of identity and text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import BadInput
from ..models.diffusion import HINT_WIDTHS, NETWORK, Block, CapFace, Denoiser, IdentityTokens, token_factors
from .batch import TrainingBatch
from .schedule import TIMESTEPS, NoiseSchedule

IDENTITY_PARTS = {"both": (1, 1), "local": (1, 0), "global": (0, 1), "none": (0, 0)}
"""Identity features that are used (table 2): factors of the local and the global tokens. `none` trains a head-control model,
pi* of equation 9."""
RANDOM_TAU = "drawn"
"""Value of `ObjectiveSettings.tau` that samples another tau for each sample."""


@dataclass(frozen=True)
class ObjectiveSettings:
    """Settings of the loss. The defaults are those of the released training script, which made the published network."""

    weighting: str = "eps"
    """Weight of each timestep's error, one of `schedule.WEIGHTS`."""
    mask_weight: float = 1.0
    """lambda of equation 7, weight of the mask's error."""
    identity: str = "both"
    """Identity features that are used, one of `IDENTITY_PARTS`."""
    tau: float | str = 1000.0
    """Time-dependent ID dropout, equation 8: tokens are kept at t <= tau and zero beyond. 1000 never drops them; tau is then
    chosen at inference (table 5). "drawn" samples another tau for each sample, uniform in 0..1000, so that the network is
    trained without identity at every timestep, most often at high noise."""
    identity_dropout: float = 0.0
    """Fraction of the samples whose identity is dropped at any timestep."""
    text_dropout: float = 0.0
    """Fraction of the samples whose text features are replaced by those of the empty prompt."""

    def __post_init__(self) -> None:
        if self.identity not in IDENTITY_PARTS:
            raise BadInput(f"Expected identity to be one of {', '.join(IDENTITY_PARTS)}, got {self.identity!r}.")
        if self.tau != RANDOM_TAU and not (isinstance(self.tau, int | float) and 0 <= self.tau <= TIMESTEPS):
            raise BadInput(f"Expected tau in 0..{TIMESTEPS}, or {RANDOM_TAU!r}, got {self.tau!r}.")
        for name in ("identity_dropout", "text_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"Expected {name} in 0..1, got {getattr(self, name)}.")


@dataclass(frozen=True, eq=False)
class StepRandomness:
    """The random variables of a batch."""

    timesteps: Tensor
    """int64 `[B]`, in 0..999."""
    noise: Tensor
    """eps, of the latents' shape."""
    keep_identity: Tensor
    """Whether a sample keeps its identity: bool `[B]`."""
    keep_text: Tensor
    """Whether a sample keeps its text: bool `[B]`."""


def sample_randomness(latents: Tensor, settings: ObjectiveSettings, generator: torch.Generator) -> StepRandomness:
    """Sample the random variables of a batch on the CPU, so that they are equal on every device.

    Args:
        latents: z_0 `[B, C, h, w]`, for their shape and device.
        settings: tau and the dropout probabilities.
        generator: CPU generator.
    """
    batch, device = len(latents), latents.device
    timesteps = torch.randint(TIMESTEPS, (batch,), generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    uniform = torch.rand(3, batch, generator=generator)
    tau = TIMESTEPS * uniform[0] if settings.tau == RANDOM_TAU else torch.full((batch,), float(settings.tau))
    keep = (timesteps <= tau) & (tau > 0) & (uniform[1] >= settings.identity_dropout)
    return StepRandomness(*(t.to(device) for t in (timesteps, noise, keep, uniform[2] >= settings.text_dropout)))


class TrainedCapFace(nn.Module):
    """The trained and saved networks: CapFace and its two projections of identity features."""

    def __init__(self, capface: CapFace, tokens: IdentityTokens):
        super().__init__()
        self.capface = capface
        self.tokens = tokens

    @classmethod
    def from_denoiser(
        cls,
        denoiser: Denoiser,
        *,
        local_width: int = 1024,
        global_width: int = 512,
        hint_widths: Sequence[int] = HINT_WIDTHS,
    ) -> "TrainedCapFace":
        """Create an untrained CapFace that does not change the denoiser's predictions, float32.

        Args:
            denoiser: The denoiser, whose encoder is copied.
            local_width: Width of the local identity features.
            global_width: Width of the global identity feature.
            hint_widths: Channels of the hint's encoder.
        """
        capface = CapFace.from_denoiser(denoiser, hint_widths=hint_widths).float()
        return cls(capface, IdentityTokens(local_width, global_width, denoiser.config.context_width)).requires_grad_()

    def checkpoint(self) -> dict[str, Tensor]:
        """Return the tensors under the keys of the released file, as `load_capface` reads them."""
        return {f"{NETWORK}{k}": v for k, v in self.capface.state_dict().items()} | self.tokens.state_dict()

    def context(self, batch: TrainingBatch, parts: tuple[int, int], keep: Tensor) -> Tensor:
        """Compute the identity tokens of a batch.

        Args:
            batch: The batch, with its identity features.
            parts: Factors of the local and the global tokens, from `IDENTITY_PARTS`.
            keep: Whether a sample keeps its identity: bool `[B]`.

        Returns:
            `[B, N_l + 1, W]`, zero for an unused part and for a sample that does not keep its identity.
        """
        tokens = self.tokens(batch.local, batch.global_)
        local, global_ = torch.tensor(parts, device=tokens.device, dtype=tokens.dtype)[:, None]
        return tokens * token_factors(local, global_, batch.local.shape[1]) * keep[:, None, None]


class CapFaceObjective(nn.Module):
    """|eps_theta(z_t, t, c, F * M) - eps|² + lambda |M - M_gt|² with F = pi(z_t, t, H, f_id), both means over elements.

    eps_theta is frozen. The mask is applied as at inference, thresholded at > 0.5, so only its own term trains it.
    """

    def __init__(self, base: Denoiser, trained: TrainedCapFace, schedule: NoiseSchedule, settings: ObjectiveSettings):
        """Freeze the base, and the parameters that have no effect under the settings.

        Args:
            base: eps_theta.
            trained: pi and its projections.
            schedule: Noise schedule of the base.
            settings: Settings of the loss.
        """
        super().__init__()
        self.base = base.eval().requires_grad_(False)
        self.trained = trained
        self.schedule = schedule
        self.settings = settings
        if settings.identity == "none":
            # cross-attention to no tokens gives its output bias; weight decay would shrink its other parameters
            trained.tokens.requires_grad_(False)
            for name, parameter in trained.capface.named_parameters():
                if any(part in name for part in (".attn2.to_q.", ".attn2.to_k.", ".attn2.to_v.", ".norm2.")):
                    parameter.requires_grad_(False)

    def forward(self, batch: TrainingBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Args:
            batch: The batch.
            generator: CPU generator of the timesteps, the noise and the dropout.

        Returns:
            `loss`, with a gradient. Without a gradient: its terms `noise` and `mask` (unweighted means), and for each sample
            its `timesteps` `[B]` and `errors` `[B]`, |eps_hat - eps|² as a mean over elements.
        """
        settings = self.settings
        random = sample_randomness(batch.latents, settings, generator)
        text = torch.where(random.keep_text[:, None, None], batch.context, batch.null_context)
        noisy = self.schedule.add_noise(batch.latents, random.noise, random.timesteps)
        guided, mask = self.trained.capface.encode_hint(batch.hint)
        identity = None
        if settings.identity != "none":
            identity = self.trained.context(batch, IDENTITY_PARTS[settings.identity], random.keep_identity)
        residuals = self.trained.capface(noisy, random.timesteps, guided, identity)
        mask = mask.float()
        predicted = self.base(noisy, random.timesteps, text, CapFace.mask_residuals(residuals, mask.detach()))

        errors = F.mse_loss(predicted.float(), random.noise, reduction="none").mean((1, 2, 3))
        truth = F.interpolate(batch.mask.float(), mask.shape[-2:], mode="area")
        mask_loss = F.mse_loss(mask, truth)
        loss = (self.schedule.weights(settings.weighting, random.timesteps) * errors).mean() + settings.mask_weight * mask_loss
        return {
            "loss": loss,
            "noise": errors.mean().detach(),
            "mask": mask_loss.detach(),
            "timesteps": random.timesteps,
            "errors": errors.detach(),
        }


def recompute_activations(*networks: nn.Module) -> None:
    """Make networks store only each block's input for the backward pass and recompute its activations: less memory, more time.

    Args:
        networks: Networks that are made of `Block` modules; changed in place.
    """
    for network in networks:
        for block in network.modules():
            if isinstance(block, Block):
                block.forward = partial(_recompute, block.forward)


def _recompute(forward: Callable[..., Tensor], *inputs: Any, **named: Any) -> Tensor:
    """Call `forward`, storing only its inputs for the backward pass."""
    out = checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **named)
    assert isinstance(out, Tensor)
    return out
