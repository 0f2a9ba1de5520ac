"""What a run says of itself: lines with rate and time left, TensorBoard's curves, sheets of samples."""

import math
import time
from pathlib import Path

import torch
from torch import Tensor

from .progress import Progress
from .schedule import TIMESTEPS

BUCKETS = 10
"""Ranges of timesteps whose errors are logged apart: the loss as a whole is dominated by the range it is worst in."""
_COUNTED, _SAMPLES = "errors and counts by timestep", "samples"
"""What is summed beside the losses; no loss has such a name."""


class Log:
    """Collects figures between two lines, as means over samples and processes; a context manager."""

    def __init__(self, folder: Path, steps: int, first: int, world: int, writes: bool):
        """Open the log.

        Args:
            folder: Of the run; `logs` in it is TensorBoard's, `samples` holds the sheets.
            steps: How many there will be.
            first: How many there have been.
            world: Number of processes.
            writes: Whether this process is the one that writes.
        """
        self.folder, self.world, self.writer = folder, world, None
        self.progress = Progress("steps", steps, first, every=0)
        self.sums, self.batches = {}, 0
        self.since = time.monotonic()
        if writes:
            from torch.utils.tensorboard import SummaryWriter

            # what a killed run had logged beyond its last state is dropped: it comes again
            self.writer = SummaryWriter(folder / "logs", purge_step=first + 1 if first else None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.writer:
            self.writer.close()

    def add(self, out: dict[str, Tensor], samples: int) -> None:
        """Take in what an objective has returned for a number of samples."""
        new = {k: v.detach().float() for k, v in out.items() if v.ndim == 0}
        counted = torch.zeros(2 * BUCKETS, device=out["loss"].device)
        if "timesteps" in out:
            bucket = (out["timesteps"] * BUCKETS // TIMESTEPS).clamp(0, BUCKETS - 1)
            values = torch.cat([out["errors"].float(), torch.ones_like(out["errors"], dtype=torch.float32)])
            counted.index_add_(0, torch.cat([bucket, bucket + BUCKETS]), values)
        new |= {_COUNTED: counted, _SAMPLES: torch.tensor(float(samples), device=counted.device)}
        self.sums = {k: self.sums.get(k, 0) + v for k, v in new.items()}
        self.batches += 1

    def write(self, step: int, accelerator, learning_rate: float) -> None:
        """Write what has been collected, and begin anew. Every process must call it.

        Raises:
            FloatingPointError: if the loss is no longer a number.
        """
        sums = {k: accelerator.reduce(v) for k, v in sorted(self.sums.items())}
        errors, counts = sums.pop(_COUNTED).split(BUCKETS)
        samples = int(sums.pop(_SAMPLES).item())
        means = {k: v.item() / (self.batches * self.world) for k, v in sums.items()}
        now = time.monotonic()
        elapsed, self.since, self.sums, self.batches = now - self.since, now, {}, 0
        if not math.isfinite(means["loss"]):
            raise FloatingPointError(
                f"The loss is {means['loss']} at step {step}. The states in {self.folder} are older: start a new folder from "
                "the file exported there, with a lower learning rate, or bf16 instead of fp16."
            )
        if not self.writer:
            return
        figures = {f"loss/{k}": v for k, v in means.items()} | {"learning rate": learning_rate}
        for i in counts.nonzero().flatten().tolist():
            width = TIMESTEPS // BUCKETS
            figures[f"error by timestep/{i * width:03d}-{(i + 1) * width - 1:03d}"] = (errors[i] / counts[i]).item()
        note = "  ".join(f"{k} {v:.4f}" for k, v in means.items())
        figures["images per second"] = samples / elapsed
        self.progress.at(step, f"{samples / elapsed:.1f} images/s  {note}")
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def picture(self, step: int, picture: Tensor) -> None:
        """Keep a sheet of samples `[3, H, W]` in 0..1, as a file and in TensorBoard; only in the process that writes."""
        from PIL import Image

        assert self.writer is not None, "another process writes"

        picture = picture.detach().float().cpu().clamp(0, 1)
        self.writer.add_image("samples", picture, step)
        path = self.folder / "samples" / f"{step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((picture.permute(1, 2, 0) * 255).round().byte().numpy()).save(path)
