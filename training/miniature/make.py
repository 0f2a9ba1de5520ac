"""Trains the miniature from nothing: `python tasks.py miniature --processes 2`.

Draws the pictures, trains every stage and writes miniature/miniature.safetensors. What is done is kept in the folder, and
the same command goes on from there. Seeds are fixed: the same command on the same machine gives the same file.
"""

import argparse
import atexit
import platform
import sys
import time
from pathlib import Path
from typing import TypedDict

import torch

from ...files.atomic import write_atomically
from ...miniature.networks import HELD_OUT, PATH, Miniature, load_miniature
from .scenes import SceneSet, processes
from .tables import ABLATIONS, print_pose_predicted, print_tables
from .train_autoencoder import train_autoencoder
from .train_capface import People, train_capface
from .train_denoiser import Prompts, latents_of, train_denoiser
from .train_evaluator import train_evaluator
from .train_recognizer import CachedFeatures, train_recognizer

STEPS = {
    "autoencoder": 5000, "recognizer": 3500, "judge": 4000,
    "denoiser": 2400, "capface": 2800, "capface-2": 2000, "denoiser-2": 4000, "capface-3": 2000,
}  # fmt: skip
"""Steps of each stage; `--effort` scales them. Those with a number go on with the network of that name."""
ABLATION = 4
"""A network for rows of the tables goes on from the trained one for `capface` steps divided by this."""
SEEDS = {
    "autoencoder": 1, "recognizer": 2, "judge": 11,
    "denoiser": 3, "capface": 4, "capface-2": 104, "denoiser-2": 103, "capface-3": 204,
}  # fmt: skip
PEOPLE, VIEWS = 1400, 8


class Length(TypedDict):
    """How long a stage is trained, and from which seed."""

    steps: int
    seed: int


class Clock:
    """How long a training has taken, over all runs that went on with it."""

    def __init__(self, file: Path):
        """Go on from what the file says."""
        self._file, self._begun = file, time.monotonic()
        self._before = float(file.read_text()) if file.exists() else 0.0

    def minutes(self) -> float:
        """Until now."""
        return self._before + (time.monotonic() - self._begun) / 60

    def write(self) -> None:
        """Write it down."""
        self._file.write_text(f"{self.minutes():.2f}")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("miniature", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("output/miniature"), help="where states lie (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=PATH, help="the file to write (default: miniature/miniature.safetensors)")
    parser.add_argument("--people", type=int, default=PEOPLE, help="people to train on (default: %(default)s)")
    parser.add_argument("--views", type=int, default=VIEWS, help="pictures of each (default: %(default)s)")
    parser.add_argument("--effort", type=float, default=1.0, help="factor of every stage's steps (default: %(default)s)")
    parser.add_argument("--tables", type=int, default=0, metavar="N", help="print the tables for N people kept from training")
    parser.add_argument("--ablations", action="store_true", help="train the networks of the tables' rows apart as well")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run all of it."""
    from accelerate import PartialState

    options = parse(arguments)
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
        atexit.unregister(clock.write)  # what follows is not part of making it
        print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB", flush=True)
    if not options.tables:
        return 0
    apart = {}
    short = {"steps": max(steps["capface"] // ABLATION, 1), "seed": SEEDS["capface"], "rate": 1e-3, "start": trained}
    for name, conditions in ABLATIONS.items() if options.ablations else ():
        apart[name] = train_capface(people, base, folder, f"capface-{name}", conditions, **short)
    if state.is_main_process:
        torch.set_num_threads(processes())  # the others have ended
        print_pose_predicted(people)
        print_tables(load_miniature(options.out), apart, range(HELD_OUT, HELD_OUT + options.tables))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
