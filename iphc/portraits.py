"""`python tasks.py portraits PHOTOS OUT`: portraits of every photo in a folder, by the engine of the benchmark.

Any workflow in ComfyUI's API format makes them, on ComfyUIs that are started here or run at given addresses. Portraits are
files, and a line of OUT/portraits.jsonl tells of each. The same command continues.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import BadInput, CannotWrite, CapFaceError
from ..files.atomic import write_atomically
from ..tools.comfy import ComfyError
from .comfy_host import ComfyHost, HostSettings, RunStopped
from .command import host_options, host_settings, say, stop_when_terminated
from .ledger import FAILED, MADE, Row
from .manifest import SETS, Manifest, read_manifest
from .marking import with_marks
from .places import Problems, read_json
from .progress import Progress
from .remote_host import RemoteHost
from .run import Outcome, alone, write_json
from .units import Job, Unit, prompt_text, units_of, workflow_of
from .work_queue import WorkQueue
from .worker import Host, Worker
from .workflow import find_input, marked

LOG = "portraits.jsonl"
MANIFEST, WORKFLOW = "portraits.json", "workflow.json"
DEFAULT = Path(__file__).with_name("workflows") / "capface.json"
OWN_HEAD = "own"
"""Name of the condition that leaves the head as it is in the photo."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    p = argparse.ArgumentParser(prog="tasks.py portraits", description=__doc__, parents=[host_options()])
    p.add_argument("photos", type=Path, help="folder of photos, one person each")
    p.add_argument("out", type=Path, help="folder for the portraits")
    p.add_argument("--workflow", type=Path, default=DEFAULT, help="in API format; default: CapFace with Realistic Vision")
    p.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="a prompt; can be repeated")
    p.add_argument("--prompts", type=Path, metavar="FILE", help="a file with a prompt in each line, or a JSON list")
    p.add_argument("--heads", metavar="FILE", help="head conditions as JSON, or the name of a set, such as heads_position_pose")
    p.add_argument("--images", type=int, default=1, metavar="N", help="portraits of each photo, prompt and head")
    p.add_argument("--seed", type=int, default=0, help="another one makes other portraits")
    p.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="an input, by the node's title or id")
    p.add_argument(
        "--address",
        action="append",
        default=[],
        metavar="URL",
        help="a running ComfyUI to use; can be repeated",
    )
    p.add_argument("--devices", default="", metavar="0,1", help="numbers of the GPUs; a ComfyUI is started for each")
    p.add_argument("--retry", action="store_true", help="try failed portraits again")
    p.add_argument("--remake", action="store_true", help="replace portraits that were made with other settings")
    p.set_defaults(device="")  # --devices sets it for each ComfyUI
    return p.parse_args(list(arguments))


def manifest_of(options: argparse.Namespace, folder: Path) -> Manifest:
    """Write what was asked for as a manifest, and read it.

    Args:
        options: The command line.
        folder: Gets the manifest and its workflow.

    Raises:
        BadInput: Something is wrong with it.
    """
    problems = Problems()
    workflow, _ = read_json(options.workflow, problems)
    if problems or not isinstance(workflow, dict):
        raise BadInput("\n".join(problems.lines) or f"{options.workflow} is not a workflow in ComfyUI's API format.")
    heads = _heads(options.heads, problems)
    if problems:
        raise BadInput("\n".join(problems.lines))
    workflow = with_marks(workflow, options.workflow.name, heads != {OWN_HEAD: {}})
    for change in options.set:
        name, found, value = change.partition("=")
        if not found:
            raise BadInput(f"--set {change}: expected NODE.INPUT=VALUE")
        node, _, entry = name.rpartition(".")
        try:
            key, entry = (node, entry) if node in workflow else find_input(workflow, name)
        except KeyError as error:
            raise BadInput(f"--set {change}: {error.args[0]}") from None
        before = workflow[key]["inputs"].get(entry)
        if entry not in workflow[key]["inputs"] or isinstance(before, list):
            raise BadInput(f"--set {change}: node {key} has no input '{entry}' to set")
        workflow[key]["inputs"][entry] = value if isinstance(before, str) else _value(change, value)
    prompts = _prompts(options) or [workflow[key]["inputs"].get("text") for key in marked(workflow, "@prompt")[:1]]
    content = {
        "name": "portraits", "people": {"photos": str(options.photos.resolve())}, "prompts": prompts, "heads": heads,
        "seed": options.seed, "images": options.images, "unit_images": sys.maxsize, "metrics": [],
        "methods": {"portraits": {"workflow": WORKFLOW}},
    }  # fmt: skip
    write_json(folder / WORKFLOW, workflow)
    write_json(folder / MANIFEST, content)
    manifest = read_manifest(folder / MANIFEST)
    if heads != {OWN_HEAD: {}} and not manifest.methods[0].controls_head:
        raise BadInput(f"{options.workflow.name} has no Edit Head with the mark @head in its title, which --heads needs.")
    return manifest


