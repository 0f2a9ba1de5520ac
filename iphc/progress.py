"""How far a run is: a line in the terminal, and the same as a JSON file for other programs."""

import json
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..errors import CannotWrite
from ..files.atomic import write_atomically

WINDOW = 300.0
"""Seconds over which the rate is taken."""
EVERY = 5.0
"""Seconds between two reports."""


class Progress:
    """Counts images. Units that were done before do not count into the rate."""

    def __init__(
        self, file: Path, total: int, done: int, failed: int, clock: Callable[[], float] = time.monotonic, show: bool = True
    ):
        """Start the clock.

        Args:
            file: The JSON file, rewritten every EVERY seconds.
            total: Images of the whole run.
            done: Images of earlier runs, failures included.
            failed: Failures of earlier runs.
            clock: Returns seconds.
            show: Whether to print.
        """
        self.file, self.total, self.done, self.failed, self.clock, self.show = file, total, done, failed, clock, show
        self.now = ""
        self._seen = deque([(clock(), done)])
        self._last = clock()
        self._write("running")

    def count(self, images: int, failed: int, unit: str) -> None:
        """Count images of a unit.

        Args:
            images: How many, failures included.
            failed: How many of them failed.
            unit: The unit's name.
        """
        self.done += images
        self.failed += failed
        self.now = unit
        now = self.clock()
        if now - self._last >= EVERY:
            self._report(now)

    def undo(self, images: int, failed: int) -> None:
        """Take back images of a unit that has to be made again."""
        self.done -= images
        self.failed -= failed

    def end(self, state: str) -> None:
        """Report the last time.

        Args:
            state: `finished` or `stopped`.
        """
        self._write(state)
        if self.show:
            print(self.line(), flush=True)

    @property
    def rate(self) -> float:
        """Images a second over the last WINDOW seconds."""
        (then, before), now = self._seen[0], self.clock()
        return max(self.done - before, 0) / (now - then) if now > then else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all images are made; None while nothing is known."""
        return (self.total - self.done) / self.rate if self.rate else None

    def line(self) -> str:
        """Return the report as a line."""
        left = self.seconds_left
        parts = [f"{self.done}/{self.total} images", f"{self.failed} failed", f"{self.rate:.2f}/s"]
        return "  ".join([*parts, "? left" if left is None else f"{duration(left)} left", self.now]).rstrip()

    def _report(self, now: float) -> None:
        self._last = now
        self._write("running")
        if self.show:
            print(self.line(), flush=True)
        self._seen.append((now, self.done))
        while len(self._seen) > 1 and now - self._seen[0][0] > WINDOW:
            self._seen.popleft()

    def _write(self, state: str) -> None:
        content = {
            "state": state, "images": self.total, "done": self.done, "failed": self.failed, "images_per_second": self.rate,
            "seconds_left": self.seconds_left, "unit": self.now, "written": time.time(),
        }  # fmt: skip
        with suppress(CannotWrite):  # a full disk stops the run where a unit is written, with a message
            write_atomically(self.file, lambda part: part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"))


def duration(seconds: float) -> str:
    """Write a duration in the largest fitting units: `45 s`, `12 min`, `3 h 20 min`, `4 d 2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
