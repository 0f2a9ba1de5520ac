"""The last stage: what judges portraits, trained on drawn heads in ever other lights, shirts and places."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import autocast

from ...flame.editing import angles_of
from ...flame.model import HeadParams
from ...miniature.autoencoder import Autoencoder
from ...miniature.evaluator import Judge
from ...miniature.people import BACKGROUNDS, SHIRTS, Setting
from .scenes import Appearances
from .stage import Tensors, run_stage
from .train_recognizer import Sights, numbers_of, recognition_loss, seen, vary

BATCH = 64
LOOKS = 1024
"""How many lights there are to see heads in, and how many settings."""
ANGLE = 30.0
"""Degrees that count as one in the network's output."""
_SIZES = {"angles": 3, "position": 3, "light": 9, "background": len(BACKGROUNDS), "shirt": len(SHIRTS)}


@dataclass(frozen=True, eq=False)
class Facts:
    """What is true of a batch of pictures, or what the judge reads from them."""

    angles: Tensor
    """Yaw, pitch and roll in degrees `[B, 3]`."""
    position: Tensor
    """Camera in frame units `[B, 3]`, the size divided by 5."""
    light: Tensor
    """Spherical-harmonic coefficients, mean of the colours `[B, 9]`."""
    background: Tensor
    """`[B, 8]` scores of BACKGROUNDS, or their number `[B]` where they are true."""
    shirt: Tensor
    """`[B, 6]` scores of SHIRTS, or their number `[B]`."""

    @classmethod
    def of(cls, heads: HeadParams, settings: Sequence[Setting]) -> "Facts":
        """The truth about drawn pictures."""
        return cls(
            angles_of(heads.rotation),
            torch.cat([heads.camera[:, :1] / 5, heads.camera[:, 1:]], dim=1),
            heads.light.mean(-1),
            torch.tensor([BACKGROUNDS.index(s.background) for s in settings]),
            torch.tensor([list(SHIRTS).index(s.shirt) for s in settings]),
        )

    @classmethod
    def told(cls, numbers: Tensor) -> "Facts":
        """What the judge's numbers `[B, 29]` mean."""
        angles, *rest = numbers.split(list(_SIZES.values()), dim=1)
        return cls(angles * ANGLE, *rest)

    def errors(self, truth: "Facts") -> dict[str, Tensor]:
        """How far what was read is from the truth, one number a picture `[B]`.

        Returns:
            `pose` in degrees and `position` in frame units, the root of the mean square over their three numbers; `light`
            likewise over its nine coefficients; `prompt`, 1 where background and shirt are both as asked for, else 0.
        """
        right = (self.background.argmax(1) == truth.background) & (self.shirt.argmax(1) == truth.shirt)
        distances = {
            "pose": self.angles - truth.angles, "position": self.position - truth.position, "light": self.light - truth.light
        }  # fmt: skip
        return {name: d.pow(2).mean(1).sqrt() for name, d in distances.items()} | {"prompt": right.float()}


class _Learner(nn.Module):
    """The judge with the people's directions."""

    def __init__(self, people: int):
        super().__init__()
        self.judge = Judge(sum(_SIZES.values()))
        self.people = nn.Parameter(torch.randn(people, self.judge.eye.config.global_width))


class _Judgement(nn.Module):
    def __init__(self, people: int):
        super().__init__()
        self.trained = _Learner(people)

    def forward(self, batch: Tensors, generator: torch.Generator) -> dict[str, Tensor]:
        told = Facts.told(self.trained.judge(batch["pictures"])[1])
        who, right = recognition_loss(self.trained.judge(batch["varied"])[0], self.trained.people, batch["person"])
        terms = {
            "who": 0.3 * who,
            "angles": F.mse_loss(told.angles / ANGLE, batch["angles"] / ANGLE),
            "position": 4 * F.mse_loss(told.position, batch["position"]),
            "light": F.mse_loss(told.light, batch["light"]),
            "background": 0.2 * F.cross_entropy(told.background, batch["background"]),
            "shirt": 0.2 * F.cross_entropy(told.shirt, batch["shirt"]),
        }
        return {"loss": sum(terms.values()), **terms, "right": right}


def train_judge(sights: Sights, autoencoder: Autoencoder, folder: Path, *, steps: int, seed: int) -> Judge:
    """Train the judge on a set's heads, each time in another light and setting, half of them through the autoencoder.

    What the reading of a pose or of a person must not depend on changes from step to step, and all portraits come out of the
    autoencoder.

    Args:
        sights: The set.
        autoencoder: Gives pictures back.
        folder: Where the state is kept.
        steps: How many.
        seed: Of weights and draws.
    """
    torch.manual_seed(seed)
    scenes = sights.scenes
    looks = cache(lambda: Appearances(LOOKS, LOOKS, seed))  # a finished stage asks for none
    people, numbers = numbers_of(scenes)

    @torch.no_grad()
    def make(generator: torch.Generator) -> Tensors:
        rows = torch.randint(len(numbers), (BATCH,), generator=generator)
        given = looks()
        lights, settings = given.choose(BATCH, generator)
        pictures = 2 * scenes.relight(rows, given, lights, settings) - 1
        with autocast("cpu", torch.bfloat16):
            pictures[::2] = autoencoder.decode(autoencoder.encode(pictures[::2]))
        pictures = seen(pictures).float()
        heads = scenes.heads[rows].replace(light=given.lights[lights])
        facts = Facts.of(heads, [given.settings[i] for i in settings])
        varied = vary(pictures, sights.surroundings[rows], generator)
        pictures = pictures + 0.03 * torch.randn(pictures.shape, generator=generator)
        return Tensors({"pictures": pictures, "varied": varied, "person": numbers[rows], **vars(facts)})

    return run_stage("judge", _Judgement(len(people)), make, folder, steps=steps, rate=2e-3, seed=seed).judge
