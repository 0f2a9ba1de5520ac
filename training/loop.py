"""The training loop, for any objective and data, on one or more processes, with bit-exact resume.

Random numbers are seeded by the number of the step, and data is selected by its position; no generator state is kept. A resumed
run therefore uses the same random numbers and batches as an uninterrupted one.
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
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..errors import BadInput
from .batch import AnyBatch, Batch, Data
from .log import Log, sum_over_processes
from .state import load_state, save_state

if TYPE_CHECKING:
    from accelerate import Accelerator

FREE = ("steps", "minutes", "save_every", "log_every", "sample_every")
"""Settings that may change when a run is resumed. They do not affect its results, except steps if the learning rate decays."""

DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.505 + 0.495 * math.cos(math.pi * done),
}
"""Factor of the learning rate as a function of the fraction of steps that are done; the cosine ends at a hundredth."""


AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)
NetworkOut = TypeVar("NetworkOut", bound=nn.Module, covariant=True)
BatchIn = TypeVar("BatchIn", bound=Batch, contravariant=True)


class Objective(Protocol[BatchIn, NetworkOut]):
    """The loss that the loop minimises; a module."""

    @property
    def trained(self) -> NetworkOut:
        """The network that is trained, averaged and saved."""
        ...

    def __call__(self, batch: BatchIn, generator: torch.Generator) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Args:
            batch: The samples.
            generator: CPU generator of all random numbers.

        Returns:
            `loss`, with a gradient. Further scalars are logged under their names. `errors` `[B]`, if returned together with
            `timesteps` `[B]`, are logged by range of timesteps.
        """
        ...


@dataclass(frozen=True)
class LoopSettings:
    """Settings of the optimizer and of the loop."""

    steps: int = 50_000
    """Number of optimizer steps in the whole run."""
    accumulate: int = 1
    """Batches of each process in a step."""
    learning_rate: float = 1e-4
    """Learning rate of AdamW after the warm-up."""
    weight_decay: float = 0.01
    """Weight decay of AdamW; torch's default, as in the released script."""
    warmup: int = 500
    """Steps over which the learning rate rises linearly to its value."""
    decay: str = "constant"
    """Course of the learning rate after the warm-up, one of `DECAYS`."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    average: float = 0.9999
    """Decay of the exponential moving average of the weights, which is exported; 0 exports the weights themselves. After n
    steps the decay is min(average, (1 + n) / (10 + n)): a lower value at the start forgets the first steps sooner."""
    precision: str = "no"
    """Mixed precision: no, bf16 or fp16. The trained weights are always float32."""
    seed: int = 0
    """Seed of all random numbers."""
    save_every: int = 1000
    """Steps between two saved states, and between two exports."""
    log_every: int = 50
    """Steps between two lines of the log."""
    sample_every: int = 1000
    """Steps between two sheets of samples; 0 makes no sheets."""
    minutes: float | None = None
    """Time in minutes after which the run saves its state and ends; it can be resumed. None sets no limit."""

    def __post_init__(self) -> None:
        if self.decay not in DECAYS:
            raise BadInput(f"Expected a decay out of {', '.join(DECAYS)}, got {self.decay!r}.")


def train(
    objective: Objective[AnyBatch, AnyNetwork],
    data: Data[AnyBatch],
    settings: LoopSettings,
    folder: Path,
    *,
    about: dict[str, Any] | None = None,
    cpu: bool = False,
    export: Callable[[AnyNetwork, int], None] | None = None,
    preview: Callable[[AnyNetwork], Tensor] | None = None,
) -> AnyNetwork:
    """Train until `settings.steps`, resuming from the newest state in `folder` if it holds one.

    SIGTERM saves the state and ends the run, as does the time limit `settings.minutes`.

    Args:
        objective: The loss and the network that it trains. Its frozen networks are moved to the device with it.
        data: Source of the batches.
        settings: Settings of the optimizer and of the loop.
        folder: Folder of the run, for states, logs and sheets of samples.
        about: Further settings that decide the results, stored with the state; plain values.
        cpu: Train on the CPU even if there is a GPU.
        export: Function of the averaged network and the number of steps; the main process calls it whenever it saves the state.
        preview: Function from the averaged network to a sheet of samples `[3, H, W]` in 0..1; only the main process calls it.

    Returns:
        The network with the averaged weights.

    Raises:
        BadInput: The folder holds a run with other settings, or accelerate does not know all processes of the launcher.
        FloatingPointError: The loss is NaN or infinite.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision=settings.precision, cpu=cpu or not torch.cuda.is_available())
    _check_processes(accelerator)
    folder.mkdir(parents=True, exist_ok=True)
    rank, world = accelerator.process_index, accelerator.num_processes
    decisive = _decisive_settings(settings, world, about or {})
    run = _Run(objective, settings, accelerator, load_state(folder, decisive))

    batches = data.batches(run.first * settings.accumulate, rank, world)
    with Log(folder, settings.steps, run.first, world, accelerator.is_main_process) as log, _stop_signal() as stopped:
        deadline = math.inf if settings.minutes is None else time.monotonic() + 60 * settings.minutes
        for step in range(run.first, settings.steps):
            run.take_step(step, batches, log)
            done = step + 1
            interrupted = _any(stopped.is_set() or time.monotonic() > deadline, accelerator)
            ends = interrupted or done == settings.steps
            saves = ends or done % settings.save_every == 0
            if saves or done % settings.log_every == 0:
                log.write(done, accelerator, run.learning_rate)
            if saves:
                if accelerator.is_main_process:
                    save_state(folder, run.state(done) | {"settings": decisive})
                    if export:
                        export(run.averaged, done)
                accelerator.wait_for_everyone()
            if settings.sample_every and (done % settings.sample_every == 0 or done == settings.steps):
                if preview and accelerator.is_main_process:
                    with torch.no_grad(), accelerator.autocast():
                        log.picture(done, preview(run.averaged))
                accelerator.wait_for_everyone()
            if ends:
                break
    accelerator.free_memory()
    return run.averaged


