"""Batches from a prepared training set: the base's networks encode pictures to latents and captions to text features."""

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
"""Number of captions whose text features are cached (half precision, 118 KB each), since many captions are equal."""


class PhotoData:
    """`Data` from a training set. A batch depends only on the seed, its number and the process."""

    def __init__(self, samples: TrainingSet, base: Base, *, batch: int, seed: int = 0, workers: int = 0):
        """Store the settings.

        Args:
            samples: The training set.
            base: The base model; its autoencoder and text encoder run on their own device.
            batch: Number of samples in a batch of one process.
            seed: Seed of the order and of the latents' noise.
            workers: Processes per training process that read and render ahead; 0 reads in the training process.
        """
        self.samples, self.base, self.batch, self.seed, self.workers = samples, base, batch, seed, workers
        self._prompt = lru_cache(CAPTIONS_KEPT)(lambda prompt: base.encode_prompts([prompt])[0].half().cpu())

    def batches(self, start: int, rank: int, world: int) -> Iterator[TrainingBatch]:
        """Yield the batches of one process, see `Data`."""
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
            seed = np.random.SeedSequence((self.seed, number, rank)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(seed[0]))
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
        """Return the text features `[B, 77, 768]` of captions."""
        return torch.stack([self._prompt(prompt) for prompt in prompts]).float()
