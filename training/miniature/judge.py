"""What judges the miniature's portraits: networks that took no part in making them, trained on drawn pictures.

The *judge* reads from a picture how the head is held and lit and what the prompt asked for; a recogniser of another seed than
the conditioning one says who it is.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...flame.edit import angles_of
from ...flame.people import BACKGROUNDS, SHIRTS
from ...models.recognizer import Recognizer
from .autoencoder import pictures_of
from .scenes import Scene, SceneSet, sample_scene
from .stage import Tensors, run_stage

BATCH = 64
ANGLE = 30.0
"""Degrees that count as one in the judge's output."""
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
    def of(cls, scenes: list[Scene]) -> "Facts":
        """The truth about scenes."""
        camera = torch.cat([s.head.camera for s in scenes])
        return cls(
            angles_of(torch.cat([s.head.rotation for s in scenes])),
            torch.cat([camera[:, :1] / 5, camera[:, 1:]], dim=1),
            torch.cat([s.head.light for s in scenes]).mean(-1),
            torch.tensor([BACKGROUNDS.index(s.setting.background) for s in scenes]),
            torch.tensor([list(SHIRTS).index(s.setting.shirt) for s in scenes]),
        )


class Judge(nn.Module):
    """Reads Facts from pictures `[B, 3, H, W]` in −1..1."""

    def __init__(self):
        super().__init__()
        self.eye = Recognizer()
        self.tell = nn.Linear(16 * self.eye.config.widths[-1], sum(_SIZES.values()))

    def forward(self, pictures: Tensor) -> Facts:
        """Look at pictures."""
        parts = self.tell(self.eye(pictures)[1].flatten(1)).split(list(_SIZES.values()), dim=1)
        return Facts(parts[0] * ANGLE, *parts[1:])


class _Reading(nn.Module):
    def __init__(self):
        super().__init__()
        self.trained = Judge()

    def forward(self, batch: Tensors, generator: torch.Generator) -> dict[str, Tensor]:
        pictures = batch["pictures"]
        told = self.trained(pictures + 0.03 * torch.randn(pictures.shape, generator=generator).to(pictures))
        terms = {
            "angles": F.mse_loss(told.angles / ANGLE, batch["angles"] / ANGLE),
            "position": 4 * F.mse_loss(told.position, batch["position"]),
            "light": F.mse_loss(told.light, batch["light"]),
            "background": 0.2 * F.cross_entropy(told.background, batch["background"]),
            "shirt": 0.2 * F.cross_entropy(told.shirt, batch["shirt"]),
        }
        return {"loss": sum(terms.values()), **terms}


def train_judge(scenes: SceneSet, folder: Path, *, steps: int, seed: int = 11) -> Judge:
    """Train the judge on drawn pictures."""
    torch.manual_seed(seed)
    pairs = zip(scenes.people.tolist(), scenes.views.tolist(), strict=True)
    truth = vars(Facts.of([sample_scene(person, view) for person, view in pairs]))

    def make(generator: torch.Generator) -> Tensors:
        rows = torch.randint(len(scenes), (BATCH,), generator=generator)
        facts = {name: value[rows] for name, value in truth.items()}
        return Tensors({"pictures": pictures_of(scenes, rows.numpy()), **facts})

    return run_stage("judge", _Reading(), make, folder, steps=steps, rate=2e-3, seed=seed)


def errors_of(told: Facts, truth: Facts) -> dict[str, Tensor]:
    """How far what the judge reads is from the truth, one number a picture `[B]`.

    Returns:
        `pose` in degrees and `position` in frame units, the root of the mean square over their three numbers; `light` likewise
        over its nine coefficients; `prompt`, 1 where background and shirt are both as asked for, else 0.
    """
    return {
        "pose": (told.angles - truth.angles).pow(2).mean(1).sqrt(),
        "position": (told.position - truth.position).pow(2).mean(1).sqrt(),
        "light": (told.light - truth.light).pow(2).mean(1).sqrt(),
        "prompt": ((told.background.argmax(1) == truth.background) & (told.shirt.argmax(1) == truth.shirt)).float(),
    }


def interval(values: Tensor) -> tuple[float, float]:
    """Mean and half-width of its 95 % confidence interval, by the normal approximation."""
    numbers = values.double().numpy()
    return float(numbers.mean()), float(1.96 * numbers.std(ddof=1) / np.sqrt(len(numbers)))
