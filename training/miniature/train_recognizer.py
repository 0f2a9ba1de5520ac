"""Second stage: the recognizer, whose embedding and tokens condition CapFace.

It learns the identity of each person and their visible features, so its tokens carry what a portrait needs.
"""

from functools import cached_property, reduce
from operator import add
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...flame.builtin import SHAPE_NAMES
from ...miniature.people import BEARDS, EYE_COLOURS, GLASSES, HAIR_COLOURS, HAIR_STYLES, LIP_COLOURS, SKIN_TONES, Person
from ...miniature.recognizer import SIZE, Recognizer
from ...shapes import Bool, Float, Int
from ..sampled import Tensors
from .scenes import SceneSet
from .stage import run_stage
from .train_autoencoder import pictures_of

BATCH = 64
SCALE, MARGIN = 16.0, 0.1
"""Scale and margin of the softmax over people, as in CosFace (Wang et al., 2018)."""
HAIR = 9
"""How far hair may extend beyond a head, in pixels of the recognizer's input."""
_KINDS = {"hair": HAIR_STYLES, "hair_colour": HAIR_COLOURS, "eyes": EYE_COLOURS, "lips": LIP_COLOURS, "beard": BEARDS,
          "glasses": GLASSES}  # fmt: skip
_VALUES = len(SHAPE_NAMES) + 2


def targets_of(person: Person) -> tuple[list[int], list[float]]:
    """Return the training targets of a person.

    Returns:
        The index of each category in `_KINDS`, and the values for shape, skin tone and brows.
    """
    kinds = [list(names).index(getattr(person, field)) for field, names in _KINDS.items()]
    return kinds, [*person.shape, person.skin[0] / SKIN_TONES[-1][1], 2 * person.brows - 1]


def recognizer_input(pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 64 64"]:
    """Resize pictures `[B, 3, H, W]` to the recognizer's input size, `[B, 3, 64, 64]` in half precision."""
    return F.interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True).half()


