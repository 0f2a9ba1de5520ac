"""Train a CapFace on a prepared training set: `python tasks.py train SET OUT --base v1-5-pruned-emaonly.safetensors`.

The same command resumes a run that was stopped. OUT/capface.safetensors, written together with each saved state, can be loaded
by the node Load CapFace. OUT/logs holds TensorBoard's logs, OUT/samples sheets of portraits. `--identity none` trains a
head-control model, pi*.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from ..errors import BadInput
from ..flame.io import load_flame
from ..models.diffusion import load_capface
from .base_model import Base, load_base
from .command import add_computing_options, attempt, computing, halve
from .dataset import TrainingSet
from .export import write_capface
from .feed import PhotoData
from .loop import LoopSettings, train
from .objective import IDENTITY_PARTS, RANDOM_TAU, CapFaceObjective, ObjectiveSettings, TrainedCapFace, recompute_activations
from .sample_sheet import Preview
from .schedule import BETAS, WEIGHTS, NoiseSchedule

FILE = "capface.safetensors"
"""Name of the exported file."""
LOSS: dict[str, tuple[str, dict[str, Any]]] = {
    "weighting": ("weight of each timestep's noise error", {"choices": list(WEIGHTS)}),
    "mask_weight": ("lambda, weight of the mask's error", {}),
    "identity": ("identity features that are used; none trains a head-control model", {"choices": list(IDENTITY_PARTS)}),
    "tau": (f"ID dropout: timestep beyond which identity is dropped; 1000 never drops it, {RANDOM_TAU!r} samples it", {}),
    "identity_dropout": ("fraction of samples without identity", {}),
    "text_dropout": ("fraction of samples without text", {}),
}
"""Help text and further options of each setting of the loss."""
LOOP = {
    "steps": "number of steps of the whole run",
    "accumulate": "batches per step",
    "learning_rate": "learning rate of AdamW",
    "weight_decay": "weight decay of AdamW",
    "warmup": "steps until the learning rate reaches its value",
    "decay": "course of the learning rate after the warm-up: constant or cosine",
    "clip": "largest norm of the gradient; 0 does not clip",
    "average": "decay of the moving average of the weights, which is exported; 0 does not average",
    "seed": "seed of all random numbers",
    "save_every": "steps between saved states",
    "log_every": "steps between lines of the log",
    "sample_every": "steps between sheets of samples; 0 makes no sheets",
    "minutes": "time after which the run saves its state and ends",
}
"""Help text of each setting of the loop that has an option."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser("train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path, help="training set that prepare has made")
    parser.add_argument("out", type=Path, help="folder of the run; an existing one is resumed")
    parser.add_argument("--base", type=Path, required=True, metavar="FILE", help="any Stable Diffusion 1.x checkpoint")
    parser.add_argument("--start", type=Path, metavar="FILE", help="CapFace to start from, instead of the base's encoder")
    parser.add_argument("--head", type=Path, metavar="FILE", help="FLAME's file, if the training set was made with FLAME")
    parser.add_argument("--size", type=int, default=512, help="side of the pictures in pixels (default: %(default)s)")
    parser.add_argument("--schedule", choices=list(BETAS), default="scaled_linear", help="the base's (default: %(default)s)")
    parser.add_argument(
        "--other-reference", type=float, default=0.0, metavar="FRACTION",
        help="fraction of samples whose identity comes from another photo of the person (default: %(default)s)",
    )  # fmt: skip
    loss = parser.add_argument_group("loss")
    for field in fields(ObjectiveSettings):
        text, more = LOSS[field.name]
        kind = _tau if field.name == "tau" else type(field.default)
        loss.add_argument(_flag(field.name), type=kind, default=field.default, help=f"{text} (default: %(default)s)", **more)
    run = parser.add_argument_group("run")
    run.add_argument("--batch", type=int, default=16, help="samples per batch of a process (default: %(default)s)")
    for field in fields(LoopSettings):
        if field.name in LOOP:
            kind = float if field.name == "minutes" else type(field.default)
            run.add_argument(
                _flag(field.name), type=kind, default=field.default, help=f"{LOOP[field.name]} (default: %(default)s)"
            )
    add_computing_options(run)
    run.add_argument("--workers", type=int, default=4, help="processes that read and render ahead (default: %(default)s)")
    run.add_argument("--half", action="store_true", help="export in half precision")
    run.add_argument("--people", type=int, default=4, help="people on a sheet of samples (default: %(default)s)")
    run.add_argument("--guidance", type=float, default=7.0, help="guidance scale of the samples (default: %(default)s)")
    return parser.parse_args(arguments)


