"""Measure the cost of training CapFace for Stable Diffusion 1.5: operations, memory, and the time of a step on this machine.

    python tasks.py bench training [--size 512] [--batch 16] [--steps 10] [--precision bf16] [--recompute]

The networks have SD1.5's full size and random weights; no files are needed. The operations of a sample (forward and backward)
are counted without executing them. The memory for weights and optimizer follows from the parameters. On a GPU, steps are timed
as in the training loop, without data loading and logs. On a CPU, a step takes 12 GB and minutes, so it is timed only on
request: --size 128 --batch 1 --steps 1.
"""

import argparse
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from capface.models.diffusion.denoiser import Denoiser, DenoiserConfig
from capface.training.batch import TrainingBatch
from capface.training.objective import CapFaceObjective, ObjectiveSettings, TrainedCapFace, recompute_activations
from capface.training.schedule import NoiseSchedule

parser = argparse.ArgumentParser()
parser.add_argument("--size", type=int, default=512, help="side of the pictures in pixels")
parser.add_argument("--batch", type=int, default=16)
parser.add_argument("--steps", type=int, default=10 * torch.cuda.is_available(), help="number of timed steps; 0 for none")
parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="bf16" if torch.cuda.is_available() else "no")
parser.add_argument("--recompute", action="store_true", help="compute activations twice, as train --recompute does")
parser.add_argument("--images", type=int, default=70_000, help="size of the training set for the estimate of an epoch")
options = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"
half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(options.precision)


def make(device):
    """Build base and CapFace of SD1.5's size on a device, with random weights."""
    with torch.device(device):
        base = Denoiser(DenoiserConfig())
        trained = TrainedCapFace.from_denoiser(base)
    return base.requires_grad_(False), trained.to(device)


def random_batch(batch, device):
    """Return random samples with the shapes of a batch."""
    h = options.size // 8
    shapes = {"latents": (batch, 4, h, h), "context": (batch, 77, 768), "null_context": (1, 77, 768)}
    shapes |= {"hint": (batch, 9, 8 * h, 8 * h), "mask": (batch, 1, 8 * h, 8 * h)}
    shapes |= {"local": (batch, 257, 1024), "global_": (batch, 1, 512)}
    return TrainingBatch(**{k: torch.rand(s, device=device) for k, s in shapes.items()})


def operations():
    """Return the floating-point operations of one sample, forward and backward."""
    base, trained = make("meta")
    one = random_batch(1, "meta")
    t = torch.zeros(1, device="meta")
    with FlopCounterMode(display=False) as counter:
        guided, mask = trained.capface.encode_hint(one.hint)
        residuals = trained.capface(one.latents, t, guided, trained.tokens(one.local, one.global_))
        (base(one.latents, t, one.context, residuals).sum() + mask.sum()).backward()
    return counter.get_total_flops(), base, trained


flops, base, trained = operations()
sizes = {"base": sum(p.numel() for p in base.parameters()), "CapFace": sum(p.numel() for p in trained.parameters())}
print(f"parameters: base {sizes['base'] / 1e6:.0f} M, trained {sizes['CapFace'] / 1e6:.0f} M")
print(f"arithmetic: {flops / 1e12:.2f} TFLOP a sample of {options.size} x {options.size}, forward and backward")
states = sizes["CapFace"] * 4 * 5  # weights, gradients, two moments, moving average, all in float32
frozen = sizes["base"] * (2 if half else 4)
print(f"memory: {states / 2**30:.1f} GiB for what is trained, {frozen / 2**30:.1f} GiB for the base; activations come on top")
if not options.steps:
    raise SystemExit

base, trained = make(device)
if half and device == "cuda":
    base.to(half)
    torch.set_float32_matmul_precision("high")
if options.recompute:
    recompute_activations(base, trained.capface)
objective = CapFaceObjective(base, trained, NoiseSchedule(), ObjectiveSettings())
optimizer = torch.optim.AdamW(trained.parameters(), 1e-4)
scaler = torch.GradScaler(device, enabled=options.precision == "fp16")
batch = random_batch(options.batch, device)
seconds = []
for step in range(options.steps + 1):
    start = time.perf_counter()
    with torch.autocast(device, half, enabled=half is not None):
        loss = objective(batch, torch.Generator().manual_seed(step))["loss"]
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    if device == "cuda":
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - start)
    print(f"step {step}: {seconds[-1]:.2f} s" + (" (warm-up)" if step == 0 else ""), flush=True)
step = statistics.median(seconds[1:])
rate = options.batch / step
name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
print(f"{name}, {options.precision}, batch {options.batch} at {options.size}: {step:.2f} s a step, {rate:.2f} samples/s")
print(
    f"{flops * rate / 1e12:.2f} TFLOP/s; an epoch of {options.images:,} samples takes {options.images / rate / 3600:.1f} hours"
)
if device == "cuda":
    print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
