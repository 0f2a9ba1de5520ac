"""Noise levels of a run, and residuals that are kept from one level for the next ones.

Whether residuals are kept is decided by the distance in noise. The number of requests says nothing about it: guidance may ask
once or twice at a level, samplers of higher order ask several times in a step, and some go back to more noise.
"""

import math
from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

MOST_KEPT = 2**30
"""Maximum number of bytes of residuals that a person or a ControlNet keeps. Latents beyond it are evaluated at every step."""

_SAME = 1e-3
"""Tolerance for equal positions, in steps. Samplers compute sigmas in single precision."""


T = TypeVar("T")


@dataclass(frozen=True)
class NoiseLevel:
    """How noisy a request's latents are."""

    sigma: float
    timestep: float
    """The model's own, in 0..999."""
    position: float | None = None
    """Position in the run's schedule, in steps from 0. None if the schedule is not known."""


def descending(sigmas: Sequence[float]) -> tuple[float, ...]:
    """Return the different sigmas of a schedule above 0, highest first."""
    return tuple(sorted({sigma for sigma in sigmas if sigma > 0}, reverse=True))


def position_in(schedule: Sequence[float], sigma: float) -> float | None:
    """Return the position of a sigma in a schedule: 0 at its first sigma, 1 at the second, and between them by log sigma.

    Args:
        schedule: Sigmas above 0, highest first.
        sigma: A sigma. Above the first one, the position is 0.

    Returns:
        The position in steps, or None without a schedule.
    """
    if not schedule:
        return None
    after = bisect_left(schedule, -sigma, key=lambda s: -s)
    if after == 0:
        return 0.0
    if after == len(schedule):
        return after - 1 + (schedule[-1] - max(sigma, 0.0)) / schedule[-1]
    above, below = schedule[after - 1], schedule[after]
    return after - 1 + math.log(above / sigma) / math.log(above / below)


@dataclass(frozen=True, eq=False)
class Kept(Generic[T]):
    """Residuals that are kept."""

    position: float
    """Position of the noise level at which they were evaluated."""
    state: Hashable
    """What else they hold for, such as whether the identity acted."""
    residuals: T
    size: int
    """Size in bytes."""


class KeptResiduals(Generic[T]):
    """Residuals by what identifies a latent, or several, within a run."""

    def __init__(self, steps: int):
        """Start without any.

        Args:
            steps: Number of steps for which residuals are kept. With 1, they are never used again.
        """
        self.steps = steps
        self._run: object | None = None
        self._kept: dict[Hashable, Kept[T]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Drop all of them."""
        self._run = None
        self._kept.clear()

    def begin(self, run: object | None) -> None:
        """Drop the residuals of any other run than this one."""
        if run is not self._run:
            self.clear()
            self._run = run

    def find(self, key: Hashable, position: float, state: Hashable) -> T | None:
        """Return residuals that hold at a position: evaluated in the same state, less than `steps` before it."""
        kept = self._kept.get(key)
        if kept is None or kept.state != state or not self._reaches(kept, position):
            return None
        return kept.residuals

    def _reaches(self, kept: Kept[T], position: float) -> bool:
        return -_SAME < position - kept.position < self.steps - _SAME

    def keep(self, new: dict[Hashable, Kept[T]]) -> bool:
        """Keep residuals evaluated at one noise level, and return whether there is memory for all of them.

        When memory is short, residuals that are too old to be used are dropped first.
        """
        others = {key: kept for key, kept in self._kept.items() if key not in new}
        if _size(others) + _size(new) > MOST_KEPT:
            now = next(iter(new.values())).position
            others = {key: kept for key, kept in others.items() if self._reaches(kept, now)}
        fits = _size(others) + _size(new) <= MOST_KEPT
        self._kept = others | new if fits else others
        return fits


def _size(kept: dict[Hashable, Kept[T]]) -> int:
    return sum(one.size for one in kept.values())
