"""The rule that chooses learning rates and numbers of steps, on other people than the table's."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean

POSE_FACTOR = 1.5
"""Largest pose error that is accepted, as a multiple of the landmark control's own."""
Line = Mapping[str, str]


def choose(lines: Iterable[Line], method: str) -> tuple[float, int]:
    """Choose a learning rate and a number of steps: the highest mean ID R at a pose error that is accepted.

    The pose error is accepted up to `POSE_FACTOR` times that of the landmark control alone. If it is always larger, the
    smallest one is chosen.

    Args:
        lines: Lines of rows.csv.
        method: The trained method.

    Returns:
        The learning rate and the number of steps.
    """
    lines = [line for line in lines if line["part"] == "choice"]
    limit = POSE_FACTOR * fmean(float(line["pose"]) for line in lines if line["method"] == "ControlNet")
    found: defaultdict[tuple[float, int], list[Line]] = defaultdict(list)
    for line in lines:
        if line["method"] == method:
            found[float(line["rate"]), int(line["steps"])].append(line)
    pose = {key: fmean(float(line["pose"]) for line in of) for key, of in found.items()}
    identity = {key: fmean(float(line["ID R"]) for line in of) for key, of in found.items()}
    accepted = [key for key in found if pose[key] <= limit]
    return max(accepted, key=lambda key: identity[key]) if accepted else min(found, key=lambda key: pose[key])
