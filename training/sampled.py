"""Batches of named tensors that are sampled anew at every step, for the training loop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from .batch import AnyBatch
from .loop import generator_of


@dataclass(frozen=True, eq=False)
class Tensors:
    """A batch of named tensors."""

    values: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def to(self, device: torch.device | str) -> "Tensors":
        """Move the batch to a device."""
        return Tensors({name: value.to(device) for name, value in self.values.items()})


class SampledBatches(Generic[AnyBatch]):
    """Random batches. The same position always gives the same batch."""

    def __init__(self, make: Callable[[torch.Generator], AnyBatch], seed: int):
        """Keep the function and the seed.

        Args:
            make: Samples a batch, with no other randomness than a CPU generator.
            seed: Seed of the stage.
        """
        self.make, self.seed = make, seed

    def batches(self, start: int, rank: int, world: int) -> Iterator[AnyBatch]:
        """Yield the batches of one process from position `start` on, see `training.batch.Data`."""
        position = start
        while True:
            yield self.make(generator_of(self.seed, 1, position, rank))
            position += 1
