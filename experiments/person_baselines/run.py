"""Makes the rows of the study: `python -m capface.experiments.person_baselines.run FOLDER`.

The part `choice` comes first: learning rates and numbers of steps are chosen on other people than those of the table, the part
`people`. The part `curve` trains the people of `choice` for longer. Every row is appended to rows.csv when it is made, and the
same command makes what is missing. FOLDER keeps the landmark control and its training. `report.py` writes the tables.
"""

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...miniature.networks import HELD_OUT, Miniature, load_miniature
from ...training.loop import LoopSettings
from ...training.miniature.portrait_sampler import Recipe, head_hint, make_portraits
from ...training.miniature.scenes import sample_scene
from ...training.persons.adaptation import Adaptation
from ...training.persons.plain import NAME, with_person
from ...training.persons.train import PersonSettings, train_person
from ...training.persons.tunable import TunableMiniature
from ..miniature_tables.tables import COLUMNS, Row, Trial, evaluate_row
from .choice import choose
from .landmark_control import train_landmark_control

ROWS = Path(__file__).with_name("rows.csv")
PORTRAITS = 4
"""Portraits of each person, by each method from the same noise: other views of the person than the photo."""
PARTS = {
    "choice": range(HELD_OUT + 1000, HELD_OUT + 1003),
    "people": range(HELD_OUT, HELD_OUT + 32),
}
"""The people of each part, all held out from the miniature's training."""
RATES = {"word": (3e-2, 1e-1), "lora": (2e-3, 5e-3), "whole": (1e-4, 3e-4, 1e-3)}
"""Learning rates that are tried."""
STEPS = {"word": (25, 50, 100, 200), "lora": (25, 50, 100), "whole": (25, 50, 100)}
"""Numbers of steps that are tried. The learning rate is constant, so that shorter runs are the beginnings of longer ones."""
LONGER = {"word": (400,), "lora": (200, 400), "whole": (200, 400)}
"""Further steps of the curve, at the chosen learning rate, for the people of `choice`. They do not take part in the choice."""
BATCH, AVERAGE, RANK = 4, 0.95, 16
NAMES = {"word": "textual inversion", "lora": "LoRA", "whole": "DreamBooth"}
UNTRAINED = {
    "drawn target": None,
    "head control": Recipe(parts=(0, 0)),
    "ControlNet": Recipe(parts=(0, 0), landmarks=True),
    "CapFace": Recipe(),
    "CapFace + pi*": Recipe(alpha=0.5),
}
"""Recipes of the rows that no person is trained for. `ControlNet` is the landmark control; the trained methods use it, too."""
SUBJECTS = {"word": f"embedding:{NAME}, "}
"""What comes before each prompt, by the trained method."""
MAPS = " + head control"
"""What follows the name of a trained method with the head maps in place of the landmarks: not in the paper's table."""
KEYS = ("part", "person", "method", "rate", "steps")
FIELDS = (*KEYS, *COLUMNS, "seconds")
"""Columns of rows.csv. `seconds` is the CPU time of training and portraits."""


class Key(NamedTuple):
    """What identifies a row."""

    part: str
    person: int
    method: str
    rate: float
    steps: int

    @classmethod
    def of(cls, row: dict[str, str]) -> "Key":
        """Read it from a line of the file."""
        return cls(row["part"], int(row["person"]), row["method"], float(row["rate"]), int(row["steps"]))


class Rows:
    """The rows made so far, in a CSV file."""

    def __init__(self, path: Path = ROWS):
        """Read the file, or begin one."""
        self.path = path
        if not path.exists():
            path.write_text(",".join(FIELDS) + "\n", encoding="utf-8")
        with path.open(encoding="utf-8", newline="") as file:
            self.lines = list(csv.DictReader(file))
        self.made = {Key.of(line) for line in self.lines}

    def add(self, key: Key, metrics: dict[str, Tensor], seconds: float) -> None:
        """Append the means of a person's portraits."""
        values = [f"{metrics[column].mean().item():.4f}" for column in COLUMNS]
        line = dict(zip(FIELDS, [*map(str, key[:3]), f"{key.rate:g}", str(key.steps), *values, f"{seconds:.1f}"], strict=True))
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, FIELDS, lineterminator="\n").writerow(line)
        self.lines.append(line)
        self.made.add(key)


