"""Equation 7: what CapFace is trained to do, and what it is trained to do without."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import BadInput
from ..models.diffusion import HINT_WIDTHS, NETWORK, Block, CapFace, Denoiser, IdentityTokens
from .batch import TrainingBatch
from .schedule import TIMESTEPS, NoiseSchedule

IDENTITY = {"both": (1, 1), "local": (1, 0), "global": (0, 1), "none": (0, 0)}
"""Which identity features are used (table 2): factors of the local and the global tokens, as an identity's strengths in a node.
`none` trains a head-control model, pi* of equation 9."""
DRAWN = "drawn"


@dataclass(frozen=True)
class ObjectiveSettings:
    """The loss; every default is that of the released training script, whose network is the published one."""

    weighting: str = "eps"
    """How much each timestep counts, out of `schedule.WEIGHTS`."""
    mask_weight: float = 1.0
    """lambda of equation 7."""
    identity: str = "both"
    """Out of `IDENTITY`."""
    tau: float | str = 1000.0
    """Time-dependent ID dropout, equation 8: tokens are kept at t <= tau and zero beyond. 1000 never drops them; tau is then
    chosen when portraits are made (table 5). "drawn" takes another tau for each sample, uniform in 0..1000, so that the network
    knows no identity at every timestep, and best at high noise."""
    identity_dropout: float = 0.0
    """Share of the samples whose identity is dropped whatever the timestep."""
    text_dropout: float = 0.0
    """Share of the samples whose text is replaced by the empty prompt's."""

    def __post_init__(self):
        if self.identity not in IDENTITY:
            raise BadInput(f"Expected identity out of {', '.join(IDENTITY)}, got {self.identity!r}.")
        if self.tau != DRAWN and not (isinstance(self.tau, int | float) and 0 <= self.tau <= TIMESTEPS):
            raise BadInput(f"Expected tau in 0..{TIMESTEPS}, or {DRAWN!r}, got {self.tau!r}.")
        for name in ("identity_dropout", "text_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"Expected {name} in 0..1, got {getattr(self, name)}.")


@dataclass(frozen=True, eq=False)
class Draws:
    """What chance decides about a batch."""

    timesteps: Tensor
    """int64 `[B]`."""
    noise: Tensor
    """eps, as the latents."""
    keep_identity: Tensor
    """bool `[B]`."""
    keep_text: Tensor
    """bool `[B]`."""


def draw(latents: Tensor, settings: ObjectiveSettings, generator: torch.Generator) -> Draws:
    """Draw on the CPU, so that every device gets the same numbers.

    Args:
        latents: z_0 `[B, C, h, w]`, for their shape and device.
        settings: The shares.
        generator: A CPU generator.
    """
    batch, device = len(latents), latents.device
    timesteps = torch.randint(TIMESTEPS, (batch,), generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    uniform = torch.rand(3, batch, generator=generator)
    tau = TIMESTEPS * uniform[0] if settings.tau == DRAWN else torch.full((batch,), float(settings.tau))
    keep = (timesteps <= tau) & (tau > 0) & (uniform[1] >= settings.identity_dropout)
    return Draws(*(t.to(device) for t in (timesteps, noise, keep, uniform[2] >= settings.text_dropout)))


class TrainedCapFace(nn.Module):
    """What is trained and saved: the network and its two projections."""

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
        """An untrained one that leaves the denoiser's predictions as they are, in float32."""
        capface = CapFace.from_denoiser(denoiser, hint_widths=hint_widths).float()
        return cls(capface, IdentityTokens(local_width, global_width, denoiser.config.context_width)).requires_grad_()

    def checkpoint(self) -> dict[str, Tensor]:
        """Its tensors by the keys of the released file, as `load_capface` takes them."""
        return {f"{NETWORK}{k}": v for k, v in self.capface.state_dict().items()} | self.tokens.state_dict()

    def context(self, batch: TrainingBatch, parts: tuple[int, int], keep: Tensor) -> Tensor:
        """Identity tokens `[B, N_l + 1, W]`, zero where a part is not used or a sample does not keep its identity.

        Args:
            batch: Its features.
            parts: Factors of the local and the global tokens.
            keep: bool `[B]`.
        """
        tokens = self.tokens(batch.local, batch.global_)
        local, global_ = parts
        factors = torch.tensor([local] * batch.local.shape[1] + [global_], device=tokens.device, dtype=tokens.dtype)
        return tokens * factors[:, None] * keep[:, None, None]


class CapFaceObjective(nn.Module):
    """|eps_theta(z_t, t, c, F * M) - eps|² + lambda |M - M_gt|² with F = pi(z_t, t, H, f_id), both means over elements.

    eps_theta is frozen. The mask acts as it will when portraits are made: hard at > 0.5, so that it learns from its own term
    alone.
    """

    def __init__(self, base: Denoiser, trained: TrainedCapFace, schedule: NoiseSchedule, settings: ObjectiveSettings):
        """Freeze the base and what the settings leave without effect.

        Args:
            base: eps_theta.
            trained: pi and its projections.
            schedule: The base's own noise schedule.
            settings: The loss.
        """
        super().__init__()
        self.base = base.eval().requires_grad_(False)
        self.trained = trained
        self.schedule = schedule
        self.settings = settings
        if settings.identity == "none":  # cross-attention to nothing is its output bias; the rest would only decay
            trained.tokens.requires_grad_(False)
            for name, parameter in trained.capface.named_parameters():
                if any(part in name for part in (".attn2.to_q.", ".attn2.to_k.", ".attn2.to_v.", ".norm2.")):
                    parameter.requires_grad_(False)

    def forward(self, batch: TrainingBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of a batch.

        Returns:
            `loss`, with a gradient; without one its terms `noise` and `mask` (unweighted means), and for each sample its
            `timesteps` `[B]` and `errors` `[B]`, |eps_hat - eps|² as a mean over elements.
        """
        settings = self.settings
        drawn = draw(batch.latents, settings, generator)
        text = torch.where(drawn.keep_text[:, None, None], batch.context, batch.null_context)
        noisy = self.schedule.add_noise(batch.latents, drawn.noise, drawn.timesteps)
        guided, mask = self.trained.capface.encode_hint(batch.hint)
        identity = None
        if settings.identity != "none":
            identity = self.trained.context(batch, IDENTITY[settings.identity], drawn.keep_identity)
        residuals = self.trained.capface(noisy, drawn.timesteps, guided, identity)
        mask = mask.float()
        predicted = self.base(noisy, drawn.timesteps, text, CapFace.mask_residuals(residuals, mask.detach()))

        errors = F.mse_loss(predicted.float(), drawn.noise, reduction="none").mean((1, 2, 3))
        truth = F.interpolate(batch.mask.float(), mask.shape[-2:], mode="area")
        mask_loss = F.mse_loss(mask, truth)
        loss = (self.schedule.weights(settings.weighting, drawn.timesteps) * errors).mean() + settings.mask_weight * mask_loss
        return {
            "loss": loss,
            "noise": errors.mean().detach(),
            "mask": mask_loss.detach(),
            "timesteps": drawn.timesteps,
            "errors": errors.detach(),
        }


def recompute_activations(*networks: nn.Module) -> None:
    """Make networks keep each block's input alone for the backward pass, and compute the rest again: memory for time."""
    for network in networks:
        for block in network.modules():
            if isinstance(block, Block):
                block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
