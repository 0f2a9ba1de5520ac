"""Means over people with bootstrap intervals, and paired differences between methods.

The unit that is drawn is the person, never the image: the images of one face are not independent. A person's value is the mean
of their images that have one; a method's value is the mean of its people's values.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .score import Score

DRAWS = 10_000
SEED = 0
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval."""

    mean: float
    low: float
    high: float
    people: int
    images: int


def estimate(values: Mapping[str, Sequence[float]]) -> Estimate | None:
    """Return the mean over people, with the percentile interval of DRAWS bootstrap draws of people.

    Args:
        values: Values of images by person.

    Returns:
        None without values. The interval of a single person is that person's mean.
    """
    people = [np.mean(images) for _, images in sorted(values.items()) if len(images)]
    if not people:
        return None
    means = np.asarray(people, dtype=np.float64)
    random = np.random.Generator(np.random.PCG64(SEED))
    drawn = means[random.integers(len(means), size=(DRAWS, len(means)))].mean(1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(means.mean()), float(low), float(high), len(people), sum(map(len, values.values())))


def by_person(scores: Sequence[Score], column: str) -> dict[str, list[float]]:
    """Return a column's values by person."""
    found: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        if column in score.values:
            found[score.person].append(score.values[column])
    return found


def difference(scores: Sequence[Score], others: Sequence[Score], column: str) -> Estimate | None:
    """Return the mean difference between two methods, over images of both with the same person, prompt, head and number.

    Args:
        scores: Scores of a method.
        others: Scores of the method to subtract.
        column: The column.
    """
    subtracted = {score.key: score.values[column] for score in others if column in score.values}
    found: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        if column in score.values and score.key in subtracted:
            found[score.person].append(score.values[column] - subtracted[score.key])
    return estimate(found)
