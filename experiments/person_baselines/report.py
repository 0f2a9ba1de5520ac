"""Writes the tables of README.md and table.csv from rows.csv: `python -m capface.experiments.person_baselines.report`.

Every value is the mean over people of the means of their portraits, with the percentile interval of bootstrap draws of people.
Differences are from CapFace, person by person.
"""

import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .choice import POSE_FACTOR, choose
from .run import LONGER, MAPS, NAMES, PARTS, PORTRAITS, RATES, ROWS, STEPS

README, TABLE = ROWS.with_name("README.md"), ROWS.with_name("table.csv")
DRAWS, SEED = 10_000, 20
COLUMNS = ("ID E", "ID R", "pose", "pull", "position", "light", "face L1", "prompt")
REFERENCE = "CapFace"
METHODS = {
    "drawn target": "drawn target (attainable)", "head control": "head control alone", "ControlNet": "landmark ControlNet",
    "word": "textual inversion + ControlNet", "lora": "LoRA + ControlNet", "whole": "DreamBooth + ControlNet",
    "CapFace": "CapFace", "CapFace + pi*": "CapFace + pi*, alpha = 0.5",
    f"word{MAPS}": "textual inversion + head control", f"lora{MAPS}": "LoRA + head control",
    f"whole{MAPS}": "DreamBooth + head control",
}  # fmt: skip
"""Names of the methods in the tables, in order."""
PAPER = {
    "ControlNet": (0.0534, 0.0494, 90.32), "word": (0.4857, 0.0516, 13.70), "lora": (0.5860, 0.0446, 35.96),
    "whole": (0.6860, 0.0441, 39.21), "CapFace": (0.8363, 0.0436, 74.17),
}  # fmt: skip
"""The paper's table 1: identity, RMSE of DECA's pose, and prompt accuracy in percent."""
Line = dict[str, str]


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of people's values `[N]`, and the limits of its 95 % bootstrap interval."""
    rows = np.random.Generator(np.random.PCG64(SEED)).integers(len(values), size=(DRAWS, len(values)))
    low, high = np.percentile(values[rows].mean(1), (2.5, 97.5))
    return float(values.mean()), float(low), float(high)


def values_of(lines: Sequence[Line], method: str, column: str, people: Sequence[int]) -> np.ndarray:
    """Return a method's values for people, in their order."""
    found = {int(line["person"]): float(line[column]) for line in lines if line["method"] == method}
    return np.array([found[person] for person in people])


def complete_people(lines: Sequence[Line]) -> list[int]:
    """Return the people of the table who have the rows of all methods."""
    by_person: dict[int, set[str]] = {}
    for line in lines:
        by_person.setdefault(int(line["person"]), set()).add(line["method"])
    return sorted(person for person, methods in by_person.items() if set(METHODS) <= methods)


def tables(lines: Sequence[Line]) -> tuple[dict[str, str], list[list[str]]]:
    """Return the Markdown blocks by their names in README.md, and the lines of table.csv."""
    test = [line for line in lines if line["part"] == "people"]
    people = complete_people(test)
    means, differences = [_head("method", *COLUMNS)], [_head(f"method - {REFERENCE}", *COLUMNS)]
    sheet = [["method", "column", "mean", "low", "high", "difference", "difference low", "difference high", "people"]]
    for method, name in METHODS.items():
        cells, changes = [], []
        for column in COLUMNS:
            values = values_of(test, method, column, people)
            change = interval(values - values_of(test, REFERENCE, column, people))
            mean = interval(values)
            cells.append("{:.3f} [{:.3f}, {:.3f}]".format(*mean))
            changes.append("{:+.3f} [{:+.3f}, {:+.3f}]".format(*change))
            sheet.append([name, column, *(f"{value:.4f}" for value in (*mean, *change)), str(len(people))])
        means.append(_row(name, *cells))
        if method != REFERENCE:
            differences.append(_row(name, *changes))
    return {
        "people": f"{len(people)} people, {PORTRAITS} portraits of each by each method.",
        "table": "\n".join(means),
        "differences": "\n".join(differences),
        "curve": "\n".join(_curve(lines)),
        "paper": "\n".join(_paper(test, people)),
    }, sheet


def _paper(lines: Sequence[Line], people: Sequence[int]) -> list[str]:
    """Return the rows that compare with the paper's order."""
    rows = [_head("method", "paper: ID", "ID E", "ID R", "paper: pose", "pose", "paper: acc. %", "prompt %")]
    for method, (identity, pose, accuracy) in PAPER.items():
        e, r, p, a = (values_of(lines, method, column, people).mean() for column in ("ID E", "ID R", "pose", "prompt"))
        cells = (f"{identity:.4f}", f"{e:.3f}", f"{r:.3f}", f"{pose:.4f}", f"{p:.1f}°", f"{accuracy:.1f}", f"{100 * a:.1f}")
        rows.append(_row(METHODS[method], *cells))
    return rows


def _curve(lines: Sequence[Line]) -> list[str]:
    """Return the rows of the curves over steps, of the people that chose."""
    here = [line for line in lines if line["part"] in ("choice", "curve")]
    columns = ("ID E", "ID R", "pose", "pull", "prompt")

    def means(found: Sequence[Line]) -> dict[str, float]:
        return {column: float(np.mean([float(line[column]) for line in found])) for column in columns}

    untrained = {name: means([line for line in here if line["method"] == name]) for name in ("ControlNet", "CapFace")}
    limit = POSE_FACTOR * untrained["ControlNet"]["pose"]
    rows = [_head("method", "rate", "steps", *columns, f"pose to {limit:.1f}", "choice")]
    for method, rates in RATES.items():
        choice = choose(lines, method)
        for key in ((rate, steps) for rate in rates for steps in (*STEPS[method], *LONGER[method])):
            found = [li for li in here if (li["method"], float(li["rate"]), int(li["steps"])) == (method, *key)]
            if found:
                mean = means(found)
                note = "**chosen**" if key == choice else "" if key[1] in STEPS[method] else "not offered"
                cells = (*(f"{value:.3f}" for value in mean.values()), "yes" if mean["pose"] <= limit else "no", note)
                rows.append(_row(NAMES[method], f"{key[0]:g}", str(key[1]), *cells))
    for name, mean in untrained.items():
        rows.append(_row(METHODS[name], "–", "–", *(f"{value:.3f}" for value in mean.values()), "–", ""))
    return rows


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _head(*cells: str) -> str:
    return f"{_row(*cells)}\n{_row(*['---'] * len(cells))}"


def write(lines: Sequence[Line], readme: Path = README, table: Path = TABLE) -> None:
    """Replace the blocks of the page, which are between `<!-- NAME -->` and `<!-- end -->`, and write the sheet."""
    blocks, sheet = tables(lines)
    text = readme.read_text(encoding="utf-8")
    for name, block in blocks.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda found, block=block: f"{found[1]}\n{block}\n\n{found[2]}", text)
        assert count == 1, f"{readme} has {count} blocks {name}"
    readme.write_text(text, encoding="utf-8")
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(sheet)


def main() -> int:
    """Write the tables and return the exit status."""
    with ROWS.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    missing = len(PARTS["people"]) - len(complete_people([line for line in lines if line["part"] == "people"]))
    write(lines)
    if missing:
        print(f"{missing} people are missing: run run.py again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
