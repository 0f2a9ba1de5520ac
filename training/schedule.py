"""The forward process q(z_t | z_0), and the weights of timesteps in the loss."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import BadInput

TIMESTEPS = 1000

BETAS: dict[str, Callable[[], Tensor]] = {
    "scaled_linear": lambda: torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float64).square(),
    "linear": lambda: torch.linspace(1e-4, 0.02, TIMESTEPS, dtype=torch.float64),
}
"""beta_t by name: `scaled_linear` is Stable Diffusion's (Rombach et al. 2022), `linear` is that of DDPM (Ho et al. 2020)."""

WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "eps": torch.ones_like,
    "min_snr_5": lambda a: (5 * (1 - a) / a).clamp(max=1),
    "inverse_alpha": lambda a: (1 / a).clamp(max=10),
}
"""Factor of |eps_hat - eps|² by name, as a function of abar_t.

- `eps`: 1, equation 7 as written.
- `min_snr_5`: min(SNR, 5) / SNR with SNR = abar / (1 - abar), for a prediction of eps (Hang et al. 2023): less at low noise.
- `inverse_alpha`: min(1 / abar, 10): more weight at high noise, where position, pose and light are decided; helps small
  networks.
"""


class NoiseSchedule:
    """abar_t for t = 0 .. 999."""

    def __init__(self, name: str = "scaled_linear"):
        """Create a schedule.

        Args:
            name: One of `BETAS`.

        Raises:
            BadInput: The name is unknown.
        """
        if name not in BETAS:
            raise BadInput(f"Expected a noise schedule out of {', '.join(BETAS)}, got {name!r}.")
        self.alphas_bar = torch.cumprod(1 - BETAS[name](), dim=0)
        """float64 `[1000]`."""

    def at(self, timesteps: Tensor) -> Tensor:
        """Return abar_t for int64 timesteps `[B]`: float32 `[B, 1, 1, 1]` on their device."""
        return self.alphas_bar[timesteps.cpu()].float().to(timesteps.device)[:, None, None, None]

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Compute z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps.

        Args:
            latents: z_0 `[B, C, h, w]`.
            noise: eps `[B, C, h, w]`.
            timesteps: t, int64 `[B]`.

        Returns:
            z_t `[B, C, h, w]`.
        """
        a = self.at(timesteps)
        return a.sqrt() * latents + (1 - a).sqrt() * noise

    def weights(self, name: str, timesteps: Tensor) -> Tensor:
        """Return the weights of timesteps in the loss.

        Args:
            name: One of `WEIGHTS`.
            timesteps: t, int64 `[B]`.

        Returns:
            float32 `[B]`.

        Raises:
            BadInput: The name is unknown.
        """
        if name not in WEIGHTS:
            raise BadInput(f"Expected a loss weighting out of {', '.join(WEIGHTS)}, got {name!r}.")
        return WEIGHTS[name](self.alphas_bar[timesteps.cpu()]).float().to(timesteps.device)
