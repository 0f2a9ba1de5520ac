"""Last stage: the evaluator of portraits, trained on rendered heads under continually varying light, shirts and backgrounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, reduce
from operator import add
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...flame.editing import angles_of
from ...flame.model import HeadParams
from ...miniature.autoencoder import Autoencoder
from ...miniature.evaluator import Evaluator
from ...miniature.people import BACKGROUNDS, SHIRTS, Setting
from ...shapes import Float, Int
from ..sampled import Tensors
from .scenes import Appearances
from .stage import run_stage
from .train_recognizer import CachedFeatures, person_indices, recognition_loss, recognizer_input, vary

BATCH = 64
N_APPEARANCES = 1024
"""Number of lights, and number of settings, to render heads in."""
ANGLE = 30.0
"""Degrees that equal 1 in the network's output."""
_SIZES = {"angles": 3, "position": 3, "light": 9, "background": len(BACKGROUNDS), "shirt": len(SHIRTS)}


@dataclass(frozen=True, eq=False)
class Attributes:
    """Attributes of a batch of B pictures: the true ones, or those that the evaluator predicts."""

    angles: Float[Tensor, "B 3"]
    """Yaw, pitch and roll `[B, 3]`, in degrees."""
    position: Float[Tensor, "B 3"]
    """Camera `[B, 3]` in frame units, its scale divided by 5."""
    light: Float[Tensor, "B 9"]
    """Spherical-harmonic coefficients `[B, 9]`, averaged over the colour channels."""
    background: Float[Tensor, "B 8"] | Int[Tensor, " B"]
    """Predicted scores of BACKGROUNDS `[B, 8]`, or true indices `[B]`."""
    shirt: Float[Tensor, "B 6"] | Int[Tensor, " B"]
    """Predicted scores of SHIRTS `[B, 6]`, or true indices `[B]`."""

    @classmethod
    def of(cls, heads: HeadParams, settings: Sequence[Setting]) -> "Attributes":
        """Return the true attributes of rendered pictures.

        Args:
            heads: B heads.
            settings: B settings.
        """
        return cls(
            angles_of(heads.rotation),
            torch.cat([heads.camera[:, :1] / 5, heads.camera[:, 1:]], dim=1),
            heads.light.mean(-1),
            torch.tensor([BACKGROUNDS.index(s.background) for s in settings]),
            torch.tensor([list(SHIRTS).index(s.shirt) for s in settings]),
        )

    @classmethod
    def predicted(cls, values: Float[Tensor, "B N"]) -> "Attributes":
        """Split the evaluator's output `[B, 29]` into attributes."""
        angles, *rest = values.split(list(_SIZES.values()), dim=1)
        return cls(angles * ANGLE, *rest)

    def errors(self, truth: "Attributes") -> dict[str, Float[Tensor, " B"]]:
        """Compare predicted attributes with the true ones.

        Args:
            truth: The true attributes, with indices.

        Returns:
            One value per picture, `[B]`: the root mean square error of `pose` in degrees, of `position` in frame units and of
            the coefficients of `light`; and `prompt`, 1 if background and shirt are both as asked for, else 0.
        """
        right = (self.background.argmax(1) == truth.background) & (self.shirt.argmax(1) == truth.shirt)
        distances = {
            "pose": self.angles - truth.angles, "position": self.position - truth.position, "light": self.light - truth.light
        }  # fmt: skip
        return {name: d.pow(2).mean(1).sqrt() for name, d in distances.items()} | {"prompt": right.float()}


class _Learner(nn.Module):
    """The evaluator with the people's directions, which only training needs."""

    def __init__(self, people: int):
        super().__init__()
        # The names of the parameters are keys in training states.
        self.judge = Evaluator(sum(_SIZES.values()))
        self.people = nn.Parameter(torch.randn(people, self.judge.eye.config.global_width))


class _Evaluation(nn.Module):
    def __init__(self, people: int):
        super().__init__()
        self.trained = _Learner(people)

    def forward(self, batch: Tensors, generator: torch.Generator) -> dict[str, Tensor]:
        predicted = Attributes.predicted(self.trained.judge(batch["pictures"])[1])
        who, right = recognition_loss(self.trained.judge(batch["varied"])[0], self.trained.people, batch["person"])
        terms = {
            "who": 0.3 * who,
            "angles": F.mse_loss(predicted.angles / ANGLE, batch["angles"] / ANGLE),
            "position": 4 * F.mse_loss(predicted.position, batch["position"]),
            "light": F.mse_loss(predicted.light, batch["light"]),
            "background": 0.2 * F.cross_entropy(predicted.background, batch["background"]),
            "shirt": 0.2 * F.cross_entropy(predicted.shirt, batch["shirt"]),
        }
        return {"loss": reduce(add, terms.values()), **terms, "right": right}


def train_evaluator(features: CachedFeatures, autoencoder: Autoencoder, folder: Path, *, steps: int, seed: int) -> Evaluator:
    """Train the evaluator on the heads of a set, each time in another light and setting.

    Light and setting change from step to step because the prediction of a pose or a person must not depend on them. Half of
    the pictures pass through the autoencoder, because all portraits come out of it.

    Args:
        features: The set.
        autoencoder: The trained autoencoder.
        folder: Folder of the miniature's training.
        steps: Number of steps.
        seed: Seed of weights and samples.

    Returns:
        The evaluator, on the CPU.
    """
    torch.manual_seed(seed)
    scenes = features.scenes
    appearances = cache(lambda: Appearances(N_APPEARANCES, N_APPEARANCES, seed))  # a finished stage does not need them
    people, indices = person_indices(scenes)

    @torch.no_grad()
    def make(generator: torch.Generator) -> Tensors:
        rows = torch.randint(len(indices), (BATCH,), generator=generator)
        variations = appearances()
        lights, settings = variations.choose(BATCH, generator)
        pictures = 2 * scenes.relight(rows, variations, lights, settings) - 1
        with torch.autocast("cpu", torch.bfloat16):
            pictures[::2] = autoencoder.decode(autoencoder.encode(pictures[::2]))
        pictures = recognizer_input(pictures).float()
        heads = scenes.heads[rows].replace(light=variations.lights[lights])
        attributes = Attributes.of(heads, [variations.settings[i] for i in settings])
        varied = vary(pictures, features.surroundings[rows], generator)
        pictures = pictures + 0.03 * torch.randn(pictures.shape, generator=generator)
        return Tensors({"pictures": pictures, "varied": varied, "person": indices[rows], **vars(attributes)})

    # "judge" is the name of the folder with its state.
    return run_stage("judge", _Evaluation(len(people)), make, folder, steps=steps, rate=2e-3, seed=seed).judge
