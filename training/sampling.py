"""DDIM (Song et al. 2021) without a ComfyUI: the sampler of the released code, for previews, tests and the demo.

A *steering* is a function `(z_t [B,C,h,w], t [B]) -> residuals`, or None where it does not act; several are summed.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..models.diffusion import CapFace, Denoiser
from .schedule import TIMESTEPS, NoiseSchedule

Steering = Callable[[Tensor, Tensor], list[Tensor] | None]


def ddim_timesteps(steps: int) -> list[int]:
    """The released code's timesteps 1 + 0, 1000/S, 2000/S, …, highest first; ComfyUI calls them `ddim_uniform`."""
    return list(range(1, TIMESTEPS, max(TIMESTEPS // steps, 1)))[::-1]


def capface_steering(
    capface: CapFace,
    hint: Tensor,
    identity: Tensor | None,
    *,
    strength: float = 1.0,
    tau: float = 1000.0,
    acts: tuple[float, float] = (0, TIMESTEPS),
) -> Steering:
    """A person in a head: F† * M of equations 6 and 8.

    Args:
        capface: pi.
        hint: Head maps `[B or 1, 9, 8h, 8w]`.
        identity: Tokens `[B or 1, N, W]`, or None for nobody.
        strength: Factor of the residuals.
        tau: The identity is kept at t <= tau; 0 never uses it.
        acts: Lowest and highest timestep at which there is any steering.
    """
    guided, mask = capface.encode_hint(hint)
    evaluate = _evaluation(capface, guided, acts)

    def steer(x: Tensor, t: Tensor) -> list[Tensor] | None:
        kept = identity if tau > 0 and t[0] <= tau else None
        residuals = evaluate(x, t, kept)
        return residuals and [strength * r for r in CapFace.mask_residuals(residuals, mask)]

    return steer


def head_steering(star: CapFace, hint: Tensor, *, alpha: float = 1.0, acts: tuple[float, float] = (0, TIMESTEPS)) -> Steering:
    """Post-hoc head control: alpha · pi*(z_t, t, H, none) of equation 9, not masked.

    Args:
        star: pi*, a CapFace trained without identity.
        hint: Head maps `[B or 1, 9, 8h, 8w]`.
        alpha: Its scale.
        acts: Lowest and highest timestep at which it acts.
    """
    evaluate = _evaluation(star, star.encode_hint(hint)[0], acts)

    def steer(x: Tensor, t: Tensor) -> list[Tensor] | None:
        residuals = evaluate(x, t, None)
        return residuals and [alpha * r for r in residuals]

    return steer


def _evaluation(network: CapFace, guided: Tensor, acts: tuple[float, float]):
    def evaluate(x: Tensor, t: Tensor, context: Tensor | None) -> list[Tensor] | None:
        return network(x, t, guided, context) if acts[0] <= t[0] <= acts[1] else None

    return evaluate


def noise_prediction(
    denoiser: Denoiser, text: Tensor, null_text: Tensor, steerings: Sequence[Steering] = (), *, guidance: float = 7.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """eps_hat(z_t, t) with classifier-free guidance; both halves get the same residuals.

    Args:
        denoiser: eps_theta.
        text: `[B or 1, N, W]`.
        null_text: Features of the empty prompt `[B or 1, N, W]`.
        steerings: What acts on the denoiser.
        guidance: 1 leaves the empty prompt out.
    """

    def predict(x: Tensor, t: Tensor) -> Tensor:
        parts = [residuals for steer in steerings if (residuals := steer(x, t)) is not None]
        added = [sum(r) for r in zip(*parts, strict=True)] or None
        with_text = denoiser(x, t, text.expand(len(x), -1, -1), added)
        if guidance == 1:
            return with_text
        without = denoiser(x, t, null_text.expand(len(x), -1, -1), added)
        return without + guidance * (with_text - without)

    return predict


@torch.no_grad()
def ddim(
    predict: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    *,
    steps: int = 20,
    eta: float = 0.0,
    schedule: NoiseSchedule | None = None,
    generator: torch.Generator | None = None,
    clip: float | None = None,
) -> Tensor:
    """Denoise.

    Args:
        predict: `(z_t, t [B]) -> eps_hat`.
        noise: z_T `[B, C, h, w]`.
        steps: Number of evaluations, 1..1000.
        eta: 0 is deterministic, 1 adds as much noise as DDPM does.
        schedule: Stable Diffusion's by default.
        generator: CPU generator of the noise that eta asks for.
        clip: Bound of the predicted z_0, where the latents have one.

    Returns:
        z_0 `[B, C, h, w]`.
    """
    alphas_bar = (schedule or NoiseSchedule()).alphas_bar
    timesteps = ddim_timesteps(steps)
    x = noise
    for i, t in enumerate(timesteps):
        a = alphas_bar[t].item()
        a_next = alphas_bar[timesteps[i + 1]].item() if i + 1 < len(timesteps) else 1.0
        epsilon = predict(x, torch.full((len(x),), t, device=x.device))
        x0 = (x - (1 - a) ** 0.5 * epsilon) / a**0.5
        if clip is not None:
            x0 = x0.clamp(-clip, clip)
            epsilon = (x - a**0.5 * x0) / (1 - a) ** 0.5
        sigma = eta * ((1 - a_next) / (1 - a) * (1 - a / a_next)) ** 0.5
        x = a_next**0.5 * x0 + max(1 - a_next - sigma**2, 0.0) ** 0.5 * epsilon
        if sigma > 0:
            x = x + sigma * torch.randn(x.shape, generator=generator).to(x)
    return x
