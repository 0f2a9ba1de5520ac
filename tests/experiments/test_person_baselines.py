"""The study of models of one person: its rule, its intervals, and that the page holds what its rows give."""

import csv

import numpy as np
import pytest

pytest.importorskip("accelerate")

from capface.experiments.person_baselines.choice import choose
from capface.experiments.person_baselines.report import METHODS, README, TABLE, complete_people, interval, tables, write
from capface.experiments.person_baselines.run import COLUMNS, FIELDS, KEYS, PARTS, RATES, ROWS, Key, Rows


def line(method, rate=0.0, steps=0, *, part="choice", person=1, pose=5.0, identity=0.5):
    values = dict.fromkeys(COLUMNS, "0") | {"pose": str(pose), "ID R": str(identity)}
    keys = {"part": part, "person": str(person), "method": method, "rate": str(rate), "steps": str(steps), "seconds": "1"}
    return {**keys, **values}


def test_the_rule_takes_the_best_identity_at_an_accepted_pose():
    lines = [
        line("ControlNet", pose=4.0),
        line("ControlNet", pose=100.0, part="people"),
        line("lora", 1e-3, 50, pose=5.0, identity=0.3),
        line("lora", 1e-3, 100, pose=7.0, identity=0.6),
        line("lora", 1e-3, 100, pose=5.0, identity=0.4, person=2),
        line("lora", 2e-3, 100, pose=6.1, identity=0.9),
        line("lora", 5e-3, 10, pose=1.0, identity=0.9, part="people"),
        line("whole", 1e-3, 25, pose=9.0, identity=0.9),
        line("whole", 1e-3, 50, pose=8.0, identity=0.1),
    ]
    assert choose(lines, "lora") == (1e-3, 100)  # a mean pose of exactly 6, 1.5 times the control's
    assert choose(lines, "whole") == (1e-3, 50)  # none is accepted: the smallest pose error


def test_an_interval_is_of_the_mean_over_people():
    values = np.random.Generator(np.random.PCG64(1)).normal(2, 1, 400)
    mean, low, high = interval(values)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert interval(np.full(5, 3.0)) == (3, 3, 3)


def test_differences_are_paired():
    lines = [line("ControlNet"), line("CapFace"), *(line(m, 1e-3, 50) for m in ("word", "lora", "whole"))]
    for person in range(6):
        for method in METHODS:
            trained = method.split()[0] in ("word", "lora", "whole")
            shift = 0.25 if method == "lora" else 0.0
            lines.append(line(method, 1e-3 * trained, 50 * trained, part="people", person=person, identity=person + shift))
    lines.append(line("CapFace", part="people", person=99))  # has not all methods
    blocks, sheet = tables(lines)
    assert blocks["people"].startswith("6 people")
    assert complete_people([li for li in lines if li["part"] == "people"]) == list(range(6))
    (row,) = (row for row in blocks["differences"].splitlines() if row.startswith("| LoRA + ControlNet"))
    assert "+0.250 [+0.250, +0.250]" in row
    (cells,) = (cells for cells in sheet if cells[:2] == ["LoRA + ControlNet", "ID R"])
    assert cells[2] == "2.7500" and cells[5:8] == ["0.2500"] * 3 and float(cells[3]) < 2.5


def test_rows_are_appended_and_read_again(tmp_path):
    import torch

    rows = Rows(tmp_path / "rows.csv")
    key = Key("people", 1_000_003, "lora", 0.002, 50)
    rows.add(key, {column: torch.tensor([1.0, 2.0]) for column in COLUMNS}, 3.0)
    again = Rows(tmp_path / "rows.csv")
    assert again.made == {key} and again.lines == rows.lines
    assert again.lines[0]["pose"] == "1.5000" and list(again.lines[0]) == list(FIELDS)


def test_the_page_and_the_sheet_hold_what_the_rows_give(tmp_path):
    with ROWS.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(complete_people([li for li in lines if li["part"] == "people"])) >= 32
    assert {int(li["person"]) for li in lines if li["part"] != "people"}.isdisjoint(PARTS["people"])
    for method in RATES:
        used = {(float(li["rate"]), int(li["steps"])) for li in lines if li["part"] == "people" and li["method"] == method}
        assert used == {choose(lines, method)}, "the table's people are trained as the other people chose"
    assert len(lines) == len({tuple(li[key] for key in KEYS) for li in lines}), "no row is there twice"
    (tmp_path / "README.md").write_text(README.read_text(encoding="utf-8"), encoding="utf-8")
    write(lines, tmp_path / "README.md", tmp_path / "table.csv")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == README.read_text(encoding="utf-8")
    assert (tmp_path / "table.csv").read_text(encoding="utf-8") == TABLE.read_text(encoding="utf-8")
