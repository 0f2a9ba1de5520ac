"""What the miniature's own networks tell about portraits of synthetic people: see README.md in this folder.

No face is detected, because the whole picture is the portrait. Shape and expression are not predicted, and stay unmeasured.
"""

import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..flame.builtin import builtin_head
from ..flame.editing import edit_head, rotation_of
from ..flame.fitting import face_size, head_difference
from ..flame.model import HeadParams, project
from ..miniature.networks import PICTURE_SIDE, load_miniature
from ..miniature.people import BACKGROUNDS, SHIRTS, Person, Setting, draw_people
from ..training.miniature.train_evaluator import Attributes
from .workflow import head_inputs

if TYPE_CHECKING:
    from .manifest import Manifest
    from .people import Person as Portrayed

VERSION = 1
"""Changes when the same images would get other numbers."""
REFERENCE = Setting("blue", "white studio")
"""What the people wear in their reference pictures, and where they are: the defaults of Synthetic Person."""


def mistakes(manifest: "Manifest") -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield why a manifest's images could not be measured: paths in it and texts."""
    if any(person.synthetic is None for person in manifest.people):
        yield ("people",), "the metric 'miniature' measures synthetic people only"
    for i, prompt in enumerate(manifest.prompts):
        if setting_of(prompt) is None:
            yield (
                ("prompts", i),
                f"the metric 'miniature' needs a shirt and a background, such as 'red shirt, beach'; got '{prompt}'. "
                f"Shirts: {', '.join(SHIRTS)}. Backgrounds: {', '.join(BACKGROUNDS)}",
            )
    if manifest.resolved.get("size") != [PICTURE_SIDE, PICTURE_SIDE]:
        yield ("size",), f"the metric 'miniature' needs [{PICTURE_SIDE}, {PICTURE_SIDE}]"


def setting_of(prompt: str) -> Setting | None:
    """Return the setting that a prompt asks for, or None if it does not name exactly one shirt and one background."""
    phrases = [phrase.strip() for phrase in prompt.split(",")]
    shirts = [name for name in SHIRTS if f"{name} shirt" in phrases]
    backgrounds = [name for name in BACKGROUNDS if name in phrases]
    return Setting(shirts[0], backgrounds[0]) if len(shirts) == len(backgrounds) == 1 else None


class MiniatureMetrics:
    """Measures portraits of one manifest."""

    mark = repr(VERSION)
    """What the numbers depend on besides the images."""
    identity = True
    """Whether the column `id` is measured."""

    def __init__(self, manifest: "Manifest"):
        """Load the networks."""
        self.manifest, self.networks, self.model = manifest, load_miniature(), builtin_head()

    def wanted(self, person: int, heads: Sequence[str]) -> HeadParams:
        """Return the heads that were asked for: the person's own, changed by head conditions."""
        own = Person.sample(person).head()
        return HeadParams.cat([edit_head(self.model, own, **head_inputs(self.manifest.heads[name])) for name in heads])

    def draw(self, person: int, heads: Sequence[str], prompts: Sequence[int]) -> Tensor:
        """Draw what was asked for, `[N, 3, 128, 128]` in 0..1: no portrait can be better.

        Args:
            person: The person's number.
            heads: Names of the N head conditions.
            prompts: Indices of the N prompts.
        """
        settings = [setting for prompt in prompts if (setting := setting_of(self.manifest.prompts[prompt]))]
        return draw_people([Person.sample(person)] * len(heads), self.wanted(person, heads), settings, PICTURE_SIDE)

    @torch.no_grad()
    def measure(
        self, person: "Portrayed", heads: Sequence[str], prompts: Sequence[int], pictures: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Measure portraits of a person.

        Args:
            person: Whom they should show.
            heads: Names of the N head conditions.
            prompts: Indices of the N prompts.
            pictures: N pictures `[3, 128, 128]` in 0..1.

        Returns:
            Numbers `[N]` by column.
        """
        settings = [setting for prompt in prompts if (setting := setting_of(self.manifest.prompts[prompt]))]
        assert person.synthetic is not None
        who = Person.sample(person.synthetic)
        reference = draw_people([who], who.head(), [REFERENCE], PICTURE_SIDE) * 2 - 1
        x = torch.stack(list(pictures)) * 2 - 1
        recognizer, evaluator = self.networks.recognizer, self.networks.evaluator
        embedding, values = evaluator(x)
        found, wanted = Attributes.predicted(values), self.wanted(person.synthetic, heads)
        truth = Attributes.of(wanted, settings)
        errors = found.errors(truth)
        head = wanted.replace(
            rotation=rotation_of(found.angles), camera=torch.cat([found.position[:, :1] * 5, found.position[:, 1:]], dim=1)
        )
        points, right = (project(self.model.landmarks(one), one.camera)[..., :2] for one in (head, wanted))
        distance = (points - right).square().sum(-1).mean(1).sqrt()
        chances = [
            F.softmax(scores, dim=1).gather(1, asked[:, None])[:, 0]
            for scores, asked in ((found.shirt, truth.shirt), (found.background, truth.background))
        ]
        return {
            "found": torch.ones(len(pictures)),
            "id": F.cosine_similarity(recognizer(x)[0], recognizer(reference)[0]),
            "judge": F.cosine_similarity(embedding, evaluator(reference)[0]),
            "clip": (chances[0] + chances[1]) / 2,
            "accuracy": errors["prompt"],
            "pose": errors["pose"] * (math.pi / 180),
            "light": errors["light"],
            "landmarks": 100 * distance / face_size(self.model, wanted),
            "turn": head_difference(self.model, wanted, head).rotation,
        }


def picture_of(file: bytes) -> Tensor:
    """Decode an image file to `[3, H, W]` in 0..1."""
    with Image.open(io.BytesIO(file)) as image:
        pixels = np.asarray(image.convert("RGB"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
