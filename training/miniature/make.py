"""Trains the miniature from scratch: `python tasks.py miniature --processes 2`.

It renders the pictures, trains every stage and writes miniature/miniature.safetensors. The folder keeps the state, and the
same command resumes from it. Seeds are fixed: the same command on the same machine gives the same file. With `--tables`
or `--ablations`, `tasks.py` starts experiments/miniature_tables/run.py instead, which evaluates the file as well.
"""

import argparse
import atexit
import platform
import sys
import time
from pathlib import Path
from typing import NamedTuple, TypedDict

import torch

from ...files.atomic import write_atomically
from ...miniature.networks import MINIATURE_FILE, Miniature
from ..objective import TrainedCapFace
from .scenes import SceneSet, processes
from .train_autoencoder import train_autoencoder
from .train_capface import People, train_capface
from .train_denoiser import MiniatureBase, Prompts, latents_of, train_denoiser
from .train_evaluator import train_evaluator
from .train_recognizer import CachedFeatures, train_recognizer

STEPS = {
    "autoencoder": 5000, "recognizer": 3500, "judge": 4000,
    "denoiser": 2400, "capface": 2800, "capface-2": 2000, "denoiser-2": 4000, "capface-3": 2000,
}  # fmt: skip
"""Steps of each stage; `--effort` scales them. A stage with a number continues the network of that name."""
SEEDS = {
    "autoencoder": 1, "recognizer": 2, "judge": 11,
    "denoiser": 3, "capface": 4, "capface-2": 104, "denoiser-2": 103, "capface-3": 204,
}  # fmt: skip
PEOPLE, VIEWS = 1400, 8


class Length(TypedDict):
    """Number of steps and seed of a stage."""

    steps: int
    seed: int


class Clock:
    """Duration of a training run, including the runs that it resumes."""

    def __init__(self, file: Path):
        """Continue from the minutes in a file."""
        self._file, self._begun = file, time.monotonic()
        self._before = float(file.read_text()) if file.exists() else 0.0

    def minutes(self) -> float:
        """Return the minutes so far."""
        return self._before + (time.monotonic() - self._begun) / 60

    def write(self) -> None:
        """Write the minutes to the file."""
        write_atomically(self._file, lambda part: part.write_text(f"{self.minutes():.2f}"))


class Trained(NamedTuple):
    """The trained networks that an experiment continues, and their data."""

    people: People
    base: MiniatureBase
    capface: TrainedCapFace
    steps: dict[str, int]
    """Steps of each stage, scaled by the effort."""


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser("miniature", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=Path("output/miniature"), help="folder for states (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=MINIATURE_FILE, help="the file to write (default: miniature/miniature.safetensors)"
    )
    parser.add_argument("--people", type=int, default=PEOPLE, help="people to train on (default: %(default)s)")
    parser.add_argument("--views", type=int, default=VIEWS, help="pictures of each (default: %(default)s)")
    parser.add_argument("--effort", type=float, default=1.0, help="factor of every stage's steps (default: %(default)s)")
    return parser


def main(arguments: list[str]) -> int:
    """Make the miniature and return the exit status."""
    make_miniature(command_line().parse_args(arguments))
    return 0


def make_miniature(options: argparse.Namespace) -> Trained:
    """Render the pictures, train every stage and write the file.

    Args:
        options: The options of `command_line`.

    Raises:
        BadInput: The folder for the pictures holds other files.
    """
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    torch.set_num_threads(max(processes() // state.num_processes, 1))
    steps = {name: max(round(count * options.effort), 1) for name, count in STEPS.items()}

    def length(name: str) -> Length:
        return {"steps": steps[name], "seed": SEEDS[name]}

    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    clock = Clock(folder / "minutes.txt")
    if state.is_main_process:
        atexit.register(clock.write)
    with state.main_process_first():
        scenes = SceneSet(folder / "pictures", range(options.people), options.views, processes())

    features = CachedFeatures(scenes)
    autoencoder = train_autoencoder(scenes, folder, **length("autoencoder"))
    recognizer = train_recognizer(features, folder, **length("recognizer"))
    latents, prompts = latents_of(scenes, autoencoder), Prompts(scenes)
    people = People.encode(scenes, latents, prompts, recognizer)
    base = train_denoiser(prompts, latents, folder, "denoiser", **length("denoiser"))
    trained = train_capface(people, base, folder, "capface", **length("capface"), rate=1e-3)
    trained = train_capface(people, base, folder, "capface-2", **length("capface-2"), rate=5e-4, start=trained)
    base = train_denoiser(prompts, latents, folder, "denoiser-2", **length("denoiser-2"), start=base)
    trained = train_capface(people, base, folder, "capface-3", **length("capface-3"), rate=5e-4, start=trained)
    evaluator = train_evaluator(features, autoencoder, folder, **length("judge"))
    miniature = Miniature(base.denoiser, trained.capface, trained.tokens, recognizer, base.words, autoencoder, evaluator)
    about = {
        "format": "pt",
        "model": "CapFace miniature",
        "trained_on": f"{options.people} synthetic people, {options.views} pictures of each",
        "steps": ", ".join(f"{name} {count}" for name, count in steps.items()),
        "seeds": ", ".join(f"{name} {seed}" for name, seed in SEEDS.items()),
        "processes": str(state.num_processes),
        "machine": f"{platform.processor() or platform.machine()}, {processes()} cores, torch {torch.__version__}",
        "minutes": f"{clock.minutes():.0f}",
    }
    if state.is_main_process:
        write_atomically(options.out, lambda part: miniature.save(part, about))
        clock.write()
        atexit.unregister(clock.write)  # an experiment that follows is not part of the duration
        print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB", flush=True)
    return Trained(people, base, trained, steps)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
