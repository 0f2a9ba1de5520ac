"""A worker: it owns one ComfyUI, makes units with it, and starts it again when it is lost."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ..tools.comfy import PACK, HostLost
from .comfy_host import ComfyHost, HostSettings, ImageFailed, Made, RunStopped, pack_content
from .ledger import FAILED, MADE, Row, pixel_hash
from .manifest import Manifest
from .people import synthetic_photo
from .person_files import Trainer, TrainingFailed, file_name
from .units import Job, Unit, output_of, training_seed, workflow_of
from .workflow import Workflow, marked

TRIES = 3
"""An image during which ComfyUI was lost this many times is a failure."""
POISONED = 2
"""A unit with this many such images is not continued: the rest of its images are failures, too."""
STARTS = 2
"""A worker whose ComfyUI did not start this many times in succession gives up."""


class Host(Protocol):
    """What a worker needs of a ComfyUI."""

    @property
    def environment(self) -> dict[str, Any]:
        """The software and device."""
        ...

    def nodes(self) -> dict[str, Any]:
        """Return the host's description of its nodes, by class."""
        ...

    def photo(self, path: Path, content: str) -> str:
        """Return the name of a photo in the host."""
        ...

    def place(self, file: Path, folder: str) -> None:
        """Give the host a model file, in a folder of its own models."""
        ...

    def make(self, workflow: Workflow, output: str) -> Made:
        """Make an image."""
        ...

    def close(self) -> None:
        """End the process."""
        ...


