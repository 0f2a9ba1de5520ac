"""The log of a training run: progress lines, TensorBoard curves and sheets of samples."""

import math
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..files.atomic import write_atomically
from .progress import Progress
from .schedule import TIMESTEPS

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.utils.tensorboard import SummaryWriter

BUCKETS = 10
"""Number of timestep ranges whose errors are logged separately: the range with the largest errors dominates the whole loss."""


class Log:
    """Collects metrics between two lines and logs their means over samples and processes; a context manager."""

    def __init__(self, folder: Path, steps: int, first: int, world: int, writes: bool):
        """Open the log.

        Args:
            folder: Folder of the run; TensorBoard's files go to `logs` in it, sheets to `samples`.
            steps: Number of steps of the whole run.
            first: Number of steps that are already done.
            world: Number of processes.
            writes: Whether this process is the one that writes.
        """
        self.folder, self.world = folder, world
        self.writer: SummaryWriter | None = None
        self.progress = Progress("steps", steps, first, every=0)
        self._reset()
        if writes:
            from torch.utils import tensorboard

            # purge_step drops what a killed run logged after its last state: these steps are trained again
            self.writer = tensorboard.SummaryWriter(folder / "logs", purge_step=first + 1 if first else None)

    def _reset(self) -> None:
        self.sums: dict[str, Tensor] = {}
        """Sum of each logged scalar over batches."""
        self.errors_by_timestep: Tensor | None = None
        """`[2, BUCKETS]`: the sum of the errors, and their number."""
        self.samples = self.batches = 0
        self.since = time.monotonic()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.writer:
            self.writer.close()

    def add(self, out: dict[str, Tensor], samples: int) -> None:
        """Collect the output of an objective for one batch.

        Args:
            out: Output of the objective, see `loop.Objective`.
            samples: Number of samples in the batch.
        """
        for name, value in out.items():
            if value.ndim == 0:
                value = value.detach().float()
                self.sums[name] = self.sums[name] + value if name in self.sums else value
        errors = _sum_by_timestep(out)
        self.errors_by_timestep = errors if self.errors_by_timestep is None else self.errors_by_timestep + errors
        self.samples += samples
        self.batches += 1

    def write(self, step: int, accelerator: "Accelerator", learning_rate: float) -> None:
        """Write the collected metrics and start collecting from zero. Every process must call it, after at least one `add`.

        Args:
            step: Number of steps that are done.
            accelerator: The processes, whose metrics are summed.
            learning_rate: The optimizer's current learning rate.

        Raises:
            FloatingPointError: The loss is NaN or infinite.
        """
        assert self.errors_by_timestep is not None, "nothing has been added"
        sums = {name: sum_over_processes(value, accelerator) for name, value in sorted(self.sums.items())}
        errors, counts = sum_over_processes(self.errors_by_timestep, accelerator)
        samples = torch.tensor(float(self.samples), device=self.errors_by_timestep.device)
        samples = int(sum_over_processes(samples, accelerator).item())
        means = {name: value.item() / (self.batches * self.world) for name, value in sums.items()}
        elapsed = time.monotonic() - self.since
        self._reset()
        if not math.isfinite(means["loss"]):
            raise FloatingPointError(
                f"The loss is {means['loss']} at step {step}. The states in {self.folder} are older: start in a new folder "
                "from the exported file there, with a lower learning rate, or with bf16 instead of fp16."
            )
        if not self.writer:
            return
        metrics = {f"loss/{name}": mean for name, mean in means.items()} | {"learning rate": learning_rate}
        for i in counts.nonzero().flatten().tolist():
            width = TIMESTEPS // BUCKETS
            metrics[f"error by timestep/{i * width:03d}-{(i + 1) * width - 1:03d}"] = (errors[i] / counts[i]).item()
        metrics["images per second"] = samples / elapsed
        note = "  ".join(f"{name} {mean:.4f}" for name, mean in means.items())
        self.progress.at(step, f"{samples / elapsed:.1f} images/s  {note}")
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def picture(self, step: int, picture: Tensor) -> None:
        """Write a sheet of samples to a file and to TensorBoard; only for the process that writes.

        Args:
            step: Number of steps that are done.
            picture: `[3, H, W]` in 0..1.
        """
        from PIL import Image

        assert self.writer is not None, "another process writes"
        picture = picture.detach().float().cpu().clamp(0, 1)
        self.writer.add_image("samples", picture, step)
        path = self.folder / "samples" / f"{step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        image = Image.fromarray((picture.permute(1, 2, 0) * 255).round().byte().numpy())
        write_atomically(path, lambda part: image.save(part, "PNG"))


def sum_over_processes(value: Tensor, accelerator: "Accelerator") -> Tensor:
    """Sum a tensor over all processes; every process must call it."""
    total = accelerator.reduce(value)
    assert isinstance(total, Tensor)
    return total


def _sum_by_timestep(out: dict[str, Tensor]) -> Tensor:
    """Sum and number of the errors in each range of timesteps: float32 `[2, BUCKETS]`, zero if the objective returns none."""
    sums = torch.zeros(2 * BUCKETS, device=out["loss"].device)
    if "timesteps" in out:
        bucket = (out["timesteps"] * BUCKETS // TIMESTEPS).clamp(0, BUCKETS - 1)
        errors = out["errors"].float()
        sums.index_add_(0, torch.cat([bucket, bucket + BUCKETS]), torch.cat([errors, torch.ones_like(errors)]))
    return sums.view(2, BUCKETS)
