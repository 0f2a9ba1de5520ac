"""One stage of the miniature's training: the ordinary training loop, with data in memory."""

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..batch import AnyBatch
from ..loop import AnyNetwork, LoopSettings, Objective, generator_of, train
from ..state import steps_done


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


def run_stage(
    name: str,
    objective: Objective[AnyBatch, AnyNetwork],
    make: Callable[[torch.Generator], AnyBatch],
    folder: Path,
    *,
    steps: int,
    rate: float,
    seed: int,
) -> AnyNetwork:
    """Train a stage, or resume it.

    Args:
        name: Name of the stage and of its folder in `folder`.
        objective: Its loss, with the networks to train.
        make: Samples a batch.
        folder: Folder of the miniature's training.
        steps: Number of steps.
        rate: Highest learning rate. It decays by a cosine.
        seed: Seed of the samples.

    Returns:
        The trained network with averaged weights, on the CPU.

    Raises:
        SystemExit: The training was stopped before its last step.
    """
    settings = LoopSettings(
        steps=steps,
        learning_rate=rate,
        decay="cosine",
        warmup=100,
        average=0.998,
        precision="bf16",
        seed=seed,
        save_every=max(steps // 10, 1),
        log_every=max(steps // 40, 1),
        sample_every=0,
    )
    # On a CPU, the backward pass of fused attention takes five times as long in bf16.
    with nullcontext() if torch.cuda.is_available() else sdpa_kernel(SDPBackend.MATH):
        averaged = train(objective, SampledBatches(make, seed), settings, folder / name).cpu()
    if steps_done(folder / name) < steps:
        sys.exit(f"{name} was stopped. Run the same command to resume it.")
    return averaged
