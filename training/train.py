"""A prepared training set in, a CapFace out: `python tasks.py train SET OUT --base v1-5-pruned-emaonly.safetensors`.

The same command goes on where a run was stopped. OUT/capface.safetensors, written whenever the state is, loads in Load CapFace
as it is; OUT/logs is TensorBoard's, OUT/samples holds sheets of portraits. `--identity none` trains a head-control model, pi*.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from ..errors import BadInput, CapFaceError
from ..flame.io import load_flame
from ..models.diffusion import load_capface
from .base_model import Base, load_base
from .dataset import TrainingSet
from .export import write_capface
from .feed import PhotoData
from .loop import LoopSettings, train
from .objective import DRAWN, IDENTITY, CapFaceObjective, ObjectiveSettings, TrainedCapFace, recompute_activations
from .sample_sheet import Preview
from .schedule import BETAS, WEIGHTS, NoiseSchedule

FILE = "capface.safetensors"
LOSS = {
    "weighting": ("how much each timestep's noise error counts", {"choices": list(WEIGHTS)}),
    "mask_weight": ("lambda, weight of the mask's error", {}),
    "identity": ("identity features that are used; none trains a head-control model", {"choices": list(IDENTITY)}),
    "tau": (f"ID dropout: timestep beyond which identity is dropped, 1000 for never, or {DRAWN!r} for each sample", {}),
    "identity_dropout": ("share of samples without identity", {}),
    "text_dropout": ("share of samples without text", {}),
}
LOOP = {
    "steps": "steps in all",
    "accumulate": "batches a step",
    "learning_rate": "of AdamW",
    "weight_decay": "of AdamW",
    "warmup": "steps until the learning rate is reached",
    "decay": "what the learning rate does then: constant or cosine",
    "clip": "largest norm of the gradient, 0 for any",
    "average": "decay of the weights' moving average, which is exported; 0 for none",
    "seed": "of everything",
    "save_every": "steps between states",
    "log_every": "steps between lines",
    "sample_every": "steps between sheets of samples, 0 for none",
    "minutes": "save and end after so long",
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path, help="folder that prepare has made")
    parser.add_argument("out", type=Path, help="folder of this run; the same one goes on where it was stopped")
    parser.add_argument("--base", type=Path, required=True, metavar="FILE", help="any Stable Diffusion 1.x checkpoint")
    parser.add_argument("--start", type=Path, metavar="FILE", help="CapFace to start from, instead of the base's encoder")
    parser.add_argument("--head", type=Path, metavar="FILE", help="FLAME, where the set's heads are FLAME's")
    parser.add_argument("--size", type=int, default=512, help="side of the pictures in pixels (default: %(default)s)")
    parser.add_argument("--schedule", choices=list(BETAS), default="scaled_linear", help="the base's (default: %(default)s)")
    parser.add_argument(
        "--other-reference", type=float, default=0.0, metavar="SHARE",
        help="share of samples whose identity is read from another photo of the person (default: %(default)s)",
    )  # fmt: skip
    loss = parser.add_argument_group("loss")
    for field in fields(ObjectiveSettings):
        what, more = LOSS[field.name]
        kind = _tau if field.name == "tau" else type(field.default)
        loss.add_argument(_flag(field.name), type=kind, default=field.default, help=f"{what} (default: %(default)s)", **more)
    run = parser.add_argument_group("run")
    run.add_argument("--batch", type=int, default=16, help="samples of a process at once (default: %(default)s)")
    for field in fields(LoopSettings):
        if field.name in LOOP:
            kind = float if field.name == "minutes" else type(field.default)
            run.add_argument(
                _flag(field.name), type=kind, default=field.default, help=f"{LOOP[field.name]} (default: %(default)s)"
            )
    run.add_argument("--precision", choices=("no", "bf16", "fp16"), help="mixed precision (default: bf16 where a GPU has it)")
    run.add_argument("--recompute", action="store_true", help="save memory: compute activations twice")
    run.add_argument("--workers", type=int, default=4, help="processes that read and render ahead (default: %(default)s)")
    run.add_argument("--cpu", action="store_true", help="stay on the CPU")
    run.add_argument("--half", action="store_true", help="export in half precision")
    run.add_argument("--people", type=int, default=4, help="people on a sheet of samples (default: %(default)s)")
    run.add_argument("--guidance", type=float, default=7.0, help="of the samples (default: %(default)s)")
    return parser.parse_args(arguments)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _tau(text: str) -> float | str:
    return text if text == DRAWN else float(text)


def run(options: argparse.Namespace) -> Path:
    """Train, or go on; returns the exported file.

    Raises:
        CapFaceError: A file is not what it should be, settings are out of range, or others than those of the run to go on with.
    """
    gpu = torch.cuda.is_available() and not options.cpu
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if gpu else "cpu")
    precision = options.precision or ("bf16" if gpu and torch.cuda.is_bf16_supported() else "no")
    loss = ObjectiveSettings(**{f.name: getattr(options, f.name) for f in fields(ObjectiveSettings)})
    loop = LoopSettings(**{name: getattr(options, name) for name in LOOP}, precision=precision)
    head = load_flame(options.head) if options.head else None
    samples = TrainingSet(
        options.set, size=options.size, head_model=head, other_reference=options.other_reference, seed=loop.seed
    )
    base = load_base(options.base).to(device)
    torch.manual_seed(loop.seed)  # the layers that do not come from the base
    trained = start(base, samples, options.start).to(device)
    if gpu:
        torch.set_float32_matmul_precision("high")
        if precision != "no":
            base.denoiser.to({"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
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
        said = {"steps": str(step), "seed": str(loop.seed), "settings": json.dumps(asdict(loop) | about)}
        write_capface(target, averaged, dtype=torch.float16 if options.half else None, about=said)

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
    """What is trained: made of the base's encoder, for the features that the samples have, or read from a file.

    Raises:
        BadInput: if the file was made for another base, or for other features.
    """
    first: dict[str, Any] = samples[0]
    widths = {name: first[key].shape[-1] for name, key in (("local_width", "local"), ("global_width", "global"))}
    if file is None:
        return TrainedCapFace.from_denoiser(base.denoiser, **widths)
    network, tokens = load_capface(file)
    trained = TrainedCapFace.from_denoiser(base.denoiser, **widths, hint_widths=network.config.hint_widths)
    theirs = (network.config, tokens.img_linear.in_features, tokens.id_linear.in_features)
    ours = (trained.capface.config, *widths.values())
    if theirs != ours:
        raise BadInput(f"{file.name} has the sizes {theirs}, but this base and this training set need {ours}.")
    trained.capface.load_state_dict(network.state_dict())
    trained.tokens.load_state_dict(tokens.state_dict())
    return trained


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    options = parse(arguments)
    try:
        target = run(options)
    except (CapFaceError, FloatingPointError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from the last state.", file=sys.stderr)
        return 130
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"{target}: copy it into ComfyUI's models/capface, under a name of your own.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
