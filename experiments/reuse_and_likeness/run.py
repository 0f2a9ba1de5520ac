"""Prints how portraits of the miniature change if CapFace is evaluated at fewer steps, and with other values of likeness.

    python -m capface.experiments.reuse_and_likeness.run [--people 48] [--part reuse | likeness] [--csv FOLDER]

Every value is the mean difference from the same portraits at every step, or with likeness 1, person by person, with its 95 %
interval. The people are held out from training.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...miniature.networks import HELD_OUT, Miniature, load_miniature
from ...training.miniature.portrait_sampler import Recipe
from ..miniature_tables.tables import Row, Trial, evaluate_row, interval, make_row

COLUMNS = ("ID E", "ID R", "pose", "position", "light", "face L1")
SCHEDULES: dict[int, tuple[tuple[int, ...], ...]] = {
    4: ((0, 2), (0, 1), (0,)),
    8: ((0, 2, 4, 6), (0, 1, 2, 4), (0, 4), (0, 2), (0,)),
    20: ((0, 5, 10, 15), (0, 1, 3, 8), (0, 7, 14), (0, 10), (0, 4), (0,)),
    50: (tuple(range(0, 50, 5)), (0, 12, 24, 36, 48), (0, 2, 7, 20), (0, 25), (0,)),
}
"""Steps at which CapFace is evaluated, by the number of steps: evenly spaced, more densely at first, and only once."""
LIKENESS = (0.5, 1.5, 2.0, 3.0)
TAUS = (500.0, 1000.0)
ALPHAS = (0.0, 0.3)


@dataclass(frozen=True)
class Comparison:
    """A row of a table: a recipe and the one that it is compared with."""

    names: tuple[str, ...]
    recipe: Recipe
    base: Recipe


def reuse() -> Iterator[Comparison]:
    """Yield the rows about steps."""
    for steps, schedules in SCHEDULES.items():
        base = Recipe(steps=steps)
        for at in schedules:
            evaluated = f"{at[0]}, {at[1]}, … {at[-1]}" if len(at) > 6 else ", ".join(map(str, at))
            yield Comparison((str(steps), str(len(at)), evaluated), replace(base, evaluated=at), base)


def likeness() -> Iterator[Comparison]:
    """Yield the rows about likeness. In the last ones, residuals are kept for five steps as well."""
    for tau in reversed(TAUS):
        for alpha in ALPHAS:
            base = Recipe(tau=tau, alpha=alpha)
            for gamma in LIKENESS:
                yield Comparison((f"{gamma:g}", f"{tau:g}", f"{alpha:g}", "1"), replace(base, likeness=gamma), base)
    for alpha in ALPHAS:
        base = Recipe(alpha=alpha)
        kept = replace(base, likeness=2.0, evaluated=tuple(range(0, base.steps, 5)))
        yield Comparison(("2", "1000", f"{alpha:g}", "5"), kept, base)


PARTS = {
    "reuse": (("steps", "evaluations", "at the steps"), reuse),
    "likeness": (("gamma", "tau", "alpha", "every"), likeness),
}


class Portraits:
    """Metrics of portraits, made once for each recipe."""

    def __init__(self, miniature: Miniature, people: range):
        self.miniature = miniature
        self.trial = Trial.of(people)
        self._made: dict[Recipe, dict[str, Tensor]] = {}

    def metrics(self, recipe: Recipe) -> dict[str, Tensor]:
        """Return the metrics of each person's portrait."""
        if recipe not in self._made:
            row = Row("–", "", recipe)
            self._made[recipe] = evaluate_row(row, self.trial, make_row(row, self.trial, self.miniature), self.miniature)
        return self._made[recipe]

    def compare(self, comparison: Comparison) -> dict[str, tuple[float, float]]:
        """Return the mean differences with their intervals."""
        new, old = self.metrics(comparison.recipe), self.metrics(comparison.base)
        return {column: interval(new[column] - old[column]) for column in COLUMNS}


def print_part(name: str, portraits: Portraits, folder: Path | None) -> None:
    """Print a table, and write it as CSV if a folder is given."""
    heads, comparisons = PARTS[name]
    print(f"| {' | '.join((*heads, *COLUMNS))} |", f"| {' | '.join(['---'] * (len(heads) + len(COLUMNS)))} |", sep="\n")
    rows = []
    for comparison in comparisons():
        found = portraits.compare(comparison)
        cells = (f"{mean:+.3f} ± {half:.3f}" for mean, half in found.values())
        print(f"| {' | '.join((*comparison.names, *cells))} |", flush=True)
        rows.append([*comparison.names, *(f"{value:.3f}" for pair in found.values() for value in pair)])
    if folder:
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*heads, *(f"{column}{mark}" for column in COLUMNS for mark in ("", " ±"))])
            writer.writerows(rows)


def main(arguments: list[str]) -> int:
    """Run the study and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=48, help="number of people")
    parser.add_argument("--part", choices=PARTS, action="append", help="print only this table; can be repeated")
    parser.add_argument("--csv", type=Path, metavar="FOLDER", help="also write the tables into this folder")
    options = parser.parse_args(arguments)
    portraits = Portraits(load_miniature(), range(HELD_OUT, HELD_OUT + options.people))
    for name in options.part or PARTS:
        print(f"\n{name}: {options.people} people\n")
        print_part(name, portraits, options.csv)
    return 0


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main(sys.argv[1:]))
