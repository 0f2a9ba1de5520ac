"""`iphc verify`: looks at every file of a run, and makes a sample of the images again."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .comfy_host import HostSettings
from .ledger import FAILED, MADE, Ledger, pixel_hash
from .manifest import Manifest
from .units import Job, Unit, fingerprint, units_of
from .worker import Worker

MOST_SHOWN = 20


@dataclass(frozen=True)
class Verdict:
    """What was found."""

    units: int
    whole: int
    images: int
    failed: int
    problems: list[str]
    remade: int = 0
    """How many images were made again."""

    @property
    def text(self) -> str:
        """The verdict in lines."""
        lines = [f"{self.whole} of {self.units} units are whole: {self.images} images, {self.failed} failed"]
        if self.remade:
            lines.append(f"{self.remade} images made again")
        lines += self.problems[:MOST_SHOWN]
        if len(self.problems) > MOST_SHOWN:
            lines.append(f"and {len(self.problems) - MOST_SHOWN} more")
        return "\n".join([*lines, f"{len(self.problems)} problems" if self.problems else "everything is in order"])


def inspect(manifest: Manifest, out: Path) -> tuple[Verdict, list[tuple[Unit, Job, str]]]:
    """Look at every file.

    Args:
        manifest: The manifest.
        out: The run's folder.

    Returns:
        The verdict, and all images that can be made again with the hashes of their pixels.
    """
    ledger, problems, made, failed, whole = Ledger(out), [], [], 0, 0
    units = list(units_of(manifest))
    seen: Counter[tuple[str, str, int, str, int]] = Counter()
    for unit in units:
        state = ledger.state(unit, fingerprint(manifest, unit))
        if state != "whole":
            problems.append(f"{unit.name}: {state}" + {"other": ", made from another manifest"}.get(state, ""))
            continue
        whole += 1
        for row, job in zip(ledger.rows(unit), unit.jobs, strict=True):
            where = f"{unit.name}, prompt {job.prompt}, head {job.head}, image {job.image}"
            seen[row.method, row.person, row.prompt, row.head, row.image] += 1
            if (row.prompt, row.head, row.image, row.seed) != (job.prompt, job.head, job.image, job.seed):
                problems.append(f"{where}: the row is that of another image")
            elif row.status == FAILED:
                failed += 1
                if not row.reason:
                    problems.append(f"{where}: failed without a reason")
            elif row.file is not None and pixel_hash(row.file) != row.pixels:
                problems.append(f"{where}: the image does not have the pixels that its row names")
            elif unit.method.workflow is not None:
                made.append((unit, job, row.pixels))
    problems += [f"{' '.join(map(str, key))}: {count} times" for key, count in seen.items() if count > 1]
    problems += [f"{path.relative_to(out)}: belongs to no unit of the manifest" for path in ledger.strangers(units)]
    return Verdict(len(units), whole, sum(seen.values()) - failed, failed, problems), made


def remake(
    manifest: Manifest,
    made: Sequence[tuple[Unit, Job, str]],
    count: int,
    seed: int,
    settings: HostSettings | None,
    expected: dict[str, Any] | None = None,
) -> list[str]:
    """Make a random sample of images again, in random order, each without what the one before has left in ComfyUI's cache.

    Args:
        manifest: The manifest.
        made: From `inspect`.
        count: How many.
        seed: Of the sample.
        settings: How to start ComfyUI.
        expected: The environment that made them; another stops with RunStopped.

    Returns:
        The images that differ.
    """
    sample = random.Random(seed).sample(list(made), min(count, len(made)))
    worker, problems = Worker(manifest, settings, name="verify", expected=expected), []
    try:
        for unit, job, pixels in sample:
            (row,) = worker.make(replace(unit, jobs=(job,)))
            if row.status != MADE or row.pixels != pixels:
                why = row.reason if row.status != MADE else "other pixels"
                problems.append(f"{unit.name}, prompt {job.prompt}, head {job.head}, image {job.image}: made again: {why}")
    finally:
        worker.close()
    return problems
