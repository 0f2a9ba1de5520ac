"""A line that counts up: how much, how fast, and how long it will take."""

import sys
import time
from collections import deque
from typing import TextIO

from ..sizes import size_text

WINDOW = 10.0
"""Seconds over which the rate is averaged."""
SLOW = 10.0
"""Seconds between two lines where the output is not a terminal."""


def duration_text(seconds: float) -> str:
    """Format a duration."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"


class Progress:
    """Shows how far something is.

    Args:
        name: What it is, in a few words.
        total: Bytes; None if unknown.
        out: Where the line goes. A terminal gets one line that changes, a file one every few seconds.
    """

    def __init__(self, name: str, total: int | None, out: TextIO | None = None):
        self.name, self.total, self.out = name, total, out or sys.stdout
        self.live = self.out.isatty()
        self._samples: deque[tuple[float, int]] = deque()
        self._last, self._width = time.monotonic(), 0

    def line(self, done: int) -> str:
        """Return the line for a number of bytes, and remember it for the rate."""
        now = time.monotonic()
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > WINDOW:
            self._samples.popleft()
        (start, before), passed = self._samples[0], now - self._samples[0][0]
        rate = max(0, done - before) / passed if now > start else 0.0
        known = f"{done / self.total:4.0%}  {size_text(done)} of {size_text(self.total)}" if self.total else size_text(done)
        parts = [f"  {self.name}  {known}"]
        if rate:
            parts.append(f"{size_text(int(rate))}/s")
            if self.total:
                parts.append(f"{duration_text((self.total - done) / rate)} left")
        return ", ".join(parts)

    def show(self, done: int) -> None:
        """Show the line, if it is time."""
        line = self.line(done)
        if self.live:
            self.out.write(f"\r{line:<{self._width}}")
            self._width = len(line)
        elif time.monotonic() - self._last >= SLOW:
            self._last = time.monotonic()
            self.out.write(f"{line}\n")
        self.out.flush()

    def end(self) -> None:
        """Leave the line."""
        if self.live and self._width:
            self.out.write(f"\r{'':<{self._width}}\r")
            self._width = 0
        self.out.flush()