def _value(change: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise BadInput(f"--set {change}: expected a number, true or false") from None


def _prompts(options: argparse.Namespace) -> list[str]:
    if options.prompts is None:
        return options.prompt
    try:
        text = options.prompts.read_text(encoding="utf-8")
        listed = json.loads(text) if options.prompts.suffix == ".json" else [line.strip() for line in text.splitlines()]
    except (OSError, ValueError) as error:
        raise BadInput(f"{options.prompts} cannot be read: {error}") from None
    return [*options.prompt, *(prompt for prompt in listed if prompt)]


def _heads(name: str | None, problems: Problems) -> Any:
    if name is None:
        return {OWN_HEAD: {}}
    shipped = SETS / f"{name.removesuffix('.json')}.json"
    return read_json(shipped if not Path(name).is_file() and shipped.is_file() else Path(name), problems)[0]


class Portraits:
    """The portraits of a manifest as files in a folder: which exist, and which are to be made."""

    def __init__(self, manifest: Manifest, out: Path, retry: bool = False, remake: bool = False):
        """Look at the folder.

        Args:
            manifest: The manifest.
            out: The folder.
            retry: Whether to make failed portraits again.
            remake: Whether to replace portraits that were made with other settings.

        Raises:
            BadInput: There are portraits that were made with other settings.
        """
        self.manifest, self.out, self._lock = manifest, out, threading.Lock()
        self.units = {unit.name: unit for unit in units_of(manifest)}
        known = _read_log(out / LOG)
        others = 0
        self.made, self.failed = 0, list[Row]()
        self.todo: dict[str, set[Job]] = {}
        for unit in self.units.values():
            for job in unit.jobs:
                line = known.get(self.name_of(unit, job), {})
                done = line.get("status") == MADE and (out / self.name_of(unit, job)).is_file()
                failed = line.get("status") == FAILED and not retry
                if (done or failed) and line.get("mark") == self.mark_of(unit, job):
                    self.made += done
                    if failed:
                        self.failed.append(_row(unit, job, FAILED, line.get("reason", "")))
                    continue
                others += done
                self.todo.setdefault(unit.name, set()).add(job)
        if others and not remake:
            raise BadInput(
                f"{others} portraits in {out} were made with other settings. Use another folder, or --remake to replace them."
            )

    def name_of(self, unit: Unit, job: Job) -> str:
        """Return a portrait's file, relative to the folder: `PHOTO/PROMPT-HEAD-IMAGE.png`."""
        return f"{unit.person.name}/{job.prompt + 1:02d}-{job.head}-{job.image + 1}.png"

    def mark_of(self, unit: Unit, job: Job) -> str:
        """Return a hash of what decides a portrait: workflow, photo, prompt, head and seed."""
        content = [workflow_of(self.manifest, unit, job, unit.person.content)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def remaining(self, unit: Unit) -> Unit | None:
        """Return a unit with the portraits that are still to be made, or None if there are none."""
        with self._lock:
            jobs = tuple(job for job in unit.jobs if job in self.todo.get(unit.name, ()))
        return replace(unit, jobs=jobs) if jobs else None

    def write(self, row: Row) -> None:
        """Write a portrait or its failure.

        Raises:
            CannotWrite: The disk is full or cannot be written to.
        """
        unit = self.units[row.unit]
        job = next(job for job in unit.jobs if (job.prompt, job.head, job.image) == (row.prompt, row.head, row.image))
        name = self.name_of(unit, job)
        if row.file is not None:
            (self.out / name).parent.mkdir(parents=True, exist_ok=True)
            content = row.file
            write_atomically(self.out / name, lambda part: part.write_bytes(content))
        line = {
            "file": name, "status": row.status, "photo": str(unit.person.photo), "head": row.head,
            "prompt": prompt_text(self.manifest, unit.method, row.prompt), "image": row.image, "seed": row.seed,
            "seconds": round(row.seconds, 3), "by": row.worker, "mark": self.mark_of(unit, job),
            **({"reason": row.reason} if row.reason else {}),
        }  # fmt: skip
        with self._lock:
            try:
                with (self.out / LOG).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
            except OSError as error:
                raise CannotWrite(f"{self.out / LOG} cannot be written: {error.strerror or error}") from None
            self.todo[unit.name].discard(job)
            if row.status == MADE:
                self.made += 1
            else:
                self.failed.append(row)


def _row(unit: Unit, job: Job, status: str, reason: str) -> Row:
    return Row(unit.name, unit.method.name, unit.person.name, job.prompt, job.head, job.image, job.seed, status, reason)


def _read_log(file: Path) -> dict[str, dict[str, Any]]:
    """Return the last line of each portrait; a line that was cut off does not count."""
    known: dict[str, dict[str, Any]] = {}
    if file.is_file():
        for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
                known[line["file"]] = line
            except (ValueError, KeyError, TypeError):
                continue
    return known


Opener = Callable[[], Host]


def make(portraits: Portraits, openers: dict[str, Opener], show: bool = True) -> Outcome:
    """Make all missing portraits, with a thread for each ComfyUI.

    Args:
        portraits: The portraits.
        openers: What opens each ComfyUI, by its name.
        show: Whether to print the progress.
    """
    queue = WorkQueue(unit for unit in portraits.units.values() if unit.name in portraits.todo)
    total = sum(len(unit.jobs) for unit in portraits.units.values())
    done = portraits.made + len(portraits.failed)
    progress = Progress(portraits.out / "progress.json", total, done, len(portraits.failed), show=show)
    lock, stop = threading.Lock(), threading.Event()
    reasons: list[str] = []
    fatal: list[str] = []
    busy: set[str] = set()
    ended: set[str] = set()

    def on_image(row: Row) -> None:
        portraits.write(row)
        with lock:
            progress.count(1, row.status == FAILED, row.unit)
        if stop.is_set():
            raise RunStopped("Interrupted.")

    def work(name: str, opener: Opener) -> None:
        # the settings only tell that there is a ComfyUI: the opener starts it
        worker = Worker(
            portraits.manifest, HostSettings(""), name=name, open_host=lambda settings: opener(), on_image=on_image
        )  # fmt: skip
        last = unit = None
        try:
            while not stop.is_set():
                with lock:
                    unit = queue.take(last)
                    busy.add(name) if unit else busy.discard(name)
                    others = bool(busy)
                if unit is None and not others:
                    return
                if unit is None:  # another one may still give its portraits back
                    stop.wait(0.2)
                    continue
                if (todo := portraits.remaining(unit)) is not None:
                    worker.make(todo)
                last = unit
        except CannotWrite as error:
            fatal.append(str(error))
            stop.set()
        except (RunStopped, ComfyError) as error:  # others may make its portraits
            with lock:
                if unit is not None:
                    queue.put_back(unit)
                if not stop.is_set():
                    reasons.append(f"{name}: {error}")
        except BaseException as error:
            fatal.append(f"{name}: {type(error).__name__}: {error}")
            stop.set()
            raise
        finally:
            with lock:
                busy.discard(name)
            worker.close()
            ended.add(name)

    stopped = ""
    for item in openers.items():
        threading.Thread(target=work, args=item, name=item[0]).start()
    while len(ended) < len(openers):  # not by Thread.join: interrupted by Ctrl+C, it takes the thread for ended
        try:
            time.sleep(0.1)
        except KeyboardInterrupt:
            stopped = "Interrupted. "
            stop.set()
            print("stopping after the portraits in hand", file=sys.stderr, flush=True)
    if fatal:
        stopped = fatal[0] + " "
    elif not stopped and any(portraits.todo.values()):
        stopped = "No ComfyUI is left. " + "\n".join(reasons) + " "
    if stopped:
        stopped += "The same command continues."
    progress.end("stopped" if stopped else "finished")
    return Outcome(portraits.made, len(portraits.failed), portraits.failed, stopped)


def openers_of(options: argparse.Namespace, manifest: Manifest) -> dict[str, Opener]:
    """Return what opens each ComfyUI: those at addresses, else one for each device of this machine.

    Raises:
        BadInput: There is none.
    """
    if options.address:
        addresses = [address if "//" in address else f"http://{address}" for address in options.address]
        return {address: partial(RemoteHost, address, options.silence) for address in addresses}
    settings = host_settings(options, manifest)
    if settings is None:
        raise BadInput("No ComfyUI was found: start one and name its --address http://HOST:8188, or a folder with --comfyui.")
    devices = options.devices.split(",") if options.devices else [""]
    return {
        f"device {device}" if device else "ComfyUI": partial(ComfyHost, replace(settings, device=device)) for device in devices
    }


def main(arguments: Sequence[str]) -> int:
    """Make portraits, and return the exit status: 0, 1 (stopped), 2 (mistakes) or 3 (some failed)."""
    options = parse(arguments)
    try:
        with alone(options.out), tempfile.TemporaryDirectory(prefix="portraits-") as folder:
            manifest = manifest_of(options, Path(folder))
            portraits = Portraits(manifest, options.out, options.retry, options.remake)
            for name in (MANIFEST, WORKFLOW):  # a record of what was asked for
                write_json(options.out / name, json.loads((Path(folder) / name).read_text(encoding="utf-8")))
            todo = sum(map(len, portraits.todo.values()))
            print(f"{portraits.made} portraits are made, {todo} to make", flush=True)
            stop_when_terminated()
            outcome = make(portraits, openers_of(options, manifest) if todo else {})
    except (CapFaceError, ComfyError) as error:
        print(error, file=sys.stderr)
        return 2
    return say(outcome, options.out / LOG, "portraits", "tries them again")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
