"""Noise levels of a run, and residuals that are kept from one level for the next ones.

Whether residuals are kept is decided by the distance in noise. The number of requests says nothing about it: guidance may ask
once or twice at a level, samplers of higher order ask several times in a step, and some go back to more noise.
"""

import math
from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

MOST_KEPT = 2**30
"""Maximum number of bytes of residuals that a person keeps. Latents beyond it are evaluated at every step."""

_SAME = 1e-3
"""Tolerance for equal positions, in steps. Samplers compute sigmas in single precision."""


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
class Kept:
    """The residuals of one latent: a row of an evaluation's result."""

    position: float
    """Position of the noise level at which they were evaluated."""
    with_identity: bool
    """Whether the identity acted."""
    residuals: list[Tensor]
    row: int

    @property
    def size(self) -> int:
        """Size in bytes."""
        return sum(r[0].numel() * r.element_size() for r in self.residuals)


class KeptResiduals:
    """Residuals of latents, by what identifies a latent within a run."""

    def __init__(self, steps: int):
        """Start without any.

        Args:
            steps: Number of steps for which residuals are kept. With 1, they are never used again.
        """
        self.steps = steps
        self._rows: dict[Hashable, Kept] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """Drop all of them."""
        self._rows.clear()

    def find(self, key: Hashable, position: float, with_identity: bool) -> Kept | None:
        """Return residuals that hold at a position: evaluated less than `steps` before it, on the same side of tau."""
        kept = self._rows.get(key)
        serves = kept is not None and kept.with_identity == with_identity and self._reach(kept, position)
        return kept if serves else None

    def _reach(self, kept: Kept, position: float) -> bool:
        return -_SAME < position - kept.position < self.steps - _SAME

    def keep(self, rows: dict[Hashable, Kept]) -> bool:
        """Keep residuals evaluated at one noise level, and return whether there is memory for all of them.

        When memory is short, residuals that are too old to be used are dropped first.
        """
        wanted = sum(kept.size for kept in rows.values())
        others = {key: kept for key, kept in self._rows.items() if key not in rows}
        used = sum(kept.size for kept in others.values())
        if used + wanted > MOST_KEPT:
            now = next(iter(rows.values())).position
            others = {key: kept for key, kept in others.items() if self._reach(kept, now)}
            used = sum(kept.size for kept in others.values())
        fits = used + wanted <= MOST_KEPT
        self._rows = others | rows if fits else others
        return fits
