"""Lines that say how far a long job is."""

import time


class Progress:
    """Prints how much is done, how fast, and how long it will still take, at most once every few seconds."""

    def __init__(self, what: str, total: int, done: int = 0, every: float = 10.0):
        """Start the clock.

        Args:
            what: The unit that is counted, as a plural.
            total: How many there are.
            done: How many were done before.
            every: Least seconds between two lines.
        """
        self.what, self.total, self.first, self.every = what, total, done, every
        self.start = self.last = time.monotonic()

    def at(self, done: int, note: str = "") -> None:
        """Say that `done` are done, with a note behind."""
        now = time.monotonic()
        if now - self.last < self.every and done < self.total:
            return
        self.last = now
        rate = (done - self.first) / max(now - self.start, 1e-9)
        left = (self.total - done) / rate if rate else float("inf")
        print(f"{self.what} {done}/{self.total}  {rate:.1f}/s  {left / 60:.1f} min left  {note}".rstrip(), flush=True)
