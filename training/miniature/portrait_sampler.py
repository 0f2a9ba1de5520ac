"""Portraits by the miniature without ComfyUI: a plain DDIM loop over the same networks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...flame.builtin import builtin_head
from ...flame.model import HeadParams
from ...flame.render import landmark_pixels, render_head
from ...miniature.networks import PICTURE_SIDE, Miniature
from ...models.diffusion import CapFace, token_factors
from ...shapes import Float
from ..sampling import capface_control, ddim, ddim_timesteps, evaluated_at, head_control, noise_prediction
from ..schedule import TIMESTEPS

STEPS, GUIDANCE = 25, 2.0
ETA = 1.0
"""Fresh noise at every step corrects errors of a small network. With 0, as in the released code, faces are rougher."""


@dataclass(frozen=True)
class Recipe:
    """Settings of a portrait."""

    parts: tuple[float, float] = (1.0, 1.0)
    """Factors of the local and the global tokens. Both 0 means no identity."""
    tau: float = 1000.0
    strength: float = 1.0
    """Strength of CapFace; 0 disables it."""
    alpha: float = 0.0
    """The weight alpha of pi* in equation 9."""
    star: CapFace | None = None
    """The network pi*. By default, the miniature's own network without identity."""
    head_until: float = 0.0
    """Fraction of the schedule, from its start, in which only pi* acts (figure 8)."""
    local_tokens: int = 16
    """Number of local tokens: 16 for the 4 × 4 grid, 4 for its means over 2 × 2 (table 3)."""
    landmarks: bool = False
    """Whether the hint shows the 68 landmarks as dots instead of the three maps (table 4)."""
    likeness: float = 1.0
    """Factor gamma of the identity's effect."""
    evaluated: tuple[int, ...] | None = None
    """Indices of the steps at which CapFace and pi* are evaluated. Their residuals are kept for the others. None means all."""
    eta: float = ETA
    steps: int = STEPS
    guidance: float = GUIDANCE


def head_hint(heads: HeadParams, landmarks: bool = False) -> Float[Tensor, "B 9 128 128"]:
    """Render the hint `[B, 9, 128, 128]` of heads.

    Args:
        heads: B heads.
        landmarks: Whether to draw 68 white dots on black in all nine channels instead of the three maps.
    """
    if not landmarks:
        return render_head(builtin_head(), heads, PICTURE_SIDE, PICTURE_SIDE).hint()
    return landmark_dots(landmark_pixels(builtin_head(), heads, PICTURE_SIDE, PICTURE_SIDE))


def landmark_dots(points: Float[Tensor, "B P 2"]) -> Float[Tensor, "B 9 128 128"]:
    """Draw white dots with a radius of 1.5 pixels on black, the same in all nine channels.

    Args:
        points: `[B, P, 2]` in pixels.

    Returns:
        `[B, 9, 128, 128]`.
    """
    nearby = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="xy"), dim=-1).flatten(0, 1) - 1
    pixels = (points - 0.5).floor().long()[:, :, None] + nearby
    near = ((pixels + 0.5 - points[:, :, None]).norm(dim=-1) < 1.5) & ((pixels >= 0) & (pixels < PICTURE_SIDE)).all(-1)
    at = (pixels[..., 1] * PICTURE_SIDE + pixels[..., 0]).clamp(0, PICTURE_SIDE**2 - 1)
    dots = torch.zeros(len(points), PICTURE_SIDE**2).scatter_reduce_(1, at.flatten(1), near.float().flatten(1), "amax")
    return dots.view(-1, 1, PICTURE_SIDE, PICTURE_SIDE).expand(-1, 9, -1, -1)


def fewer_tokens(tokens: Float[Tensor, "B N C"], count: int) -> Float[Tensor, "B {count} C"]:
    """Average neighbours in a square grid of tokens.

    Args:
        tokens: `[B, N, C]`, N a square number.
        count: How many tokens to return, a square number.

    Returns:
        `[B, count, C]`.
    """
    side, new = math.isqrt(tokens.shape[1]), math.isqrt(count)
    return F.adaptive_avg_pool2d(tokens.transpose(1, 2).unflatten(2, (side, side)), new).flatten(2).transpose(1, 2)


def posed_tokens(tokens: Float[Tensor, "B N C"], angles: Float[Tensor, "B 3"]) -> Float[Tensor, "B N C"]:
    """Write the head pose into the first three channels of tokens.

    Args:
        tokens: `[B, N, C]`.
        angles: Yaw, pitch and roll of the head in each token's picture, `[B, 3]` in degrees.

    Returns:
        `[B, N, C]`, with a tenth of the angles in the first three channels.
    """
    return torch.cat([angles[:, None].expand(-1, tokens.shape[1], -1) / 10, tokens[..., 3:]], dim=-1)


@torch.no_grad()
def make_portraits(
    miniature: Miniature,
    hint: Float[Tensor, "B 9 128 128"],
    prompts: Sequence[str],
    references: Float[Tensor, "B 3 H W"] | None,
    recipe: Recipe = Recipe(),
    seed: int = 0,
    poses: Float[Tensor, "B 3"] | None = None,
) -> Float[Tensor, "B 3 128 128"]:
    """Make portraits.

    Args:
        miniature: The networks.
        hint: The hint from `head_hint`, `[B, 9, 128, 128]`.
        prompts: B prompts.
        references: Pictures of the people to show, `[B, 3, H, W]` in -1..1, or None for no identity.
        recipe: Settings of the portraits.
        seed: Seed of the noise.
        poses: Yaw, pitch and roll of the heads in the references, `[B, 3]` in degrees, for a network that was trained with
            `posed_tokens`.

    Returns:
        RGB `[B, 3, 128, 128]` in 0..1.
    """
    generator = torch.Generator().manual_seed(seed)
    m, side = miniature, PICTURE_SIDE // 8
    identity = None
    if references is not None and any(recipe.parts):
        global_, local = m.recognizer(references)
        local = fewer_tokens(local, recipe.local_tokens)
        local = local if poses is None else posed_tokens(local, poses)
        tokens = m.tokens(local, global_[:, None])
        parts = torch.tensor(recipe.parts)[:, None]
        identity = tokens * token_factors(parts[0], parts[1], local.shape[1])
    controls, border = [], TIMESTEPS * (1 - recipe.head_until)
    star = recipe.star or m.capface
    if recipe.strength:
        settings = {"strength": recipe.strength, "tau": recipe.tau, "likeness": recipe.likeness, "active": (0, border)}
        controls.append(capface_control(m.capface, hint, identity, **settings))
    if recipe.head_until:
        controls.append(head_control(star, hint, active=(border + 0.5, TIMESTEPS)))
    if recipe.alpha:
        controls.append(head_control(star, hint, alpha=recipe.alpha))
    if recipe.evaluated is not None:
        timesteps = ddim_timesteps(recipe.steps)
        controls = [evaluated_at(control, recipe.evaluated, timesteps, recipe.tau) for control in controls]
    text, null = m.text_encoder(m.text_encoder.tokenize(prompts)), m.text_encoder(m.text_encoder.tokenize([""]))
    predict = noise_prediction(m.denoiser, text, null, controls, guidance=recipe.guidance)
    noise = torch.randn(len(prompts), m.denoiser.config.in_channels, side, side, generator=generator)
    latents = ddim(predict, noise, steps=recipe.steps, eta=recipe.eta, generator=generator)
    return (m.autoencoder.decode(latents) / 2 + 0.5).clamp(0, 1)
