"""Fourth stage: CapFace by equation 7, on the frozen base model. The reference is another picture of the same person."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...flame.builtin import builtin_head
from ...flame.editing import angles_of, rotation_of
from ...flame.model import HeadParams, sh_basis
from ...flame.render import landmark_pixels, render_head
from ...miniature.recognizer import Recognizer
from ...shapes import Float
from ..batch import TrainingBatch
from ..objective import CapFaceObjective, ObjectiveSettings, TrainedCapFace
from ..schedule import NoiseSchedule
from .portrait_sampler import fewer_tokens, landmark_dots, posed_tokens
from .scenes import SIZE, SceneSet
from .stage import run_stage
from .train_autoencoder import pictures_of
from .train_denoiser import WEIGHTING, MiniatureBase, Prompts
from .train_recognizer import encode_people

BATCH = 24
HintsAndMasks = tuple[Float[Tensor, "B 9 128 128"], Float[Tensor, "B 1 128 128"]]
Hints = Callable[[Tensor, torch.Generator], HintsAndMasks]
"""Returns the hints and masks for indices `[B]` of pictures in a set."""

HINT_WIDTHS = (8, 8, 16, 16, 32, 32, 64)
SETTINGS = ObjectiveSettings(weighting=WEIGHTING, identity_dropout=0.2, text_dropout=0.1)


def hints_of(scenes: SceneSet, rows: np.ndarray) -> HintsAndMasks:
    """Return head maps `[B, 9, 128, 128]` and masks `[B, 1, 128, 128]` of pictures in a set.

    Args:
        scenes: The set.
        rows: Indices of the pictures, `[B]`.
    """
    normal = torch.from_numpy(scenes.normal[rows]).permute(0, 3, 1, 2).contiguous().float() / 127
    albedo = torch.from_numpy(scenes.albedo[rows]).permute(0, 3, 1, 2).contiguous().float() / 255
    light = torch.from_numpy(scenes.light[rows])
    basis = sh_basis(normal.transpose(0, 1).flatten(1)).view(9, *normal.shape[:1], *normal.shape[2:])
    shading = torch.einsum("bkc,kbhw->bchw", light, basis)
    head = (normal != 0).any(1, keepdim=True).float()
    return torch.cat([normal, albedo, albedo * shading * head], dim=1), head


def landmarks_of(scenes: SceneSet) -> Float[Tensor, "N 68 2"]:
    """Compute the 68 landmarks of the N heads of a set, `[N, 68, 2]` in pixels."""
    heads = scenes.heads
    parts = [heads[i : i + 256] for i in range(0, len(scenes), 256)]
    return torch.cat([landmark_pixels(builtin_head(), part, SIZE, SIZE) for part in parts])


def inexact_hints(heads: HeadParams, degrees: float, generator: torch.Generator) -> HintsAndMasks:
    """Render head maps `[B, 9, 128, 128]` and masks `[B, 1, 128, 128]` of heads with random rotation errors.

    Args:
        heads: B heads.
        degrees: Standard deviation of the errors in yaw, pitch and roll, in degrees.
        generator: A random generator on the CPU.
    """
    angles = angles_of(heads.rotation) + degrees * torch.randn(heads.batch, 3, generator=generator)
    maps = render_head(builtin_head(), heads.replace(rotation=rotation_of(angles)), SIZE, SIZE)
    return maps.hint(), maps.alpha


@dataclass(frozen=True)
class Conditions:
    """Inputs of CapFace in training. The defaults give the shipped network, other values the ablations of the tables."""

    identity: str = "both"
    """The parts of the identity that it receives, one of `objective.IDENTITY_PARTS` (table 2)."""
    local_tokens: int = 16
    """Number of local tokens, as in `Recipe` (table 3)."""
    landmarks: bool = False
    """Whether it receives dots at the landmarks instead of head maps (table 4)."""
    own_reference: bool = False
    """Whether the reference is the picture itself, as in the released script (table 5)."""
    posed: bool = False
    """Whether the tokens contain the head pose of the reference, see `posed_tokens` (table 5)."""
    inexact: float = 0.0
    """Standard deviation of rotation errors in degrees, like those of fits to photos, see `inexact_hints` (table 5)."""


def choose_hints(scenes: SceneSet, conditions: Conditions) -> Hints:
    """Choose the hints for CapFace: head maps, dots at the landmarks, or maps of heads with rotation errors."""
    if conditions.landmarks:
        points = landmarks_of(scenes)
        return lambda rows, _: (landmark_dots(points[rows]), hints_of(scenes, rows.numpy())[1])
    if conditions.inexact:
        return lambda rows, generator: inexact_hints(scenes.heads[rows], conditions.inexact, generator)
    return lambda rows, _: hints_of(scenes, rows.numpy())


@dataclass(frozen=True, eq=False)
class People:
    """Training data of CapFace. All of it except the head maps is in memory."""

    scenes: SceneSet
    latents: Float[Tensor, "N 8 16 16"]
    """`[N, 8, 16, 16]`"""
    prompts: Prompts
    embeddings: Float[Tensor, "N 128"]
    """`[N, 128]`"""
    tokens: Float[Tensor, "N K C"]
    """`[N, 16, 96]`, or fewer tokens after `choose_tokens`."""

    @classmethod
    def encode(
        cls, scenes: SceneSet, latents: Float[Tensor, "N 8 16 16"], prompts: Prompts, recognizer: Recognizer
    ) -> "People":
        """Encode the person in every picture.

        Args:
            scenes: The N pictures.
            latents: Their latents, `[N, 8, 16, 16]`.
            prompts: Their prompts.
            recognizer: The trained recognizer.
        """
        rows = np.array_split(np.arange(len(latents)), max(len(latents) // 256, 1))
        features = [encode_people(recognizer, pictures_of(scenes, part)) for part in rows]
        return cls(scenes, latents, prompts, *(torch.cat(f) for f in zip(*features, strict=True)))

    def batch(self, base: MiniatureBase, hints: Hints, own_reference: bool, generator: torch.Generator) -> TrainingBatch:
        """Sample a batch.

        Args:
            base: The base model, whose text encoder encodes the prompts.
            hints: Returns hints and masks.
            own_reference: Whether each picture is its own reference, instead of another picture of the same person.
            generator: A random generator on the CPU.
        """
        views = int(self.scenes.views.max()) + 1
        rows = torch.randint(len(self.latents) // views * views, (BATCH,), generator=generator)
        other = (rows % views + torch.randint(1, views, (BATCH,), generator=generator)) % views
        reference = rows if own_reference else rows - rows % views + other
        hint, mask = hints(rows, generator)
        with torch.no_grad():
            context = base.words(self.prompts(rows, generator))
            null = base.words(torch.zeros(1, context.shape[1], dtype=torch.int64))
        global_ = self.embeddings[reference][:, None]
        return TrainingBatch(self.latents[rows], context, null, hint, mask, self.tokens[reference], global_)


def choose_tokens(people: People, conditions: Conditions) -> Float[Tensor, "N K C"]:
    """Choose the local tokens for CapFace of every picture, `[N, 16 or fewer, 96]`."""
    tokens = fewer_tokens(people.tokens, conditions.local_tokens)
    return posed_tokens(tokens, angles_of(people.scenes.heads.rotation)) if conditions.posed else tokens


def train_capface(
    people: People,
    base: MiniatureBase,
    folder: Path,
    name: str,
    conditions: Conditions = Conditions(),
    *,
    steps: int,
    rate: float,
    seed: int,
    start: TrainedCapFace | None = None,
) -> TrainedCapFace:
    """Train a CapFace.

    Args:
        people: The training data.
        base: eps_theta and its text encoder. This function freezes them.
        folder: Folder of the miniature's training.
        name: Name of the stage.
        conditions: Inputs of CapFace.
        steps: Number of steps.
        rate: Highest learning rate.
        seed: Seed of weights and samples.
        start: A trained network to continue from. By default, training starts from the base model's encoder.

    Returns:
        The trained network, on the CPU.
    """
    torch.manual_seed(seed)
    base.requires_grad_(False)
    trained = TrainedCapFace.from_denoiser(
        base.denoiser, local_width=people.tokens.shape[-1], global_width=people.embeddings.shape[-1], hint_widths=HINT_WIDTHS
    )
    if start is not None:
        trained.load_state_dict(start.state_dict())
    objective = CapFaceObjective(base.denoiser, trained, NoiseSchedule(), replace(SETTINGS, identity=conditions.identity))
    people = replace(people, tokens=choose_tokens(people, conditions))
    hints = choose_hints(people.scenes, conditions)

    def make(generator: torch.Generator) -> TrainingBatch:
        return people.batch(base, hints, conditions.own_reference, generator)

    return run_stage(name, objective, make, folder, steps=steps, rate=rate, seed=seed)
