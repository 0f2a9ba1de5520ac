"""Fourth stage: CapFace by equation 7, on the frozen base, with a reference of the same person in another picture."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...flame.builtin import builtin_head
from ...flame.edit import angles_of, rotation_of
from ...flame.light import sh_basis
from ...flame.params import HeadParams
from ...flame.render import landmark_pixels, render_head
from ...models.recognizer import Recognizer
from ..batch import TrainingBatch
from ..objective import CapFaceObjective, ObjectiveSettings, TrainedCapFace
from ..schedule import NoiseSchedule
from .autoencoder import pictures_of
from .denoiser import WEIGHTING, Base, Prompts
from .portraits import fewer_tokens, landmark_dots, placed_tokens
from .recognizer import read_people
from .scenes import SIZE, SceneSet, sample_scenes
from .stage import run_stage

BATCH = 24
INEXACT = 6.0
"""Standard deviation in degrees by which inexact heads are off, in yaw, pitch and roll."""
HINT_WIDTHS = (8, 8, 16, 16, 32, 32, 64)
SETTINGS = ObjectiveSettings(weighting=WEIGHTING, identity_dropout=0.2, text_dropout=0.1)


def hints_of(scenes: SceneSet, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Head maps `[B, 9, 128, 128]` and masks `[B, 1, 128, 128]` of pictures in a set."""
    normal = torch.from_numpy(scenes.normal[rows]).permute(0, 3, 1, 2).contiguous().float() / 127
    albedo = torch.from_numpy(scenes.albedo[rows]).permute(0, 3, 1, 2).contiguous().float() / 255
    light = torch.from_numpy(scenes.light[rows])
    basis = sh_basis(normal.transpose(0, 1).flatten(1)).view(9, *normal.shape[:1], *normal.shape[2:])
    shading = torch.einsum("bkc,kbhw->bchw", light, basis)
    head = (normal != 0).any(1, keepdim=True).float()
    return torch.cat([normal, albedo, albedo * shading * head], dim=1), head


def heads_of(scenes: SceneSet) -> HeadParams:
    """The heads of a set."""
    return HeadParams.cat([scene.head for scene in sample_scenes(scenes.people, scenes.views)])


def landmarks_of(scenes: SceneSet) -> Tensor:
    """The 68 landmarks of a set's heads in pixels, `[N, 68, 2]`."""
    heads = heads_of(scenes)
    parts = [heads[i : i + 256] for i in range(0, len(scenes), 256)]
    return torch.cat([landmark_pixels(builtin_head(), part, SIZE, SIZE) for part in parts])


def inexact_hints(heads: HeadParams, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Head maps `[B, 9, 128, 128]` and masks `[B, 1, 128, 128]` of heads turned by INEXACT degrees by chance."""
    angles = angles_of(heads.rotation) + INEXACT * torch.randn(heads.batch, 3, generator=generator)
    maps = render_head(builtin_head(), heads.replace(rotation=rotation_of(angles)), SIZE, SIZE)
    return maps.hint(), maps.alpha


Hints = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Hints and masks of rows of a set."""


def choose_hints(scenes: SceneSet, landmarks: bool, inexact: bool) -> Hints:
    """What CapFace is given of heads: their maps, dots at their landmarks, or maps of heads that are somewhat off."""
    if landmarks:
        points = landmarks_of(scenes)
        return lambda rows, _: (landmark_dots(points[rows]), hints_of(scenes, rows.numpy())[1])
    if inexact:
        heads = heads_of(scenes)
        return lambda rows, generator: inexact_hints(heads[rows], generator)
    return lambda rows, _: hints_of(scenes, rows.numpy())


@dataclass(frozen=True, eq=False)
class People:
    """What CapFace is trained on, in memory but for the head maps."""

    scenes: SceneSet
    latents: Tensor
    """`[N, 4, 16, 16]`"""
    prompts: Prompts
    embeddings: Tensor
    """`[N, 128]`"""
    tokens: Tensor
    """`[N, 16, 96]`"""

    @classmethod
    def read(cls, scenes: SceneSet, latents: Tensor, prompts: Prompts, recognizer: Recognizer) -> "People":
        """Read who is in every picture."""
        rows = np.array_split(np.arange(len(latents)), max(len(latents) // 256, 1))
        features = [read_people(recognizer, pictures_of(scenes, part)) for part in rows]
        return cls(scenes, latents, prompts, *(torch.cat(f) for f in zip(*features, strict=True)))

    def batch(self, base: Base, hints: Hints, own_reference: bool, generator: torch.Generator) -> TrainingBatch:
        """Draw pictures, each with its reference: another picture of the same person, or itself."""
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


def train_capface(
    people: People,
    base: Base,
    folder: Path,
    name: str,
    *,
    steps: int,
    identity: str = "both",
    local_tokens: int = 16,
    places: bool = False,
    landmarks: bool = False,
    own_reference: bool = False,
    inexact: bool = False,
    seed: int,
    again: int = 0,
    start: TrainedCapFace | None = None,
) -> TrainedCapFace:
    """Train a CapFace.

    Args:
        people: The data.
        base: ε_θ and its text encoder; frozen.
        folder: Where the state is kept.
        name: Of the stage.
        steps: How many.
        identity: What it is given of the person, out of `objective.IDENTITY`; the others make the ablations of table 2.
        local_tokens: As in `Recipe` (table 3).
        places: As in `Recipe` (table 5).
        landmarks: Whether it is given dots at the landmarks in place of head maps (table 4).
        own_reference: Whether the reference is the picture itself, as in the released script.
        inexact: Whether heads are somewhat off, as fits to photos are (table 5).
        seed: Of weights and draws.
        again: Steps of a second round, which begins with the average and half the learning rate.
        start: A trained network to go on from; by default it starts from the base's encoder.
    """
    torch.manual_seed(seed)
    base.requires_grad_(False)
    trained = TrainedCapFace.from_denoiser(
        base.denoiser, local_width=people.tokens.shape[-1], global_width=people.embeddings.shape[-1], hint_widths=HINT_WIDTHS
    )
    if start is not None:
        trained.load_state_dict(start.state_dict())
    objective = CapFaceObjective(base.denoiser, trained, NoiseSchedule(), replace(SETTINGS, identity=identity))
    tokens = fewer_tokens(people.tokens, local_tokens)
    people = replace(people, tokens=placed_tokens(tokens) if places else tokens)
    hints = choose_hints(people.scenes, landmarks, inexact)

    def make(generator: torch.Generator) -> TrainingBatch:
        return people.batch(base, hints, own_reference, generator)

    averaged = run_stage(name, objective, make, folder, steps=steps, rate=1e-3, seed=seed)
    if again:
        trained.load_state_dict(averaged.state_dict())
        averaged = run_stage(f"{name}-again", objective, make, folder, steps=again, rate=5e-4, seed=seed + 100)
    return averaged
