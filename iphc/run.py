"""`iphc run`: makes what is missing in a run's folder. The same command again resumes."""

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import BadInput, CannotWrite
from ..files.atomic import write_atomically
from .comfy_host import HostSettings, RunStopped
from .ledger import FAILED, Ledger, Row
from .manifest import Manifest
from .progress import Progress
from .units import Unit, fingerprint, units_of
from .work_queue import WorkQueue
from .worker import Worker, environment_id

ENVIRONMENT = "environment.json"
FAILURES = "failures.jsonl"
LOCK = "run.lock"
PROGRESS = "progress.json"


@dataclass(frozen=True)
class RunOptions:
    """How to run."""

    only: tuple[str, ...] = ()
    """Names of the methods to run; all if empty."""
    keep: bool = True
    """Whether to keep the images' files."""
    retry: bool = False
    """Whether to make units with failures again."""
    remake: bool = False
    """Whether to replace units that were made from another manifest."""
    mixed: bool = False
    """Whether to add to images of other software or another device."""
    show: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a run has done."""

    made: int
    """Images that exist now, in units of this manifest."""
    failed: int
    failures: list[Row]
    stopped: str = ""
    """Why the run ended early."""

    @property
    def status(self) -> int:
        """The exit status: 0 if all images are made, 3 if some failed, 1 if the run stopped."""
        return 1 if self.stopped else 3 if self.failed else 0


class Run:
    """A manifest and a folder: which units are whole, and which are to be made."""

    def __init__(self, manifest: Manifest, out: Path, options: RunOptions):
        """Look at the folder.

        Raises:
            BadInput: A method does not exist, or the folder holds units of another manifest.
        """
        self.manifest, self.out, self.options, self.ledger = manifest, out, options, Ledger(out)
        names = [method.name for method in manifest.methods]
        for name in options.only:
            if name not in names:
                raise BadInput(f"The manifest has no method '{name}'. There are: {', '.join(names)}.")
        units = [unit for unit in units_of(manifest) if not options.only or unit.method.name in options.only]
        self.marks = {unit.name: fingerprint(manifest, unit) for unit in units}
        self.units = units
        self.ledger.sweep()
        states = {unit.name: self.ledger.state(unit, self.marks[unit.name]) for unit in units}
        others = [name for name, state in states.items() if state == "other"]
        if others and not options.remake:
            raise BadInput(
                f"{len(others)} units in {out} were made from another manifest, such as {others[0]}. Use another folder, or "
                "--remake to replace them."
            )
        self.failures: list[Row] = []
        self.whole: list[Unit] = []
        self.todo: list[Unit] = []
        for unit in units:
            failed: list[Row] = []
            if states[unit.name] == "whole":
                failed = [row for row in self.ledger.rows(unit, files=False) if row.status == FAILED]
            if states[unit.name] == "whole" and not (failed and options.retry):
                self.whole.append(unit)
                self.failures += failed
            else:
                self.todo.append(unit)

    @property
    def images(self) -> int:
        """Images of all units."""
        return sum(len(unit.jobs) for unit in self.units)

    def expected_environment(self) -> dict[str, Any] | None:
        """Return the environment of the images in the folder, if others are not to be added."""
        return None if self.options.mixed else next(iter(environments(self.out).values()), None)

    def note_environment(self, environment: dict[str, Any]) -> None:
        """Add an environment to those of the folder."""
        known = environments(self.out)
        if environment_id(environment) not in known:
            known[environment_id(environment)] = environment
            write_json(self.out / ENVIRONMENT, known)

    def progress(self) -> Progress:
        """Return the counter, with what is whole already."""
        done = sum(len(unit.jobs) for unit in self.whole)
        return Progress(self.out / PROGRESS, self.images, done, len(self.failures), show=self.options.show)

    def begin(self) -> None:
        """Write the resolved manifest beside the units."""
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(self.out / "manifest.json", self.manifest.resolved)

    def finish(self, progress: Progress, stopped: str) -> Outcome:
        """Write the list of failures and return the outcome.

        Args:
            progress: The counter.
            stopped: Why the run ended early, or an empty text.
        """
        progress.end("stopped" if stopped else "finished")
        if stopped:
            stopped += f"\n{len(self.whole)} of {len(self.units)} units are whole and kept. The same command continues."
        lines = []
        for row in self.failures:
            about = asdict(row)
            lines.append(
                json.dumps({k: about[k] for k in ("unit", "person", "prompt", "head", "image", "seed", "tries", "reason")})
            )
        try:
            write_atomically(
                self.out / FAILURES, lambda part: part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            )
        except CannotWrite as error:
            stopped = stopped or str(error)
        made = sum(len(unit.jobs) for unit in self.whole) - len(self.failures)
        return Outcome(made, len(self.failures), self.failures, stopped)

    def wrote(self, unit: Unit, rows: Sequence[Row]) -> None:
        """Count a unit that was written."""
        self.whole.append(unit)
        self.failures += [row for row in rows if row.status == FAILED]


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other runs from writing to a folder. The system ends this also when the process is killed.

    Raises:
        BadInput: Another run writes to it.
        CannotWrite: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"{folder} cannot be made: {error.strerror or error}. Use another folder.") from None
    with (folder / LOCK).open("ab") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(f"Another run writes to {folder}. Wait for it, or use another folder.") from None
        yield


def environments(out: Path) -> dict[str, dict[str, Any]]:
    """Return the environments of a run's images, by the names that rows have; the first one first."""
    file = out / ENVIRONMENT
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def run_here(run: Run, settings: HostSettings | None, **more: Any) -> Outcome:
    """Make all missing units with one worker in this process.

    Args:
        run: The run.
        settings: How to start ComfyUI.
        **more: For the worker.
    """
    stopped = ""
    counted: list[Row] = []
    progress = run.progress()

    def count(row: Row) -> None:
        counted.append(row)
        progress.count(1, row.status == FAILED, row.unit)

    worker = Worker(run.manifest, settings, keep=run.options.keep, expected=run.expected_environment(), on_image=count, **more)
    queue, unit = WorkQueue(run.todo), None
    try:
        run.begin()
        while (unit := queue.take(unit)) is not None:
            counted.clear()
            rows = worker.make(unit)
            if worker.environment is not None:
                run.note_environment(worker.environment)
            run.ledger.write(unit, run.marks[unit.name], rows)
            run.wrote(unit, rows)
            counted.clear()
    except (RunStopped, CannotWrite) as error:
        stopped = str(error)
    except KeyboardInterrupt:
        stopped = "Interrupted."
    finally:
        worker.close()
    progress.undo(len(counted), sum(row.status == FAILED for row in counted))  # of a unit that was not written
    return run.finish(progress, stopped)


def failure_table(failures: Sequence[Row], most: int = 10) -> str:
    """Return the reasons of failures with their counts, the most frequent first."""
    reasons = Counter(row.reason.strip().splitlines()[0][:160] if row.reason.strip() else "?" for row in failures)
    lines = [f"{count:6d}  {reason}" for reason, count in reasons.most_common(most)]
    return "\n".join([*lines, *([f"        and {len(reasons) - most} other reasons"] if len(reasons) > most else [])])


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file that people read."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomically(file, lambda part: part.write_text(text, encoding="utf-8"))
