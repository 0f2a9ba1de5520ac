"""Files that are trained for a person before their images: what a method's `person` asks for, and how a worker makes one."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .people import Person

TRAININGS = {"lora": "loras", "word": "embeddings", "whole": "checkpoints"}
"""What can be trained, and the folder of models that its file goes into."""
MINIATURE = "miniature"
"""Base of people that are trained on the miniature."""
LORA, CHECKPOINT, WORD = "@lora", "@checkpoint", "{word}"
"""Marks of the nodes that load a file, and what stands for a learned word in a method's subject."""
OPTIONS: dict[str, Any] = {
    "steps": int, "learning_rate": (int, float), "rank": int, "alpha": (int, float), "vectors": int, "start": str, "batch": int,
    "size": int, "average": (int, float), "text": bool, "caption": str, "precision": str, "recompute": bool,
}  # fmt: skip
"""Options of `tasks.py person` that a manifest may set, and their types."""
MODULE = f"{__name__.rpartition('.iphc.')[0]}.training.persons.train"


class TrainingFailed(Exception):
    """A person's file cannot be made; its images are failures."""


@dataclass(frozen=True)
class PersonFile:
    """What is trained for each person of a method."""

    train: str
    """One of `TRAININGS`."""
    base: str
    """Name of the checkpoint, or `MINIATURE`."""
    subject: str
    """What the person is called in the caption."""
    options: tuple[tuple[str, Any], ...] = ()
    """Further options of the training, by their names in `OPTIONS`."""

    @property
    def mark(self) -> str | None:
        """The mark of the node that loads the file; None for a word, which the prompt names."""
        if self.train == "word":
            return None
        return LORA if self.train == "lora" or self.base == MINIATURE else CHECKPOINT

    @property
    def folder(self) -> str:
        """The folder of models that the file goes into."""
        return "loras" if self.mark == LORA else TRAININGS[self.train]

    def arguments(self) -> list[str]:
        """Return the options of `tasks.py person`, without photo, folder, base and seed."""
        found = ["--method", self.train]
        if self.train != "word":
            found += ["--subject", self.subject]
        for name, value in self.options:
            flag = f"--{name.replace('_', '-')}"
            found += [flag] * value if isinstance(value, bool) else [flag, str(value)]
        return found


def mistakes(asked: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is wrong with a method's `person`: paths in it and texts."""
    if asked.get("train") not in TRAININGS:
        yield ("train",), f"expected one of {', '.join(TRAININGS)}, got {asked.get('train')!r}"
    if "base" in asked and asked["base"] != MINIATURE:
        yield ("base",), f"expected '{MINIATURE}', or no base for the checkpoint of the sampling; got {asked['base']!r}"
    for name, value in asked.items():
        if name in ("train", "base"):
            continue
        if name not in OPTIONS:
            yield (name,), f"unknown key. There are: train, base, {', '.join(OPTIONS)}"
        elif not isinstance(value, OPTIONS[name]) or isinstance(value, bool) != (OPTIONS[name] is bool):
            yield (name,), f"expected a value as `tasks.py person` takes for --{name.replace('_', '-')}, got {value!r}"


def file_name(method: str, person: Person) -> str:
    """Return the name of a person's file without its extension.

    Args:
        method: The method's name as a folder.
        person: The person.
    """
    return f"{method}-{person.name}"


class Trainer:
    """Trains the people of a worker, one at a time, and keeps the last one's file."""

    def __init__(self, folders: Sequence[Path] = (), *, cpu: bool = False, device: str = "", module: str = MODULE):
        """Prepare; nothing is written before the first training.

        Args:
            folders: Folders laid out like ComfyUI's `models`, in which the base is searched for.
            cpu: Train on the CPU.
            device: Number of the GPU, or "" for any.
            module: The module that trains, called as `tasks.py person` is.
        """
        self.folders, self.cpu, self.device, self.module = folders, cpu, device, module
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._made: tuple[tuple[PersonFile, str], Path | TrainingFailed] | None = None

    def file(self, asked: PersonFile, name: str, photo: Callable[[Path], Path], seed: int) -> Path:
        """Return a person's file, and train the person if it is not the last one's.

        Args:
            asked: What is trained.
            name: Name of the file without its extension.
            photo: Returns the person's photo; it may write one to the folder that it gets.
            seed: Seed of the training.

        Raises:
            TrainingFailed: The training failed, now or before, or the base is missing.
        """
        if self._made is None or self._made[0] != (asked, name):
            self.close()
            try:
                made: Path | TrainingFailed = self._train(asked, name, photo, seed)
            except TrainingFailed as error:
                made = error
            self._made = ((asked, name), made)
        if isinstance(self._made[1], TrainingFailed):
            raise self._made[1]
        return self._made[1]

    def close(self) -> None:
        """Remove the last person's file."""
        if self._folder is not None:
            self._folder.cleanup()
        self._folder = self._made = None

    def _train(self, asked: PersonFile, name: str, photo: Callable[[Path], Path], seed: int) -> Path:
        self._folder = tempfile.TemporaryDirectory(prefix="capface-person-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        command = [sys.executable, "-m", self.module, str(photo(folder)), str(folder / name), "--base", self._base(asked.base)]
        command += [*asked.arguments(), "--seed", str(seed), *["--cpu"] * self.cpu]
        environment = dict(os.environ, PYTHONSAFEPATH="1")
        if self.device:
            environment["CUDA_VISIBLE_DEVICES"] = self.device
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
        file = folder / name / f"{name}.safetensors"
        if done.returncode or not file.is_file():
            words = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
            raise TrainingFailed(f"The training of this person failed: {words}")
        return file

    def _base(self, name: str) -> str:
        """Return the path of a base by its name.

        Raises:
            TrainingFailed: There is none.
        """
        if name == MINIATURE:
            return name
        for folder in self.folders:
            if (path := folder / "checkpoints" / name).is_file():
                return str(path)
        places = ", ".join(str(folder / "checkpoints") for folder in self.folders)
        raise TrainingFailed(f"There is no checkpoint {name} to train on in {places}.")
