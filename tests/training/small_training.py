"""A base, a CapFace and a few samples that are small enough to train in seconds."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from capface.models.diffusion.denoiser import Denoiser, DenoiserConfig
from capface.training.batch import TrainingBatch
from capface.training.objective import CapFaceObjective, ObjectiveSettings, TrainedCapFace
from capface.training.schedule import NoiseSchedule

CONFIG = DenoiserConfig((1, 2), 1, (1, 2), model_channels=32, context_width=16)
LOCAL, GLOBAL = 12, 10
HINT_WIDTHS = (8, 8, 8, 8, 16, 16, 16)


def objective(seed=0, **settings):
    """Create an objective of an untrained CapFace over a random base."""
    torch.manual_seed(seed)
    base = Denoiser(CONFIG)
    torch.nn.init.normal_(base.out[2].get_parameter("weight"), std=0.02)
    trained = TrainedCapFace.from_denoiser(base, local_width=LOCAL, global_width=GLOBAL, hint_widths=HINT_WIDTHS)
    return CapFaceObjective(base, trained, NoiseSchedule(), ObjectiveSettings(**settings))


class Samples:
    """A few people, each a disc with its own colour and position; the number of a batch seeds its random choice of people."""

    def __init__(self, count=4, batch=4, seed=3):
        g = torch.Generator().manual_seed(seed)
        side = torch.linspace(-1, 1, 64)
        v, u = torch.meshgrid(side, side, indexing="ij")
        centre = torch.rand(count, 2, 1, 1, generator=g) - 0.5
        inside = ((u - centre[:, 0]) ** 2 + (v - centre[:, 1]) ** 2 < 0.3).float()[:, None]
        colour = torch.randn(count, 4, 1, 1, generator=g)
        self.batch = batch
        self.all = TrainingBatch(
            latents=colour * F.avg_pool2d(inside, 8),
            context=torch.randn(count, 3, 16, generator=g),
            null_context=torch.zeros(1, 3, 16),
            hint=inside * torch.rand(count, 9, 1, 1, generator=g),
            mask=inside,
            local=torch.randn(count, 5, LOCAL, generator=g),
            global_=torch.randn(count, 1, GLOBAL, generator=g),
        )

    def rows(self, rows):
        """Return a batch of some of the people."""
        a = self.all
        return TrainingBatch(
            a.latents[rows], a.context[rows], a.null_context, a.hint[rows], a.mask[rows], a.local[rows], a.global_[rows]
        )

    def batches(self, start: int, rank: int, world: int) -> Iterator[TrainingBatch]:
        """Yield batches, see `training.batch.Data`."""
        number = start
        while True:
            g = torch.Generator().manual_seed(1000 * number + rank)
            yield self.rows(torch.randint(len(self.all), (self.batch,), generator=g))
            number += 1
