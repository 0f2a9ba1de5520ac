"""The recorded results of the miniature's tables are complete, and docs/miniature.md quotes them."""

import csv

import pytest

from capface.experiments.miniature_tables.tables import COLUMNS, CONTRASTS, PAPER, ROWS
from capface.tests.conftest import ROOT

FOLDER = ROOT / "experiments" / "miniature_tables"


def recorded(name):
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_is_recorded_in_order():
    found = recorded("rows.csv")
    for row, cells in zip(ROWS, found, strict=True):
        assert cells["table"] == row.table
        assert cells["row"].startswith(row.name)
        assert cells["the paper"] == PAPER.get((row.table, row.name), "")


def test_every_contrast_is_recorded_in_order():
    assert [cells["difference"] for cells in recorded("contrasts.csv")] == [f"{one} - {other}" for one, other in CONTRASTS]


@pytest.mark.parametrize("name", ["rows.csv", "contrasts.csv"])
def test_every_metric_has_a_mean_and_an_interval(name):
    for cells in recorded(name):
        for column in COLUMNS:
            assert abs(float(cells[column])) < 20
            assert 0 <= float(cells[f"{column} ±"]) < 2


def test_the_page_quotes_the_recorded_results():
    lines = (ROOT / "docs" / "miniature.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| table | row "))
    names, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[start : lines.index("", start)]]
    known = {(cells["table"], cells["row"]): cells for cells in recorded("rows.csv")}
    assert 8 <= len(rows[1:]) <= 12
    for row in rows[1:]:
        quoted = dict(zip(names, row, strict=True))
        cells = known[quoted["table"], quoted["row"]]
        for column in set(names) & set(COLUMNS):
            assert quoted[column] == f"{cells[column]} ± {cells[f'{column} ±']}"
