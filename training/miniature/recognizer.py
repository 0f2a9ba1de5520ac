"""Second stage: a network that recognises people, for the condition and, with another seed and aim, to judge by.

The conditioning one learns who each person is and what they look like, so that its tokens carry what a portrait needs; the one
that judges learns only who they are, and takes no part in training the portraits.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...flame.builtin import SHAPE_NAMES
from ...flame.people.person import BEARDS, EYE_COLOURS, GLASSES, HAIR_COLOURS, HAIR_STYLES, LIP_COLOURS, SKIN_TONES, Person
from ...models.recognizer import Recognizer
from .autoencoder import pictures_of
from .scenes import SceneSet
from .stage import Tensors, run_stage

BATCH = 64
SCALE, MARGIN = 16.0, 0.15
"""Of the softmax over people, as in CosFace (Wang et al., 2018)."""
_KINDS = {"hair": HAIR_STYLES, "hair_colour": HAIR_COLOURS, "eyes": EYE_COLOURS, "lips": LIP_COLOURS, "beard": BEARDS,
          "glasses": GLASSES}  # fmt: skip
_NUMBERS = len(SHAPE_NAMES) + 2


def describe(person: Person) -> tuple[list[int], list[float]]:
    """What the conditioning recogniser learns to tell of a person: kinds as numbers, and shape, skin and brows."""
    kinds = [list(names).index(getattr(person, field)) for field, names in _KINDS.items()]
    return kinds, [*person.shape, person.skin[0] / SKIN_TONES[-1][1], 2 * person.brows - 1]


class _Learner(nn.Module):
    """A recogniser with what it is taught by: the people's directions, and a layer that tells what they look like."""

    def __init__(self, people: int, tells: bool):
        super().__init__()
        self.recognizer = Recognizer()
        self.people = nn.Parameter(torch.randn(people, self.recognizer.config.global_width))
        width = self.recognizer.config.widths[-1]
        self.tells = nn.Linear(width, sum(map(len, _KINDS.values())) + _NUMBERS) if tells else None


class _Recognition(nn.Module):
    def __init__(self, people: int, tells: bool):
        super().__init__()
        self.trained = _Learner(people, tells)

    def forward(self, batch: Tensors, generator: torch.Generator) -> dict[str, Tensor]:
        pictures, person = batch["pictures"], batch["person"]
        brightness = 1 + 0.1 * torch.randn(len(pictures), 1, 1, 1, generator=generator)
        grain = 0.03 * torch.randn(pictures.shape, generator=generator)
        embedding, tokens = self.trained.recognizer(pictures * brightness.to(pictures) + grain.to(pictures))
        cosines = embedding @ F.normalize(self.trained.people, dim=-1).T
        target = F.one_hot(person, len(self.trained.people))
        who = F.cross_entropy(SCALE * (cosines - MARGIN * target), person)
        out = {"loss": who, "who": who, "right": (cosines.argmax(1) == person).float().mean()}
        if self.trained.tells is not None:
            *kinds, values = self.trained.tells(tokens.mean(1)).split([*map(len, _KINDS.values()), _NUMBERS], dim=1)
            kind = sum(F.cross_entropy(told, batch["kinds"][:, i]) for i, told in enumerate(kinds))
            looks = F.mse_loss(values, batch["values"])
            out |= {"loss": who + 0.5 * kind + looks, "kind": kind, "looks": looks}
        return out


def train_recognizer(scenes: SceneSet, folder: Path, name: str, *, steps: int, seed: int, tells: bool) -> Recognizer:
    """Train a recogniser.

    Args:
        scenes: Pictures of people, each drawn several times.
        folder: Where the state is kept.
        name: Of the stage.
        steps: How many.
        seed: Of weights and batches.
        tells: Whether it also learns what people look like.
    """
    torch.manual_seed(seed)
    rows, numbers = np.unique(scenes.people, return_inverse=True)
    described = [describe(Person.sample(int(person))) for person in rows]
    kinds = torch.tensor([kind for kind, _ in described])
    values = torch.tensor([value for _, value in described])

    def make(generator: torch.Generator) -> Tensors:
        drawn = torch.randint(len(scenes), (BATCH,), generator=generator).numpy()
        person = torch.from_numpy(numbers[drawn])
        pictures = pictures_of(scenes, drawn)
        return Tensors({"pictures": pictures, "person": person, "kinds": kinds[person], "values": values[person]})

    return run_stage(name, _Recognition(len(rows), tells), make, folder, steps=steps, rate=2e-3, seed=seed).recognizer


@torch.inference_mode()
def read_people(recognizer: Recognizer, pictures: Tensor, batch: int = 128) -> tuple[Tensor, Tensor]:
    """Embeddings `[N, 128]` and tokens `[N, 16, 96]` of pictures `[N, 3, H, W]` in −1..1."""
    embeddings, tokens = zip(*(recognizer(part) for part in pictures.split(batch)), strict=True)
    return torch.cat(embeddings), torch.cat(tokens)
