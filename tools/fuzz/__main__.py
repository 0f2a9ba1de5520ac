"""Fuzz the readers, and print a table: `python tasks.py fuzz [READER ...] --count N --seed S`.

Each input is read in a child process whose memory is limited and which is ended when it does not answer. An input fails if an
error leaves the reader that is not the pack's own, if it takes more than a second of the processor or 200 MB, hangs, crashes,
executes something, or opens or writes files outside its folder. Failing inputs are kept with --keep.
"""

import argparse
import json
import logging
import os
import random
import resource
import select
import signal
import sys
import sysconfig
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...errors import LONGEST_MESSAGE, CapFaceError
from .readers import READERS, Reader, Seed, write_input

PACK = Path(__file__).resolve().parents[2]
MOST_SECONDS, MOST_BYTES = 1.0, 200_000_000
"""An input above is an outlier."""
HANGS = 20.0
"""Seconds without an answer after which a child is ended."""
ADDRESS_SPACE = 3 << 30
"""Bytes that a child may have beside what it begins with."""
FORBIDDEN = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "socket.", "pty.spawn")
CHANGING = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate")


@dataclass
class Result:
    """The counts of a reader."""

    reader: str
    tried: int = 0
    accepted: int = 0
    own: int = 0
    leaked: Counter[str] = field(default_factory=Counter)
    slow: int = 0
    large: int = 0
    hangs: int = 0
    outside: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    largest: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not (self.leaked or self.slow or self.large or self.hangs or self.outside)


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="tasks.py fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = [reader.name for reader in READERS]
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(names)}, or fast; by default all")
    parser.add_argument("--count", type=int, default=1000, help="inputs for each reader (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other inputs (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write failing inputs there")
    options = parser.parse_args(arguments)
    if unknown := set(options.readers) - {*names, "fast"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    wanted = [r for r in READERS if not options.readers or r.name in options.readers or (r.fast and "fast" in options.readers)]
    results = []
    for reader in wanted:
        results.append(fuzz(reader, options.count, options.seed, options.keep))
        print(line(results[-1]), file=sys.stderr, flush=True)
    print(table(results), flush=True)
    return int(not all(result.ok for result in results))


def table(results: list[Result]) -> str:
    """Format results as a Markdown table."""
    head = "| reader | tried | accepted | own error | leaked (kinds) | > 1 s | > 200 MB | hangs | executed, outside | most |"
    return "\n".join([head, "| --- |" + " ---: |" * 9, *map(line, results)])


def line(result: Result) -> str:
    """Format a result as a line of the table, followed by the kinds of failures."""
    counts = (result.tried, result.accepted, result.own)
    cells = [result.reader, *(f"{count:,}" for count in counts), f"{result.leaked.total():,} ({len(result.leaked)})"]
    cells += [f"{count:,}" for count in (result.slow, result.large, result.hangs, result.outside.total())]
    cells.append(f"{result.slowest:.2f} s, {result.largest / 1e6:.0f} MB")
    kinds = [f"    {count} x {kind}" for kind, count in (result.leaked + result.outside).most_common(20)]
    return "\n".join([f"| {' | '.join(cells)} |", *kinds])


def fuzz(reader: Reader, count: int, seed: int, keep: Path | None = None) -> Result:
    """Try a reader.

    Args:
        reader: The reader.
        count: Number of inputs.
        seed: Seed of the mutations.
        keep: Folder for failing inputs.
    """
    seeds = reader.make()
    result, begin = Result(reader.name), 0
    if not seeds:
        print(f"{reader.name}: not tried, as there is no ComfyUI", file=sys.stderr, flush=True)
        return result
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None, prefix="capface-fuzz-") as name:
        for one in seeds:  # the sound files are read, and lazy imports happen, before anything is measured
            outcome = _try(reader, write_input(Path(name), one, one.data))
            if one.sound and outcome != "accepted":
                result.leaked[f"the sound file {one.name} is not accepted: {outcome}"] += 1
        while begin < count:
            begin = _child(reader, seeds, begin, count, seed, Path(name), result, keep)
    return result


def mutated(reader: Reader, seeds: list[Seed], number: int, seed: int) -> tuple[Seed, bytes]:
    """Return an input by its number."""
    one = seeds[number % len(seeds)]
    return one, one.mutate(one.data, random.Random(f"{seed}:{reader.name}:{number}"))


