"""Progress reports of long jobs."""

import time


class Progress:
    """Prints the amount done, the rate and the remaining time, at most once in a given number of seconds."""

    def __init__(self, what: str, total: int, done: int = 0, every: float = 10.0):
        """Start the clock.

        Args:
            what: Unit that is counted, in the plural.
            total: Number of units in the job.
            done: Number of units that an earlier run has finished.
            every: Smallest number of seconds between two reports.
        """
        self.what, self.total, self.first, self.every = what, total, done, every
        self.start = self.last = time.monotonic()

    def at(self, done: int, note: str = "") -> None:
        """Report that `done` units are finished, followed by a note. The last unit is always reported."""
        now = time.monotonic()
        if now - self.last < self.every and done < self.total:
            return
        self.last = now
        rate = (done - self.first) / max(now - self.start, 1e-9)
        left = (self.total - done) / rate if rate else float("inf")
        print(f"{self.what} {done}/{self.total}  {rate:.1f}/s  {left / 60:.1f} min left  {note}".rstrip(), flush=True)
