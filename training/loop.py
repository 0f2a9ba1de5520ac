"""The training loop: any objective, any data, on one or many processes, and after a stop as if there had been none.

Chance comes from the step's number, never from a generator's state, and data from its position: a resumed run draws what the
uninterrupted one would have drawn.
"""

import copy
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import BadInput
from .batch import Data, TrainingBatch
from .log import Log
from .state import load_state, save_state

FREE = ("steps", "minutes", "save_every", "log_every", "sample_every")
"""Settings that may change when a run goes on: none of them touches its numbers, but steps where the learning rate decays."""

DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    "cosine": lambda share: 0.505 + 0.495 * math.cos(math.pi * share),
}
"""The learning rate's factor by the share of the steps that are done; the cosine ends at a hundredth."""


class Objective(Protocol):
    """What the loop minimises; a module."""

    trained: nn.Module
    """The part that is trained, averaged and saved."""

    def __call__(self, batch: TrainingBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """At least `loss`; further scalars are logged by their names, `errors` `[B]` by the `timesteps` `[B]` beside them."""
        ...


@dataclass(frozen=True)
class LoopSettings:
    """How the loss is brought down."""

    steps: int = 50_000
    """Steps of the optimizer."""
    accumulate: int = 1
    """Batches of each process that make up a step."""
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    """Of AdamW; torch's default, as in the released script."""
    warmup: int = 500
    """Steps over which the learning rate rises to its value."""
    decay: str = "constant"
    """What the learning rate does then, out of `DECAYS`."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 leaves it as it is."""
    average: float = 0.9999
    """Decay of the exponential moving average of the weights, which is what is exported; 0 exports the weights themselves. It
    begins lower, as min(average, (1 + n) / (10 + n)) after n steps, or the first steps would be remembered for too long."""
    precision: str = "no"
    """Mixed precision: no, bf16 or fp16. The trained weights are float32 in any case."""
    seed: int = 0
    save_every: int = 1000
    """Steps between two states (and exports)."""
    log_every: int = 50
    """Steps between two lines."""
    sample_every: int = 1000
    """Steps between two sheets of samples; 0 makes none."""
    minutes: float | None = None
    """The run saves its state and ends after this time, to be continued."""

    def __post_init__(self):
        if self.decay not in DECAYS:
            raise BadInput(f"Expected a decay out of {', '.join(DECAYS)}, got {self.decay!r}.")


def train(
    objective: Objective,
    data: Data,
    settings: LoopSettings,
    folder: Path,
    *,
    about: dict | None = None,
    cpu: bool = False,
    export: Callable[[nn.Module, int], None] | None = None,
    preview: Callable[[nn.Module], Tensor] | None = None,
) -> nn.Module:
    """Train until `settings.steps`, from the newest state in `folder` if there is one.

    SIGTERM saves the state and ends the run, as running out of `minutes` does.

    Args:
        objective: The loss, with what it trains. Its frozen parts are moved to the device with it.
        data: Where batches come from.
        settings: The optimizer's and the loop's.
        folder: Of the run: states, logs, sheets of samples.
        about: Further settings that decide the numbers, kept with the state; plain values.
        cpu: Stay on the CPU even where there is a GPU.
        export: `(averaged weights, step)`, called by one process whenever the state is saved.
        preview: `averaged weights -> picture [3, H, W]` in 0..1, called by the first process; the others need none.

    Returns:
        The averaged weights.

    Raises:
        BadInput: if the folder holds a run with other settings, or accelerate was told of other processes than there are.
        FloatingPointError: if the loss is no longer a number.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision=settings.precision, cpu=cpu or not torch.cuda.is_available())
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started != accelerator.num_processes:
        known = accelerator.num_processes
        raise BadInput(f"{started} processes were started, but accelerate knows of {known}: each would train for itself.")
    folder.mkdir(parents=True, exist_ok=True)
    rank, world = accelerator.process_index, accelerator.num_processes
    decisive = {k: v for k, v in asdict(settings).items() if k not in FREE} | {"processes": world} | (about or {})
    if settings.decay != "constant":
        decisive["steps"] = settings.steps
    state = load_state(folder, decisive)

    trained = objective.trained
    averaged = copy.deepcopy(trained).eval().requires_grad_(False)
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    first = 0
    if state:
        trained.load_state_dict(state["trained"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    model, optimizer = accelerator.prepare(objective, optimizer)
    averaged.to(accelerator.device)
    if state and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(state["scaler"])
    del state
    trained.train()

    batches = data.batches(first * settings.accumulate, rank, world)
    with Log(folder, settings.steps, first, world, accelerator.is_main_process) as log, _stop_signal() as stopped:
        begun = time.monotonic()
        for step in range(first, settings.steps):
            for group in optimizer.param_groups:
                share = min((step + 1) / max(settings.warmup, 1), DECAYS[settings.decay](step / settings.steps))
                group["lr"] = settings.learning_rate * share
            for part in range(settings.accumulate):
                last = part + 1 == settings.accumulate
                with nullcontext() if last else accelerator.no_sync(model):
                    batch = next(batches).to(accelerator.device)
                    out = model(batch, generator_of(settings.seed, step, part, rank))
                    accelerator.backward(out["loss"] / settings.accumulate)
                log.add(out, len(batch))
            if settings.clip:
                accelerator.clip_grad_norm_(parameters, settings.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            _average(averaged, trained, settings.average, step)

            done = step + 1
            over = stopped.is_set() or (settings.minutes is not None and time.monotonic() - begun > 60 * settings.minutes)
            over = _any(over, accelerator) or done == settings.steps
            saves = done % settings.save_every == 0 or over
            if done % settings.log_every == 0 or saves:
                log.write(done, accelerator, optimizer.param_groups[0]["lr"])
            if saves:
                if accelerator.is_main_process:
                    state = {
                        "step": done,
                        "trained": trained.state_dict(),
                        "averaged": averaged.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
                        "settings": decisive,
                    }
                    save_state(folder, state)
                    if export:
                        export(averaged, done)
                accelerator.wait_for_everyone()
            if settings.sample_every and (done % settings.sample_every == 0 or done == settings.steps):
                if preview and accelerator.is_main_process:
                    with torch.no_grad(), accelerator.autocast():
                        log.picture(done, preview(averaged))
                accelerator.wait_for_everyone()
            if over:
                break
    accelerator.free_memory()
    return averaged


def generator_of(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on these numbers alone, from 0."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))


@torch.no_grad()
def _average(averaged: nn.Module, trained: nn.Module, decay: float, step: int) -> None:
    keep = min(decay, (1 + step) / (10 + step))
    theirs, ours = list(averaged.parameters()), list(trained.parameters())
    torch._foreach_lerp_(theirs, ours, 1 - keep)


def _any(flag: bool, accelerator) -> bool:
    """Whether the flag is set on any process, so that all end at the same step."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device)).item())


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM sets; elsewhere than in the main thread, where no handler can be set, it stays unset."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)
