"""Third stage: the base model eps_theta, which knows people only by words. It is frozen afterwards."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...miniature.autoencoder import Autoencoder
from ...miniature.people import (
    BACKGROUNDS,
    BEARDS,
    EYE_COLOURS,
    GLASSES,
    HAIR_COLOURS,
    HAIR_STYLES,
    LIP_COLOURS,
    PERSON_LIGHTS,
    SHIRTS,
    SKIN_TONES,
)
from ...miniature.text_encoder import TextEncoder
from ...models.diffusion import Denoiser, DenoiserConfig
from ...shapes import Float, Int
from ..sampled import Tensors
from ..schedule import TIMESTEPS, NoiseSchedule
from .scenes import Scene, SceneSet, sample_scene
from .stage import run_stage
from .train_autoencoder import pictures_of

BATCH = 32
CONFIG = DenoiserConfig(
    channel_mult=(1, 1, 1),
    num_res_blocks=2,
    attention_downsamplings=(2, 4),
    model_channels=64,
    context_width=96,
    in_channels=8,
    out_channels=8,
)
WEIGHTING = "inverse_alpha"
"""Everything, including position and light, is learned from scratch, so high noise levels must have weight."""
TEXT_DROPOUT = 0.1
_OTHERS = ("lit", "from", "skin", "hair", "thick", "thin", "brows", "lips", "glasses", "shirt", "freckles", "full")


def vocabulary() -> list[str]:
    """Return every word that can describe a synthetic person or setting, sorted."""
    tables = (BACKGROUNDS, BEARDS, EYE_COLOURS, GLASSES, HAIR_COLOURS, HAIR_STYLES, PERSON_LIGHTS, LIP_COLOURS, SHIRTS)
    names = [name for table in tables for name in table] + [name for name, _ in SKIN_TONES]
    return sorted({word for name in names for word in name.split()} - {"none"} | {"eyes", "beard", *_OTHERS})


def prompt_of(scene: Scene, random: np.random.Generator) -> str:
    """Write a prompt that describes part of a scene. Like real prompts, it often leaves out the person."""
    person = [] if random.random() < 0.5 else [word for word in scene.person.words() if random.random() < 0.7]
    setting = [word for word in scene.setting.words() if random.random() < 0.9]
    light = [f"lit from {scene.light}"] if scene.light and random.random() < 0.7 else []
    return ", ".join(person + setting + light)


class Prompts:
    """Tokenized prompts of the pictures in a set, several per picture."""

    VARIANTS = 4

    def __init__(self, scenes: SceneSet):
        """Write all prompts.

        Args:
            scenes: The N pictures.
        """
        encoder = TextEncoder(vocabulary())
        texts = []
        for person, view in zip(scenes.people.tolist(), scenes.views.tolist(), strict=True):
            random = np.random.Generator(np.random.PCG64([person, view, 0x7E47]))
            scene = sample_scene(person, view)
            texts += [prompt_of(scene, random) for _ in range(self.VARIANTS)]
        self.tokens = encoder.tokenize(texts).view(-1, self.VARIANTS, encoder.places.num_embeddings)

    def __call__(self, rows: Int[Tensor, " B"], generator: torch.Generator) -> Int[Tensor, "B 32"]:
        """Sample one prompt for each picture.

        Args:
            rows: Indices of the pictures, `[B]`.
            generator: A random generator on the CPU.

        Returns:
            Tokens `[B, 32]`.
        """
        return self.tokens[rows, torch.randint(self.VARIANTS, (len(rows),), generator=generator)]


@torch.inference_mode()
def latents_of(scenes: SceneSet, autoencoder: Autoencoder) -> Float[Tensor, "N 8 16 16"]:
    """Encode all N pictures of a set as latents, `[N, 8, 16, 16]`."""
    rows = np.arange(len(scenes))
    return torch.cat([autoencoder.encode(pictures_of(scenes, part)) for part in np.array_split(rows, max(len(rows) // 64, 1))])


class MiniatureBase(nn.Module):
    """The denoiser and its text encoder."""

    def __init__(self):
        super().__init__()
        # The names of the networks are keys in training states.
        self.denoiser = Denoiser(CONFIG)
        self.words = TextEncoder(vocabulary(), CONFIG.context_width)


class _Denoising(nn.Module):
    """|eps_theta(z_t, t, c) - eps|², weighted by WEIGHTING."""

    def __init__(self):
        super().__init__()
        self.trained = MiniatureBase()
        self.schedule = NoiseSchedule()

    def forward(self, batch: Tensors, generator: torch.Generator) -> dict[str, Tensor]:
        latents = batch["latents"]
        timesteps = torch.randint(TIMESTEPS, (len(latents),), generator=generator).to(latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        noisy = self.schedule.add_noise(latents, noise, timesteps)
        predicted = self.trained.denoiser(noisy, timesteps, self.trained.words(batch["tokens"]))
        errors = F.mse_loss(predicted, noise, reduction="none").mean((1, 2, 3))
        loss = (errors * self.schedule.weights(WEIGHTING, timesteps)).mean()
        return {"loss": loss, "noise": errors.mean(), "timesteps": timesteps, "errors": errors.detach()}


def train_denoiser(
    prompts: Prompts, latents: Tensor, folder: Path, name: str, *, steps: int, seed: int, start: MiniatureBase | None = None
) -> MiniatureBase:
    """Train the base model on latents and prompts. One in ten prompts is dropped, for guidance.

    Args:
        prompts: The prompts of the pictures.
        latents: The latents of the pictures, `[N, 8, 16, 16]`.
        folder: Folder of the miniature's training.
        name: Name of the stage.
        steps: Number of steps.
        seed: Seed of weights and samples.
        start: A trained base model to continue from.

    Returns:
        The base model, on the CPU.
    """
    torch.manual_seed(seed)
    objective = _Denoising()
    if start is not None:
        objective.trained.load_state_dict(start.state_dict())

    def make(generator: torch.Generator) -> Tensors:
        rows = torch.randint(len(latents), (BATCH,), generator=generator)
        kept = torch.rand(BATCH, 1, generator=generator) >= TEXT_DROPOUT
        return Tensors({"latents": latents[rows], "tokens": prompts(rows, generator) * kept})

    return run_stage(name, objective, make, folder, steps=steps, rate=1e-3, seed=seed)
