"""Portraits by the miniature without a ComfyUI: a plain DDIM loop over the same networks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...flame.builtin import builtin_head
from ...flame.model import HeadParams
from ...flame.render import landmark_pixels, render_head
from ...miniature.networks import PICTURE, Miniature
from ...models.diffusion import CapFace, token_factors
from ..sampling import capface_control, ddim, head_control, noise_prediction
from ..schedule import TIMESTEPS

STEPS, GUIDANCE = 25, 2.0
ETA = 1.0
"""Fresh noise at every step mends what a small network gets wrong; with 0, as in the released code, faces are rougher."""


@dataclass(frozen=True)
class Recipe:
    """What a portrait is made with."""

    parts: tuple[float, float] = (1.0, 1.0)
    """Factors of the local and the global tokens; both 0 is no identity."""
    tau: float = 1000.0
    strength: float = 1.0
    """0 leaves CapFace out."""
    alpha: float = 0.0
    """alpha of equation 9."""
    star: CapFace | None = None
    """pi*; the miniature's own network without identity by default."""
    head_until: float = 0.0
    """Share of the schedule, from its start, in which pi* acts alone (figure 8)."""
    local_tokens: int = 16
    """How many there are: the grid of 4 × 4, or its means over 2 × 2 (table 3)."""
    landmarks: bool = False
    """Whether the hint is the 68 landmarks as dots instead of the three maps (table 4)."""
    eta: float = ETA
    steps: int = STEPS
    guidance: float = GUIDANCE


def head_hint(heads: HeadParams, landmarks: bool = False) -> Tensor:
    """The hint `[B, 9, 128, 128]` of heads: their three maps, or 68 white dots on black in all nine channels."""
    if not landmarks:
        return render_head(builtin_head(), heads, PICTURE, PICTURE).hint()
    return landmark_dots(landmark_pixels(builtin_head(), heads, PICTURE, PICTURE))


def landmark_dots(points: Tensor) -> Tensor:
    """White dots of 1.5 pixels' radius on black, in all nine channels: `[B, 9, 128, 128]` of points `[B, P, 2]` in pixels."""
    nearby = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="xy"), dim=-1).flatten(0, 1) - 1
    pixels = (points - 0.5).floor().long()[:, :, None] + nearby
    near = ((pixels + 0.5 - points[:, :, None]).norm(dim=-1) < 1.5) & ((pixels >= 0) & (pixels < PICTURE)).all(-1)
    at = (pixels[..., 1] * PICTURE + pixels[..., 0]).clamp(0, PICTURE**2 - 1)
    dots = torch.zeros(len(points), PICTURE**2).scatter_reduce_(1, at.flatten(1), near.float().flatten(1), "amax")
    return dots.view(-1, 1, PICTURE, PICTURE).expand(-1, 9, -1, -1)


def fewer_tokens(tokens: Tensor, count: int) -> Tensor:
    """Means of neighbours in a square grid of tokens: `[B, N, C]` to `[B, count, C]`, both squares of whole numbers."""
    side, new = math.isqrt(tokens.shape[1]), math.isqrt(count)
    return F.adaptive_avg_pool2d(tokens.transpose(1, 2).unflatten(2, (side, side)), new).flatten(2).transpose(1, 2)


def posed_tokens(tokens: Tensor, angles: Tensor) -> Tensor:
    """Tokens `[B, N, C]` that tell how the head in their picture is held, by its yaw, pitch and roll in degrees, `[B, 3]`."""
    return torch.cat([angles[:, None].expand(-1, tokens.shape[1], -1) / 10, tokens[..., 3:]], dim=-1)


@torch.no_grad()
def make_portraits(
    miniature: Miniature,
    hint: Tensor,
    prompts: Sequence[str],
    references: Tensor | None,
    recipe: Recipe = Recipe(),
    seed: int = 0,
    poses: Tensor | None = None,
) -> Tensor:
    """Make portraits.

    Args:
        miniature: The networks.
        hint: From `head_hint`, `[B, 9, 128, 128]`.
        prompts: One a portrait.
        references: Pictures of who shall be seen, `[B, 3, H, W]` in -1..1, or None for nobody.
        recipe: How.
        seed: Of the noise.
        poses: How the references hold their heads, for a network whose tokens tell it, `posed_tokens`.

    Returns:
        RGB `[B, 3, 128, 128]` in 0..1.
    """
    generator = torch.Generator().manual_seed(seed)
    m, side = miniature, PICTURE // 8
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
        settings = {"strength": recipe.strength, "tau": recipe.tau, "active": (0, border)}
        controls.append(capface_control(m.capface, hint, identity, **settings))
    if recipe.head_until:
        controls.append(head_control(star, hint, active=(border + 0.5, TIMESTEPS)))
    if recipe.alpha:
        controls.append(head_control(star, hint, alpha=recipe.alpha))
    text, null = m.words(m.words.tokenize(prompts)), m.words(m.words.tokenize([""]))
    predict = noise_prediction(m.denoiser, text, null, controls, guidance=recipe.guidance)
    noise = torch.randn(len(prompts), m.denoiser.config.in_channels, side, side, generator=generator)
    latents = ddim(predict, noise, steps=recipe.steps, eta=recipe.eta, generator=generator)
    return (m.autoencoder.decode(latents) / 2 + 0.5).clamp(0, 1)