class Worker:
    """Makes units, one after the other."""

    def __init__(
        self,
        manifest: Manifest,
        settings: HostSettings | None,
        *,
        name: str = "0",
        keep: bool = True,
        expected: dict[str, Any] | None = None,
        open_host: Callable[[HostSettings], Host] = ComfyHost,
        on_image: Callable[[Row], None] = lambda row: None,
    ):
        """Prepare a worker; ComfyUI starts with the first image that needs it.

        Args:
            manifest: The manifest.
            settings: How to start ComfyUI; None if no method needs one.
            name: Name of the worker in the rows.
            keep: Whether rows hold the images' files.
            expected: The environment of images that exist already; any other stops the run.
            open_host: Starts a host.
            on_image: Gets each row as soon as it is made.
        """
        self.manifest, self.settings, self.name, self.keep = manifest, settings, name, keep
        self.expected, self.open_host, self.on_image = expected, open_host, on_image
        self.trainer = Trainer()
        if settings is not None:
            folders = (*map(Path, settings.models), Path(settings.comfyui) / "models")
            self.trainer = Trainer(folders, cpu=settings.cpu, device=settings.device)
        self.host: Host | None = None
        self.environment: dict[str, Any] | None = None
        self.starts = 0
        """How often ComfyUI was started."""

    def make(self, unit: Unit) -> list[Row]:
        """Make a unit.

        Returns:
            A row for each image. Failures are rows, too.

        Raises:
            RunStopped: The run cannot go on: ComfyUI does not start, its disk is full, or it is another one than before.
        """
        rows: list[Row] = []
        poisoned = 0
        for job in unit.jobs:
            if poisoned >= POISONED:
                row = self._row(
                    unit, job, FAILED, f"not tried: ComfyUI was lost {TRIES} times in each of {POISONED} images before"
                )
            elif unit.method.workflow is None:
                row = self._read(unit, job)
            else:
                row = self._make(unit, job)
                poisoned += row.status == FAILED and row.tries >= TRIES
            rows.append(row)
            self.on_image(row)
        return rows

    def close(self) -> None:
        """End ComfyUI, and remove what was trained."""
        self._end_host()
        self.trainer.close()

    def _end_host(self) -> None:
        if self.host is not None:
            self.host.close()
            self.host = None

    def _make(self, unit: Unit, job: Job) -> Row:
        """Make an image, and start ComfyUI again if it is lost meanwhile."""
        reason = ""
        for attempt in range(1, TRIES + 1):
            try:
                trained = self._trained(unit)
                host = self.start()
                person = unit.person
                if trained is not None:
                    host.place(*trained)
                photo = person.synthetic if person.photo is None else host.photo(person.photo, person.content)
                assert photo is not None
                made = host.make(workflow_of(self.manifest, unit, job, photo), output_of(unit.method))
                return self._made(unit, job, made, attempt)
            except (ImageFailed, TrainingFailed) as error:
                return self._row(unit, job, FAILED, str(error), tries=attempt)
            except HostLost as error:
                reason = str(error)
                self._end_host()
        return self._row(unit, job, FAILED, f"ComfyUI was lost {TRIES} times with this image. {reason}", tries=TRIES)

    def _trained(self, unit: Unit) -> tuple[Path, str] | None:
        """Return the file that is trained for a unit's person with its folder of models, or None.

        Raises:
            TrainingFailed: It cannot be made.
        """
        asked, workflow = unit.method.person, unit.method.workflow
        if asked is None:
            return None
        assert workflow is not None
        node = workflow[marked(workflow, "@photo")[0]]["inputs"]

        def photo(folder: Path) -> Path:
            number = unit.person.synthetic
            if number is not None:
                return synthetic_photo(number, node, folder)
            assert unit.person.photo is not None
            return unit.person.photo

        name, seed = file_name(unit.method.slug, unit.person), training_seed(self.manifest, unit.person)
        return self.trainer.file(asked, name, photo, seed), asked.folder

    def _read(self, unit: Unit, job: Job) -> Row:
        """Take an image from a method's folder."""
        path = Path(unit.method.images.format(person=unit.person.name, prompt=job.prompt, head=job.head, image=job.image))
        start = time.monotonic()
        try:
            return self._made(unit, job, Made(path.read_bytes(), time.monotonic() - start), 1)
        except OSError as error:
            return self._row(unit, job, FAILED, f"the image cannot be read ({error.strerror or error})\n{path}")

    def _made(self, unit: Unit, job: Job, made: Made, attempt: int) -> Row:
        try:
            pixels = pixel_hash(made.file)
        except (OSError, ValueError) as error:
            return self._row(unit, job, FAILED, f"not an image: {error}", tries=attempt)
        return self._row(
            unit, job, MADE, tries=attempt, pixels=pixels, file=made.file if self.keep else None, bytes=len(made.file),
            seconds=made.seconds, ran=made.ran,
        )  # fmt: skip

    def _row(self, unit: Unit, job: Job, status: str, reason: str = "", **more: Any) -> Row:
        identity = environment_id(self.environment) if unit.method.workflow is not None and self.environment else ""
        return Row(
            unit.name, unit.method.name, unit.person.name, job.prompt, job.head, job.image, job.seed, status, reason,
            worker=self.name, environment=identity, **more,
        )  # fmt: skip

    def start(self) -> Host:
        """Return the running host, or start one.

        Raises:
            RunStopped: It does not start, or it is another one than expected.
        """
        for failed in range(1, STARTS + 1):
            if self.host is not None:
                break
            if self.settings is None:
                raise RunStopped("This manifest needs a ComfyUI: name one with --comfyui PATH.")
            try:
                self.host = self.open_host(self.settings)
                self.starts += 1
            except HostLost as error:
                if failed == STARTS:
                    raise RunStopped(f"ComfyUI did not start {STARTS} times. {error}") from None
        assert self.host is not None
        if self.environment is None:
            self.environment = self.host.environment | {"CapFace": pack_content(PACK)}
        check_environment(self.expected, self.environment)
        return self.host


def environment_id(environment: dict[str, Any]) -> str:
    """Return a short name of an environment."""
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:12]


def check_environment(expected: dict[str, Any] | None, found: dict[str, Any]) -> None:
    """Refuse to add images to those of another environment.

    Raises:
        RunStopped: Something differs; the message names it.
    """
    if expected is None:
        return
    differences = [f"{k}: {expected.get(k)!r} before, {found.get(k)!r} now" for k in found if expected.get(k) != found.get(k)]
    if differences:
        raise RunStopped(
            "The images in this folder come from other software or another device, which may give other images:\n  "
            + "\n  ".join(differences)
            + "\nUse another folder, or --mixed to add to them; each row names its environment."
        )
