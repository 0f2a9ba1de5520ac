"""The last stage: what judges portraits, trained on drawn pictures as they are and as the autoencoder gives them back."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...flame.params import HeadParams
from ...models.autoencoder import Autoencoder
from ...models.judge import ANGLE, Facts, Judge
from .recognizer import numbers_of, recognition_loss, seen_of
from .scenes import SceneSet, sample_scene
from .stage import Tensors, run_stage

BATCH = 64


class _Learner(nn.Module):
    """The judge with the people's directions."""

    def __init__(self, people: int):
        super().__init__()
        self.judge = Judge()
        self.people = nn.Parameter(torch.randn(people, self.judge.eye.config.global_width))


class _Judgement(nn.Module):
    def __init__(self, people: int):
        super().__init__()
        self.trained = _Learner(people)

    def forward(self, batch: Tensors, generator: torch.Generator) -> dict[str, Tensor]:
        pictures = batch["pictures"]
        embedding, told = self.trained.judge(pictures + 0.03 * torch.randn(pictures.shape, generator=generator).to(pictures))
        who, right = recognition_loss(embedding, self.trained.people, batch["person"])
        terms = {
            "who": 0.2 * who,
            "angles": F.mse_loss(told.angles / ANGLE, batch["angles"] / ANGLE),
            "position": 4 * F.mse_loss(told.position, batch["position"]),
            "light": F.mse_loss(told.light, batch["light"]),
            "background": 0.2 * F.cross_entropy(told.background, batch["background"]),
            "shirt": 0.2 * F.cross_entropy(told.shirt, batch["shirt"]),
        }
        return {"loss": sum(terms.values()), **terms, "right": right}


def train_judge(scenes: SceneSet, autoencoder: Autoencoder, folder: Path, *, steps: int, seed: int = 11) -> Judge:
    """Train the judge on drawn pictures, half of them through the autoencoder, as all portraits are."""
    torch.manual_seed(seed)
    drawn = [sample_scene(person, view) for person, view in zip(scenes.people.tolist(), scenes.views.tolist(), strict=True)]
    truth = vars(Facts.of(HeadParams.cat([s.head for s in drawn]), [s.setting for s in drawn]))
    seen = torch.stack([seen_of(scenes), seen_of(scenes, lambda x: autoencoder.decode(autoencoder.encode(x)))])
    people, numbers = numbers_of(scenes)

    def make(generator: torch.Generator) -> Tensors:
        rows = torch.randint(len(scenes), (BATCH,), generator=generator)
        facts = {name: value[rows] for name, value in truth.items()}
        pictures = seen[torch.randint(2, (BATCH,), generator=generator), rows].float()
        return Tensors({"pictures": pictures, "person": numbers[rows], **facts})

    return run_stage("judge", _Judgement(len(people)), make, folder, steps=steps, rate=2e-3, seed=seed).judge
