"""A stage of the miniature's training: the ordinary loop, fed from what is in memory."""

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..loop import LoopSettings, Objective, generator_of, train
from ..state import steps_done


@dataclass(frozen=True, eq=False)
class Tensors:
    """A batch of whatever a stage needs."""

    values: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def to(self, device: torch.device | str) -> "Tensors":
        """The same on a device."""
        return Tensors({name: value.to(device) for name, value in self.values.items()})


class Drawn:
    """Batches that are drawn by chance; the same place always gives the same one."""

    def __init__(self, make: Callable[[torch.Generator], object], seed: int):
        """Remember how to draw.

        Args:
            make: Draws a batch, by a CPU generator alone.
            seed: Of the stage.
        """
        self.make, self.seed = make, seed

    def batches(self, start: int, rank: int, world: int) -> Iterator:
        """Batches of one process from place `start` on, see `training.batch.Data`."""
        place = start
        while True:
            yield self.make(generator_of(self.seed, 1, place, rank))
            place += 1


def run_stage(
    name: str,
    objective: Objective,
    make: Callable[[torch.Generator], object],
    folder: Path,
    *,
    steps: int,
    rate: float,
    seed: int,
) -> nn.Module:
    """Train a stage, or go on with it; returns the averaged weights on the CPU.

    Args:
        name: Of the stage, and of its folder in `folder`.
        objective: Its loss and what it trains.
        make: Draws a batch.
        folder: Of the miniature's training.
        steps: How many there are.
        rate: Highest learning rate; it falls by a cosine.
        seed: Of draws.
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
    # on a CPU, the backward pass of the fused attention takes five times as long in bf16
    with nullcontext() if torch.cuda.is_available() else sdpa_kernel(SDPBackend.MATH):
        averaged = train(objective, Drawn(make, seed), settings, folder / name).cpu()
    if steps_done(folder / name) < steps:
        sys.exit(f"{name} was stopped; the same command goes on with it.")
    return averaged