def _flag(name: str) -> str:
    """Option of a setting."""
    return f"--{name.replace('_', '-')}"


def _tau(text: str) -> float | str:
    """Parse tau."""
    return text if text == RANDOM_TAU else float(text)


def run(options: argparse.Namespace) -> Path:
    """Train, or resume training, and return the path of the exported file.

    Args:
        options: The command line.

    Raises:
        CapFaceError: A file is missing or invalid, a setting is out of range, or the settings of a resumed run differ.
        FloatingPointError: The loss is NaN or infinite.
    """
    gpu, precision = computing(options)
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if gpu else "cpu")
    loss = ObjectiveSettings(**{f.name: getattr(options, f.name) for f in fields(ObjectiveSettings)})
    loop = LoopSettings(**{name: getattr(options, name) for name in LOOP}, precision=precision)
    head = load_flame(options.head) if options.head else None
    samples = TrainingSet(
        options.set, size=options.size, head_model=head, other_reference=options.other_reference, seed=loop.seed
    )
    base = load_base(options.base).to(device)
    torch.manual_seed(loop.seed)  # for the layers that are not copied from the base
    trained = start(base, samples, options.start).to(device)
    if gpu:
        torch.set_float32_matmul_precision("high")
        halve(base.denoiser, precision)
    if options.recompute:
        recompute_activations(base.denoiser, trained.capface)

    schedule = NoiseSchedule(options.schedule)
    data = PhotoData(samples, base, batch=options.batch, seed=loop.seed, workers=options.workers)
    about = asdict(loss) | {
        "base": f"{options.base.name}, {options.base.stat().st_size} bytes",
        "samples": len(samples),
        **{name: getattr(options, name) for name in ("size", "schedule", "other_reference", "batch")},
    }
    target = options.out / FILE

    def export(averaged: TrainedCapFace, step: int) -> None:
        metadata = {"steps": str(step), "seed": str(loop.seed), "settings": json.dumps(asdict(loop) | about)}
        write_capface(target, averaged, dtype=torch.float16 if options.half else None, about=metadata)

    preview = None
    if loop.sample_every and int(os.environ.get("RANK", 0)) == 0:
        people = PhotoData(samples, base, batch=options.people, seed=loop.seed)
        preview = Preview(
            base.denoiser, base.decode, next(people.batches(0, 0, 1)).to(device),
            identity=loss.identity, guidance=options.guidance, schedule=schedule, seed=loop.seed,
        )  # fmt: skip
    objective = CapFaceObjective(base.denoiser, trained, schedule, loss)
    train(objective, data, loop, options.out, about=about, cpu=not gpu, export=export, preview=preview)
    return target


def start(base: Base, samples: TrainingSet, file: Path | None) -> TrainedCapFace:
    """Create the networks to train.

    Args:
        base: The base model, whose encoder is copied.
        samples: The training set, for the sizes of its identity features.
        file: CapFace to start from; None starts from the base's encoder.

    Raises:
        BadInput: The file was made for another base or for other features.
    """
    first = samples[0]
    local_width, global_width = first["local"].shape[-1], first["global"].shape[-1]
    if file is None:
        return TrainedCapFace.from_denoiser(base.denoiser, local_width=local_width, global_width=global_width)
    network, tokens = load_capface(file)
    trained = TrainedCapFace.from_denoiser(
        base.denoiser, local_width=local_width, global_width=global_width, hint_widths=network.config.hint_widths
    )
    found = (network.config, tokens.img_linear.in_features, tokens.id_linear.in_features)
    expected = (trained.capface.config, local_width, global_width)
    if found != expected:
        raise BadInput(f"{file.name} has the sizes {found}, but this base and this training set need {expected}.")
    trained.capface.load_state_dict(network.state_dict())
    trained.tokens.load_state_dict(tokens.state_dict())
    return trained


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(arguments)
    target = attempt(run, options)
    if isinstance(target, int):
        return target
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"{target}: copy it into ComfyUI's models/capface, under a name of your choice.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
