"""From a prepared training set to batches: pictures become latents and captions text features, by the base's own networks."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import count

import numpy as np
import torch
from torch import Tensor

from .base_model import Base
from .batch import TrainingBatch
from .dataset import Positions, TrainingSet

CAPTIONS_KEPT = 4096
"""Text features kept in memory (half precision, 118 KB each): sets have many equal captions."""


class PhotoData:
    """`Data` from a training set; batches of a process depend on the seed and their number alone."""

    def __init__(self, samples: TrainingSet, base: Base, *, batch: int, seed: int = 0, workers: int = 0):
        """Prepare to read.

        Args:
            samples: The set.
            base: Its autoencoder and text encoder are used, on their own device.
            batch: Samples of a process in a batch.
            seed: Of the order and of the latents' noise.
            workers: Processes that read and render ahead, for each training process; 0 does it in between.
        """
        self.samples, self.base, self.batch, self.seed, self.workers = samples, base, batch, seed, workers
        self._prompt = lru_cache(CAPTIONS_KEPT)(lambda prompt: base.encode_prompts([prompt])[0].half().cpu())

    def batches(self, start: int, rank: int, world: int) -> Iterator[TrainingBatch]:
        """See `Data`."""
        positions = Positions(len(self.samples), self.seed, rank, world, start * self.batch * world)
        loader = torch.utils.data.DataLoader(
            self.samples,
            self.batch,
            sampler=positions,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
        )
        null = self.features([""])
        for number, rows in zip(count(start), loader, strict=False):
            chance = np.random.SeedSequence((self.seed, number, rank)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(chance[0]))
            yield TrainingBatch(
                latents=self.base.encode_pictures(rows["image"], generator),
                context=self.features(rows["caption"]),
                null_context=null,
                hint=rows["hint"],
                mask=rows["alpha"],
                local=rows["local"],
                global_=rows["global"][:, None],
            )

    def features(self, prompts: list[str]) -> Tensor:
        """Text features `[B, 77, 768]` of captions."""
        return torch.stack([self._prompt(prompt) for prompt in prompts]).float()
