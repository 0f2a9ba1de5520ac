"""One stage of the miniature's training: the ordinary training loop, with data in memory."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..batch import AnyBatch
from ..loop import AnyNetwork, LoopSettings, Objective, train
from ..sampled import SampledBatches
from ..state import steps_done


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