@dataclass(frozen=True, eq=False)
class Study:
    """What all rows share."""

    miniature: Miniature
    landmarks: Miniature
    """The miniature with the landmark control in place of CapFace."""
    rows: Rows

    def portraits(self, person: int) -> Trial:
        """Return the inputs and the truth of a person's portraits: view 0 is the photo, the next ones are the targets."""
        targets = [sample_scene(person, view) for view in range(1, PORTRAITS + 1)]
        return Trial.of_scenes([sample_scene(person, 0)] * PORTRAITS, targets)

    def make(self, trial: Trial, person: int, recipe: Recipe | None, network: Miniature, subject: str = "") -> Tensor:
        """Make a person's portraits, `[PORTRAITS, 3, 128, 128]` in 0..1.

        Args:
            trial: From `portraits`.
            person: The person's number, the seed of the noise.
            recipe: One of `UNTRAINED`.
            network: The networks.
            subject: What comes before each prompt.
        """
        if recipe is None:
            return trial.truth
        prompts = [f"{subject}{prompt}" for prompt in trial.prompts]
        return make_portraits(network, head_hint(trial.heads, recipe.landmarks), prompts, trial.references, recipe, seed=person)

    @torch.no_grad()
    def evaluate(self, trial: Trial, person: int, name: str, recipe: Recipe | None, network: Miniature, subject: str = ""):
        """Make and measure a person's portraits: metrics `[PORTRAITS]`."""
        portraits = self.make(trial, person, recipe, network, subject)
        return evaluate_row(Row("1", name, recipe), trial, portraits, self.miniature)

    def untrained(self, part: str, person: int, names: Iterable[str]) -> None:
        """Make the rows of the methods that need no training."""
        missing = [name for name in names if Key(part, person, name, 0, 0) not in self.rows.made]
        trial = self.portraits(person) if missing else None
        for name in missing:
            assert trial is not None
            begun = time.process_time()
            network = self.landmarks if name == "ControlNet" else self.miniature
            metrics = self.evaluate(trial, person, name, UNTRAINED[name], network)
            self.rows.add(Key(part, person, name, 0, 0), metrics, time.process_time() - begun)

    def trained(self, part: str, person: int, method: str, rate: float, steps: tuple[int, ...]) -> None:
        """Train a person and make the rows at these numbers of steps."""
        controls = {"": ("ControlNet", self.landmarks)}
        if part == "people":
            controls[MAPS] = ("head control", self.miniature)
        keys = {Key(part, person, f"{method}{mark}", rate, count): (count, mark) for count in steps for mark in controls}
        if self.rows.made.issuperset(keys):
            return
        trial = self.portraits(person)
        begun = time.process_time()
        files = train(trial.references[:1], person, method, rate, steps)
        seconds = time.process_time() - begun
        subject = SUBJECTS.get(method, "")
        for key, (count, mark) in keys.items():
            if key not in self.rows.made:
                begun = time.process_time()
                name, miniature = controls[mark]
                network = with_person(miniature, files[count])
                metrics = self.evaluate(trial, person, key.method, UNTRAINED[name], network, subject)
                spent = seconds * count / max(steps) + time.process_time() - begun
                self.rows.add(key, metrics, spent)


def train(photo: Tensor, person: int, method: str, rate: float, steps: tuple[int, ...]) -> dict[int, dict[str, Tensor]]:
    """Train a person on the photo `[1, 3, 128, 128]` in -1..1; return the tensors of the file after each number of steps."""
    base = TunableMiniature()
    scene = sample_scene(person, 0)
    caption = ", ".join([*scene.setting.words(), *([f"lit from {scene.light}"] if scene.light else [])])
    settings = PersonSettings(
        method=method,
        captions=(f"{{}}, {caption}" if method == "word" else caption,),
        rank=RANK,
        batch=BATCH,
        weighting=base.weighting,
    )
    every = min(steps)
    loop = LoopSettings(
        steps=max(steps), learning_rate=rate, warmup=0, average=AVERAGE, seed=person, save_every=every, log_every=max(steps),
        sample_every=0,
    )  # fmt: skip
    files: dict[int, dict[str, Tensor]] = {}

    def export(averaged: Adaptation, count: int) -> None:
        if count in steps:
            files[count] = {key: tensor.clone() for key, tensor in averaged.file(base).items()}

    with tempfile.TemporaryDirectory() as folder:
        train_person(base, photo, settings, loop, Path(folder), cpu=True, export=export)
    if max(steps) not in files:
        sys.exit("The training was stopped. Run the same command to go on.")
    return files


def open_study(folder: Path) -> Study:
    """Load the networks and the rows, and train the landmark control if the folder does not hold it."""
    miniature = load_miniature()
    control = train_landmark_control(miniature, folder).eval().requires_grad_(False)
    return Study(miniature, replace(miniature, capface=control), Rows())


def work(study: Study) -> Iterator[str]:
    """Make all rows, and yield after each piece of work what it was."""
    for person in PARTS["choice"]:
        study.untrained("choice", person, UNTRAINED)
        for method, rates in RATES.items():
            for rate in rates:
                study.trained("choice", person, method, rate, STEPS[method])
                yield f"choice: {person} {method} {rate:g}"
    for person in PARTS["people"]:
        study.untrained("people", person, UNTRAINED)
        for method in RATES:
            rate, steps = choose(study.rows.lines, method)
            study.trained("people", person, method, rate, (steps,))
            yield f"people: {person} {method} {rate:g} {steps}"
    for person in PARTS["choice"]:
        for method in RATES:
            study.trained("curve", person, method, choose(study.rows.lines, method)[0], LONGER[method])
            yield f"curve: {person} {method}"


def main(arguments: list[str]) -> int:
    """Run the study and return the exit status: 0 all rows are made, 3 the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for the landmark control and its training")
    parser.add_argument("--minutes", type=float, default=1e9, help="end after this time, when a piece of work is done")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    study = open_study(options.folder)
    for done in work(study):
        print(done, flush=True)
        if time.monotonic() > end:
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
