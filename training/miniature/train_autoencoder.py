"""First stage: the autoencoder. With it the denoiser works on latents, as Stable Diffusion's does."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...miniature.autoencoder import Autoencoder
from ...shapes import Float
from ..sampled import Tensors
from .scenes import SceneSet
from .stage import run_stage

BATCH = 16
HEAD_WEIGHT = 3.0
"""Weight of an error on the head, relative to one outside it."""
NOISE = 0.04
"""Standard deviation of the noise that the decoder learns to tolerate, for latents of about unit variance."""
SPREAD = 0.02
"""Weight of the loss that keeps the latents near mean 0 and variance 1."""


def pictures_of(scenes: SceneSet, rows: np.ndarray) -> Float[Tensor, "B 3 128 128"]:
    """Return pictures of a set as network input.

    Args:
        scenes: The set.
        rows: Indices of the pictures, `[B]`.

    Returns:
        `[B, 3, 128, 128]` in -1..1.
    """
    return torch.from_numpy(scenes.picture[rows]).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


class _Reconstruction(nn.Module):
    """Absolute error of pictures and of the differences between their neighbouring pixels."""

    def __init__(self):
        super().__init__()
        self.trained = Autoencoder()
        _set_memory_format(self.trained, torch.channels_last)

    def forward(self, batch: Tensors, generator: torch.Generator) -> dict[str, Tensor]:
        pictures = batch["pictures"].contiguous(memory_format=torch.channels_last)
        latents = self.trained.encoder(pictures)
        out = self.trained.decoder(latents + NOISE * torch.randn(latents.shape, generator=generator).to(latents))
        weight = 1 + (HEAD_WEIGHT - 1) * F.max_pool2d(batch["head"], 9, 1, 4)
        error = ((out - pictures).abs() * weight).mean() / weight.mean()
        edges = sum((out.diff(dim=d) - pictures.diff(dim=d)).abs().mean() for d in (-1, -2))
        spread = (latents.pow(2).mean() - 1).clamp(min=0) + latents.mean((0, 2, 3)).pow(2).mean()
        signal_to_noise = -10 * ((out.detach().clamp(-1, 1) - pictures) / 2).pow(2).mean().log10()
        return {"loss": error + edges + SPREAD * spread, "error": error, "psnr": signal_to_noise}


def _set_memory_format(network: nn.Module, memory_format: torch.memory_format) -> None:
    """Convert a network's weights to a memory format, in place."""
    network.to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]  torch's annotations lack this overload


def train_autoencoder(scenes: SceneSet, folder: Path, *, steps: int, seed: int) -> Autoencoder:
    """Train the autoencoder and measure the scale of its latents.

    Args:
        scenes: The pictures.
        folder: Folder of the miniature's training.
        steps: Number of steps.
        seed: Seed of weights and samples.

    Returns:
        The autoencoder, on the CPU.
    """
    torch.manual_seed(seed)

    def make(generator: torch.Generator) -> Tensors:
        rows = torch.randint(len(scenes), (BATCH,), generator=generator).numpy()
        head = torch.from_numpy((scenes.normal[rows] != 0).any(-1))[:, None].float()
        return Tensors({"pictures": pictures_of(scenes, rows), "head": head})

    network = run_stage("autoencoder", _Reconstruction(), make, folder, steps=steps, rate=1.5e-3, seed=seed)
    _set_memory_format(network, torch.contiguous_format)  # channels_last latents would slow down every later GroupNorm
    with torch.no_grad():
        rows = np.linspace(0, len(scenes) - 1, 256).astype(int)
        network.scale.copy_(1 / network.encoder(pictures_of(scenes, rows)).std())
    return network
