"""DDIM (Song et al. 2021) without ComfyUI: the sampler of the released code, for previews, tests and the demo.

A control function maps `(z_t [B, C, h, w], t [B])` to the residuals that it adds to the denoiser, or to None where it is
inactive. The residuals of several control functions are summed.
"""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from ..models.diffusion import CapFace, Denoiser
from .schedule import TIMESTEPS, NoiseSchedule

ControlFunction = Callable[[Tensor, Tensor], list[Tensor] | None]
NoisePrediction = Callable[[Tensor, Tensor], Tensor]


def ddim_timesteps(steps: int) -> list[int]:
    """Return the released code's timesteps 1 + 0, 1000/S, 2000/S, ..., highest first; ComfyUI calls them `ddim_uniform`."""
    return list(range(1, TIMESTEPS, max(TIMESTEPS // steps, 1)))[::-1]


def capface_control(
    capface: CapFace,
    hint: Tensor,
    identity: Tensor | None,
    *,
    strength: float = 1.0,
    tau: float = 1000.0,
    likeness: float = 1.0,
    active: tuple[float, float] = (0, TIMESTEPS),
) -> ControlFunction:
    """Return the control function of a person and a head: F† * M of equations 6 and 8.

    Args:
        capface: pi.
        hint: Head maps `[B or 1, 9, 8h, 8w]`.
        identity: Identity tokens `[B or 1, N, W]`, or None for the head alone.
        strength: Factor of the residuals.
        tau: The identity is used at t <= tau; 0 never uses it.
        likeness: Factor gamma of the identity's effect: F_null + gamma · (F_id - F_null). 1 is the paper's.
        active: Lowest and highest timestep at which the control is active.
    """
    guided, mask = capface.encode_hint(hint)

    def control(x: Tensor, t: Tensor) -> list[Tensor] | None:
        if not active[0] <= t[0] <= active[1]:
            return None
        kept = identity if tau > 0 and t[0] <= tau else None
        residuals = capface(x, t, guided, kept)
        if kept is not None and likeness != 1:
            without = capface(x, t, guided, None)
            residuals = [torch.lerp(b, a, likeness) for a, b in zip(residuals, without, strict=True)]
        return [strength * residual for residual in CapFace.mask_residuals(residuals, mask)]

    return control


def head_control(
    star: CapFace, hint: Tensor, *, alpha: float = 1.0, active: tuple[float, float] = (0, TIMESTEPS)
) -> ControlFunction:
    """Return the control function of post-hoc head control: alpha · pi*(z_t, t, H, none) of equation 9, not masked.

    Args:
        star: pi*, a CapFace that was trained without identity.
        hint: Head maps `[B or 1, 9, 8h, 8w]`.
        alpha: Factor of the residuals.
        active: Lowest and highest timestep at which the control is active.
    """
    guided, _ = star.encode_hint(hint)

    def control(x: Tensor, t: Tensor) -> list[Tensor] | None:
        if not active[0] <= t[0] <= active[1]:
            return None
        return [alpha * residual for residual in star(x, t, guided, None)]

    return control


def evaluated_at(
    control: ControlFunction, steps: Collection[int], timesteps: Sequence[int], tau: float = TIMESTEPS
) -> ControlFunction:
    """Return a control function that is evaluated at some steps, and keeps its residuals for the steps after them.

    Args:
        control: The control function.
        steps: Indices of the steps. The first one is always evaluated, and so is the first one at which the identity acts.
        timesteps: The sampler's timesteps, highest first.
        tau: ID dropout tau of the control function.
    """
    kept: dict[bool, list[Tensor] | None] = {}

    def partly(x: Tensor, t: Tensor) -> list[Tensor] | None:
        timestep = int(t[0])
        with_identity = timestep <= tau
        if with_identity not in kept or timesteps.index(timestep) in steps:
            kept[with_identity] = control(x, t)
        return kept[with_identity]

    return partly


def noise_prediction(
    denoiser: Denoiser, text: Tensor, null_text: Tensor, controls: Sequence[ControlFunction] = (), *, guidance: float = 7.0
) -> NoisePrediction:
    """Return eps_hat(z_t, t) with classifier-free guidance; both halves get the same residuals.

    Args:
        denoiser: eps_theta.
        text: Features of the prompt `[B or 1, N, W]`.
        null_text: Features of the empty prompt `[B or 1, N, W]`.
        controls: Control functions whose residuals are added.
        guidance: Guidance scale; 1 skips the empty prompt.
    """

    def predict(x: Tensor, t: Tensor) -> Tensor:
        added = _sum_residuals([control(x, t) for control in controls])
        with_text = denoiser(x, t, text.expand(len(x), -1, -1), added)
        if guidance == 1:
            return with_text
        without = denoiser(x, t, null_text.expand(len(x), -1, -1), added)
        return without + guidance * (with_text - without)

    return predict


def _sum_residuals(outputs: list[list[Tensor] | None]) -> list[Tensor] | None:
    """Sum the residuals of several control functions layer by layer; None if all of them are inactive."""
    total: list[Tensor] | None = None
    for residuals in outputs:
        if residuals is None:
            continue
        total = residuals if total is None else [a + b for a, b in zip(total, residuals, strict=True)]
    return total


@torch.no_grad()
def ddim(
    predict: NoisePrediction,
    noise: Tensor,
    *,
    steps: int = 20,
    eta: float = 0.0,
    schedule: NoiseSchedule | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Denoise.

    Args:
        predict: `(z_t, t [B]) -> eps_hat`.
        noise: z_T `[B, C, h, w]`.
        steps: Number of evaluations, 1..1000.
        eta: 0 is deterministic; 1 adds as much noise as DDPM does.
        schedule: The noise schedule; Stable Diffusion's by default.
        generator: CPU generator of the noise that is added for eta > 0.

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
        sigma = eta * ((1 - a_next) / (1 - a) * (1 - a / a_next)) ** 0.5
        x = a_next**0.5 * x0 + max(1 - a_next - sigma**2, 0.0) ** 0.5 * epsilon
        if sigma > 0:
            x = x + sigma * torch.randn(x.shape, generator=generator).to(x)
    return x