def _check_processes(accelerator: "Accelerator") -> None:
    """Check that accelerate knows all processes of the launcher.

    Raises:
        BadInput: It knows another number of them.
    """
    started, known = int(os.environ.get("WORLD_SIZE", 1)), accelerator.num_processes
    if started != known:
        raise BadInput(f"{started} processes were started, but accelerate knows {known}: each would train on its own.")


def _decisive_settings(settings: LoopSettings, processes: int, about: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that decide the results of a run: a resumed run must have equal ones."""
    decisive = {name: value for name, value in asdict(settings).items() if name not in FREE} | {"processes": processes} | about
    if settings.decay != "constant":
        decisive["steps"] = settings.steps
    return decisive


class _Run(Generic[AnyBatch, AnyNetwork]):
    """The networks and the optimizer of one process, new or resumed."""

    def __init__(
        self,
        objective: Objective[AnyBatch, AnyNetwork],
        settings: LoopSettings,
        accelerator: "Accelerator",
        state: dict[str, Any] | None,
    ):
        """Prepare to train on the accelerator's device.

        Args:
            objective: The loss and the network that it trains.
            settings: Settings of the optimizer and of the loop.
            accelerator: The process, its device and precision.
            state: State to resume from, as `state` returned it; None starts a new run.
        """
        self.settings, self.accelerator = settings, accelerator
        self.trained = objective.trained
        self.averaged = copy.deepcopy(self.trained).eval().requires_grad_(False)
        self.parameters = [p for p in self.trained.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(self.parameters, settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
        self.first = 0
        """Number of steps that are done before this run."""
        if state:
            self.trained.load_state_dict(state["trained"])
            self.averaged.load_state_dict(state["averaged"])
            optimizer.load_state_dict(state["optimizer"])
            self.first = state["step"]
        self.model, self.optimizer = accelerator.prepare(objective, optimizer)
        self.averaged.to(accelerator.device)
        if state and accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(state["scaler"])
        self.trained.train()

    @property
    def learning_rate(self) -> float:
        """The current learning rate."""
        return self.optimizer.param_groups[0]["lr"]

    def take_step(self, step: int, batches: Iterator[AnyBatch], log: Log) -> None:
        """Take one step of the optimizer and update the averaged weights.

        Args:
            step: Number of the step, from 0.
            batches: Batches of this process; a step takes `settings.accumulate` of them.
            log: Collects the losses.
        """
        settings, accelerator = self.settings, self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * _rate_factor(settings, step)
        for part in range(settings.accumulate):
            last = part + 1 == settings.accumulate
            with nullcontext() if last else accelerator.no_sync(self.model):
                batch = next(batches).to(accelerator.device)
                out = self.model(batch, generator_of(settings.seed, step, part, accelerator.process_index))
                accelerator.backward(out["loss"] / settings.accumulate)
            log.add(out, len(batch))
        if settings.clip:
            accelerator.clip_grad_norm_(self.parameters, settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        _update_average(self.averaged, self.trained, settings.average, step)

    def state(self, done: int) -> dict[str, Any]:
        """Return the state from which a run resumes after `done` steps."""
        scaler = self.accelerator.scaler
        return {
            "step": done,
            "trained": self.trained.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }


def _rate_factor(settings: LoopSettings, step: int) -> float:
    """Factor of the learning rate at a step: the smaller one of warm-up and decay."""
    return min((step + 1) / max(settings.warmup, 1), DECAYS[settings.decay](step / settings.steps))


def generator_of(*numbers: int) -> torch.Generator:
    """Return a CPU generator that is seeded by these numbers alone; each is at least 0."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))


@torch.no_grad()
def _update_average(averaged: nn.Module, trained: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights towards the trained ones after a step, see `LoopSettings.average`."""
    keep = min(decay, (1 + step) / (10 + step))
    get_ema_multi_avg_fn(keep)(list(averaged.parameters()), list(trained.parameters()), step)


def _any(flag: bool, accelerator: "Accelerator") -> bool:
    """Return whether the flag is set in any process, so that all processes end at the same step."""
    if accelerator.num_processes == 1:
        return flag
    return bool(sum_over_processes(torch.tensor(float(flag), device=accelerator.device), accelerator).item())


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Provide an event that SIGTERM sets. Only the main thread can set a handler; in other threads the event stays unset."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)