def _child(
    reader: Reader, seeds: list[Seed], begin: int, count: int, seed: int, folder: Path, result: Result, keep: Path | None
) -> int:
    """Read inputs from `begin` on in a child, and return the number of the input to go on with."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        os.close(receive)
        try:
            _work(reader, seeds, begin, count, seed, folder, send)
        finally:
            os._exit(0)
    os.close(send)
    number, buffer = begin, b""
    try:
        while number < count:
            if not select.select([receive], [], [], HANGS)[0]:
                os.kill(child, signal.SIGKILL)
                break
            if not (more := os.read(receive, 65536)):
                break
            *lines, buffer = (buffer + more).split(b"\n")
            for text in lines:
                if _count(result, json.loads(text)):
                    _keep(keep, reader, seeds, number, seed)
                number += 1
    finally:
        os.close(receive)
        os.waitpid(child, 0)
    if number < count:  # it hung, or the process ended
        result.tried += 1
        result.hangs += 1
        _keep(keep, reader, seeds, number, seed)
        number += 1
    return number


def _count(result: Result, answer: dict[str, Any]) -> bool:
    """Add an answer to the counts; return whether the input failed."""
    result.tried += 1
    result.accepted += answer["kind"] == "accepted"
    result.own += answer["kind"] == "own"
    leaked = answer["kind"] not in ("accepted", "own")
    if leaked:
        result.leaked[answer["kind"]] += 1
    slow, large = answer["seconds"] > MOST_SECONDS, answer["bytes"] > MOST_BYTES
    result.slow += slow
    result.large += large
    result.slowest, result.largest = max(result.slowest, answer["seconds"]), max(result.largest, answer["bytes"])
    result.outside.update(answer["outside"])
    return bool(leaked or slow or large or answer["outside"])


def _keep(folder: Path | None, reader: Reader, seeds: list[Seed], number: int, seed: int) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        one, data = mutated(reader, seeds, number, seed)
        (folder / f"{reader.name}-{seed}-{number}-{one.name}").write_bytes(data)


def _work(reader: Reader, seeds: list[Seed], begin: int, count: int, seed: int, folder: Path, send: int) -> None:
    """Read inputs, and send one line for each."""
    watch = _Watch(folder)
    sys.addaudithook(watch)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE, size + ADDRESS_SPACE))
    for number in range(begin, count):
        one, data = mutated(reader, seeds, number, seed)
        path = write_input(folder, one, data)
        del data
        before = _memory(reset=True)
        start = time.process_time()
        watch.events.clear()
        watch.on = True
        kind = _try(reader, path)
        watch.on = False
        seconds, size = time.process_time() - start, max(_memory() - before, 0)
        answer = {"kind": kind, "seconds": round(seconds, 3), "bytes": size, "outside": watch.events[:5]}
        os.write(send, json.dumps(answer).encode() + b"\n")


def _try(reader: Reader, path: Path) -> str:
    """Read a file; return "accepted", "own", or what leaked and where."""
    from ...training.rules import Rejected

    try:
        reader.read(path)
    except (CapFaceError, Rejected) as error:
        text = str(error)
        if len(text) > LONGEST_MESSAGE or "weights_only" in text or not text:
            return f"a message of {len(text):,} characters: {text[:60]!r}"
        return "own"
    except BaseException as error:
        frames = [
            f for f in traceback.extract_tb(error.__traceback__) if str(PACK) in f.filename and "/fuzz/" not in f.filename
        ]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return f"{type(error).__name__} at {place}: {str(error)[:60]}"
    return "accepted"


class _Watch:
    """An audit hook that notes what is executed, and what is opened or changed outside the folder."""

    def __init__(self, folder: Path):
        self.on = False
        self.events: list[str] = []
        self.folder = str(folder.resolve())
        paths = sysconfig.get_paths()
        code = (str(PACK), paths["stdlib"], paths["purelib"], sys.prefix, sys.base_prefix)
        self.readable = (self.folder, *code, "/proc/", "/sys/", "/dev/")

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event.startswith(FORBIDDEN):
            self.events.append(f"{event} {arguments}"[:200])
        elif event in CHANGING or event == "open":
            path = arguments[0]
            if not isinstance(path, str | bytes | os.PathLike):
                return
            full = os.path.realpath(os.fsdecode(path))
            mode = arguments[1] if event == "open" and len(arguments) > 1 else ""
            writes = event != "open" or (isinstance(mode, str) and any(letter in mode for letter in "wax+"))
            if not full.startswith((self.folder,) if writes else self.readable):
                self.events.append(f"{event} {full} {mode}"[:200])


def _memory(reset: bool = False) -> int:
    """Return the bytes of the process at their highest since the last reset, or now after a reset."""
    if reset:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return 0
    for text in Path("/proc/self/status").read_text().splitlines():
        if text.startswith("VmHWM:"):
            return int(text.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))