class CachedFeatures:
    """Input pictures of the recognizers for a whole set, computed at first use and kept."""

    def __init__(self, scenes: SceneSet):
        """Keep the set.

        Args:
            scenes: The N pictures.
        """
        self.scenes = scenes

    @cached_property
    def pictures(self) -> Float[Tensor, "N 3 64 64"]:
        """The pictures, `[N, 3, 64, 64]` in -1..1, in half precision."""
        rows = np.array_split(np.arange(len(self.scenes)), max(len(self.scenes) // 64, 1))
        return torch.cat([recognizer_input(pictures_of(self.scenes, part)) for part in rows])

    @cached_property
    def surroundings(self) -> Bool[Tensor, "N 1 64 64"]:
        """Masks of the pixels that are neither on the head nor near it, bool `[N, 1, 64, 64]`."""
        heads = torch.from_numpy((self.scenes.normal[:, ::2, ::2] != 0).any(-1))[:, None]
        return torch.cat([F.max_pool2d(part.float(), 2 * HAIR + 1, 1, HAIR) == 0 for part in heads.split(256)])


def vary(
    pictures: Float[Tensor, "B 3 H W"], surroundings: Bool[Tensor, "B 1 H W"], generator: torch.Generator
) -> Float[Tensor, "B 3 H W"]:
    """Augment pictures: other backgrounds, mirroring, translation, rotation, scale, occlusion, brightness and noise.

    Args:
        pictures: `[B, 3, H, W]` in -1..1.
        surroundings: Masks of the pixels that do not show the person, bool `[B, 1, H, W]`.
        generator: A random generator on the CPU.

    Returns:
        `[B, 3, H, W]`, which may exceed -1..1.
    """
    batch, _, height, width = pictures.shape

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, generator=generator)

    away = surroundings & (uniform(0, 1) < 0.6)[:, None, None, None]
    pictures = torch.where(away, pictures.roll(1, 0), pictures)
    size, turn, mirror = uniform(0.85, 1.15), uniform(-0.15, 0.15), torch.sign(uniform(-1, 1))
    rows = [torch.stack([mirror * size * turn.cos(), -size * turn.sin(), uniform(-0.15, 0.15)], 1)]
    rows += [torch.stack([mirror * size * turn.sin(), size * turn.cos(), uniform(-0.15, 0.15)], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(pictures.shape), align_corners=False)
    pictures = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    at = torch.stack(torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"))
    centre = torch.stack([uniform(-1, 1), uniform(-1, 1)], 1)[:, :, None, None]
    covered = ((at - centre).abs() < uniform(-0.2, 0.3)[:, None, None, None]).all(1, keepdim=True)
    pictures = pictures.masked_fill(covered, 0.0) * (1 + 0.1 * torch.randn(batch, 1, 1, 1, generator=generator))
    return pictures + 0.03 * torch.randn(pictures.shape, generator=generator)


def person_indices(scenes: SceneSet) -> tuple[np.ndarray, Int[Tensor, " N"]]:
    """Return the seeds of the people in a set, `[P]`, and the index among them of each picture's person, int64 `[N]`."""
    people, indices = np.unique(scenes.people, return_inverse=True)
    return people, torch.from_numpy(indices)


def recognition_loss(
    embedding: Float[Tensor, "B C"], people: Float[Tensor, "P C"], person: Int[Tensor, " B"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Compute the large-margin cosine loss of embeddings, and their accuracy.

    Args:
        embedding: `[B, C]`, each of length 1.
        people: A direction for each person, `[P, C]`.
        person: The index of the right person for each embedding, int64 `[B]`.

    Returns:
        The loss, and the fraction of embeddings that are nearest to the right person. Scalars.
    """
    cosines = embedding @ F.normalize(people, dim=-1).T
    target = F.one_hot(person, len(people))
    return F.cross_entropy(SCALE * (cosines - MARGIN * target), person), (cosines.argmax(1) == person).float().mean()


class _Learner(nn.Module):
    """The recognizer with the layers that only training needs: the people's directions and a head that predicts features."""

    def __init__(self, people: int):
        super().__init__()
        self.recognizer = Recognizer()
        config = self.recognizer.config
        # The names of the parameters are keys in training states.
        self.people = nn.Parameter(torch.randn(people, config.global_width))
        self.tells = nn.Linear(config.widths[-1], sum(map(len, _KINDS.values())) + _VALUES)


class _Recognition(nn.Module):
    def __init__(self, people: int):
        super().__init__()
        self.trained = _Learner(people)

    def forward(self, batch: Tensors, generator: torch.Generator) -> dict[str, Tensor]:
        embedding, tokens = self.trained.recognizer(batch["pictures"])
        who, right = recognition_loss(embedding, self.trained.people, batch["person"])
        *kinds, values = self.trained.tells(tokens.mean(1)).split([*map(len, _KINDS.values()), _VALUES], dim=1)
        kind = reduce(add, (F.cross_entropy(predicted, batch["kinds"][:, i]) for i, predicted in enumerate(kinds)))
        appearance = F.mse_loss(values, batch["values"])
        return {"loss": who + 0.5 * kind + appearance, "who": who, "kind": kind, "appearance": appearance, "right": right}


def train_recognizer(features: CachedFeatures, folder: Path, *, steps: int, seed: int) -> Recognizer:
    """Train the recognizer on augmented pictures of people.

    Args:
        features: The pictures, at the recognizer's input size.
        folder: Folder of the miniature's training.
        steps: Number of steps.
        seed: Seed of weights and samples.

    Returns:
        The recognizer, on the CPU.
    """
    torch.manual_seed(seed)
    people, indices = person_indices(features.scenes)
    described = [targets_of(Person.sample(int(person))) for person in people]
    kinds = torch.tensor([kind for kind, _ in described])
    values = torch.tensor([value for _, value in described])

    def make(generator: torch.Generator) -> Tensors:
        rows = torch.randint(len(indices), (BATCH,), generator=generator)
        who = indices[rows]
        pictures = vary(features.pictures[rows].float(), features.surroundings[rows], generator)
        return Tensors({"pictures": pictures, "person": who, "kinds": kinds[who], "values": values[who]})

    return run_stage("recognizer", _Recognition(len(people)), make, folder, steps=steps, rate=2e-3, seed=seed).recognizer


@torch.inference_mode()
def encode_people(
    recognizer: Recognizer, pictures: Float[Tensor, "N 3 H W"]
) -> tuple[Float[Tensor, "N G"], Float[Tensor, "N 16 C"]]:
    """Encode the people in pictures.

    Args:
        recognizer: The trained recognizer.
        pictures: `[N, 3, H, W]` in -1..1.

    Returns:
        Embeddings `[N, 128]` and tokens `[N, 16, 96]`.
    """
    embeddings, tokens = zip(*(recognizer(part) for part in pictures.split(128)), strict=True)
    return torch.cat(embeddings), torch.cat(tokens)
