"""Second stage: the network that recognises people, for the condition.

It learns who each person is and what they look like, so that its tokens carry what a portrait needs.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...flame.builtin import SHAPE_NAMES
from ...miniature.people import BEARDS, EYE_COLOURS, GLASSES, HAIR_COLOURS, HAIR_STYLES, LIP_COLOURS, SKIN_TONES, Person
from ...miniature.recognizer import SIZE, Recognizer
from .scenes import SceneSet
from .stage import Tensors, run_stage
from .train_autoencoder import pictures_of

BATCH = 64
SCALE, MARGIN = 16.0, 0.1
"""Of the softmax over people, as in CosFace (Wang et al., 2018)."""
HAIR = 9
"""How far hair may reach beyond a head, in pixels."""
_KINDS = {"hair": HAIR_STYLES, "hair_colour": HAIR_COLOURS, "eyes": EYE_COLOURS, "lips": LIP_COLOURS, "beard": BEARDS,
          "glasses": GLASSES}  # fmt: skip
_NUMBERS = len(SHAPE_NAMES) + 2


def describe(person: Person) -> tuple[list[int], list[float]]:
    """What the conditioning recogniser learns to tell of a person: kinds as numbers, and shape, skin and brows."""
    kinds = [list(names).index(getattr(person, field)) for field, names in _KINDS.items()]
    return kinds, [*person.shape, person.skin[0] / SKIN_TONES[-1][1], 2 * person.brows - 1]


def seen(pictures: Tensor) -> Tensor:
    """Pictures `[B, 3, H, W]` at the size that a recogniser looks at, `[B, 3, 64, 64]` in half precision."""
    return F.interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True).half()


class Sights:
    """A set's pictures as recognisers see them, made when they are first asked for."""

    def __init__(self, scenes: SceneSet):
        """Remember the set."""
        self.scenes = scenes

    @cached_property
    def pictures(self) -> Tensor:
        """`[N, 3, 64, 64]` in -1..1, in half precision."""
        rows = np.array_split(np.arange(len(self.scenes)), max(len(self.scenes) // 64, 1))
        return torch.cat([seen(pictures_of(self.scenes, part)) for part in rows])

    @cached_property
    def surroundings(self) -> Tensor:
        """What is neither head nor near it, bool `[N, 1, 64, 64]`."""
        heads = torch.from_numpy((self.scenes.normal[:, ::2, ::2] != 0).any(-1))[:, None]
        return torch.cat([F.max_pool2d(part.float(), 2 * HAIR + 1, 1, HAIR) == 0 for part in heads.split(256)])


def vary(pictures: Tensor, surroundings: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures that show the same people: before other backgrounds, mirrored, moved, partly covered, brighter and with grain.

    Args:
        pictures: `[B, 3, H, W]` in -1..1.
        surroundings: What is not the person, bool `[B, 1, H, W]`.
        generator: Draws, on the CPU.
    """
    batch, _, height, width = pictures.shape

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, generator=generator)

    away = surroundings & (draw(0, 1) < 0.6)[:, None, None, None]
    pictures = torch.where(away, pictures.roll(1, 0), pictures)
    size, turn, mirror = draw(0.85, 1.15), draw(-0.15, 0.15), torch.sign(draw(-1, 1))
    rows = [torch.stack([mirror * size * turn.cos(), -size * turn.sin(), draw(-0.15, 0.15)], 1)]
    rows += [torch.stack([mirror * size * turn.sin(), size * turn.cos(), draw(-0.15, 0.15)], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(pictures.shape), align_corners=False)
    pictures = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    at = torch.stack(torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"))
    centre = torch.stack([draw(-1, 1), draw(-1, 1)], 1)[:, :, None, None]
    covered = ((at - centre).abs() < draw(-0.2, 0.3)[:, None, None, None]).all(1, keepdim=True)
    pictures = pictures.masked_fill(covered, 0.0) * (1 + 0.1 * torch.randn(batch, 1, 1, 1, generator=generator))
    return pictures + 0.03 * torch.randn(pictures.shape, generator=generator)


def numbers_of(scenes: SceneSet) -> tuple[np.ndarray, Tensor]:
    """The people of a set, and for each picture which of them it shows, int64 `[N]`."""
    people, numbers = np.unique(scenes.people, return_inverse=True)
    return people, torch.from_numpy(numbers)


def recognition_loss(embedding: Tensor, people: Tensor, person: Tensor) -> tuple[Tensor, Tensor]:
    """How well embeddings `[B, C]` point in the direction of their own person out of `[P, C]`, and the share that are right."""
    cosines = embedding @ F.normalize(people, dim=-1).T
    target = F.one_hot(person, len(people))
    return F.cross_entropy(SCALE * (cosines - MARGIN * target), person), (cosines.argmax(1) == person).float().mean()


class _Learner(nn.Module):
    """The recogniser with what it is taught by: the people's directions, and a layer that tells what they look like."""

    def __init__(self, people: int, operations=nn):
        super().__init__()
        self.recognizer = Recognizer(operations=operations)
        config = self.recognizer.config
        self.people = nn.Parameter(torch.randn(people, config.global_width))
        self.tells = operations.Linear(config.widths[-1], sum(map(len, _KINDS.values())) + _NUMBERS)


class _Recognition(nn.Module):
    def __init__(self, people: int):
        super().__init__()
        self.trained = _Learner(people)

    def forward(self, batch: Tensors, generator: torch.Generator) -> dict[str, Tensor]:
        embedding, tokens = self.trained.recognizer(batch["pictures"])
        who, right = recognition_loss(embedding, self.trained.people, batch["person"])
        *kinds, values = self.trained.tells(tokens.mean(1)).split([*map(len, _KINDS.values()), _NUMBERS], dim=1)
        kind = sum(F.cross_entropy(told, batch["kinds"][:, i]) for i, told in enumerate(kinds))
        looks = F.mse_loss(values, batch["values"])
        return {"loss": who + 0.5 * kind + looks, "who": who, "kind": kind, "looks": looks, "right": right}


def train_recognizer(sights: Sights, folder: Path, *, steps: int, seed: int) -> Recognizer:
    """Train the recogniser on pictures of people, each drawn several times."""
    torch.manual_seed(seed)
    people, numbers = numbers_of(sights.scenes)
    described = [describe(Person.sample(int(person))) for person in people]
    kinds = torch.tensor([kind for kind, _ in described])
    values = torch.tensor([value for _, value in described])

    def make(generator: torch.Generator) -> Tensors:
        rows = torch.randint(len(numbers), (BATCH,), generator=generator)
        who = numbers[rows]
        pictures = vary(sights.pictures[rows].float(), sights.surroundings[rows], generator)
        return Tensors({"pictures": pictures, "person": who, "kinds": kinds[who], "values": values[who]})

    return run_stage("recognizer", _Recognition(len(people)), make, folder, steps=steps, rate=2e-3, seed=seed).recognizer


@torch.inference_mode()
def read_people(recognizer: Recognizer, pictures: Tensor, batch: int = 128) -> tuple[Tensor, Tensor]:
    """Embeddings `[N, 128]` and tokens `[N, 16, 96]` of pictures `[N, 3, H, W]` in -1..1."""
    embeddings, tokens = zip(*(recognizer(part) for part in pictures.split(batch)), strict=True)
    return torch.cat(embeddings), torch.cat(tokens)
