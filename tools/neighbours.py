"""The table of third-party packs that CapFace was tested with, from the latest results of tests/neighbours on each ComfyUI.

python -m pytest -m neighbours                 with COMFYUI_PATH and PACKS set; measures on one ComfyUI
python -m capface.tools.neighbours             prints the table of all ComfyUIs measured so far
python -m capface.tools.neighbours --docs      writes it into docs/works_with.md
"""

import json
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parent.parent
KEPT = PACK / "output" / "neighbours"
PAGE = PACK / "docs" / "works_with.md"
BEGIN, END = "<!-- table: tools/neighbours.py -->", "<!-- end of the table -->"


def keep(rows, host):
    """Save the rows of one ComfyUI, replacing rows of the same cases."""
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{host}.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    new = {row["case"] for row in rows}
    kept = [row for row in old if row["case"] not in new] + [{**row, "trace": ""} for row in rows]
    path.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def lines(rows):
    """Format the rows as a plain table for a terminal."""
    yield f"{'pack':24} {'version':18} {'method':44} {'ControlNet':10} {'CapFace':8} worst error"
    for row in rows:
        state = ["ok" if row[who] == "ok" else "error" for who in ("stock", "capface")]
        state[1] = "wrong" if misplaced(row) else state[1]
        yield f"{row['pack']:24} {row['version']:18} {row['method']:44} {state[0]:10} {state[1]:8} {shown(row['error'])}"
        if row["capface"] != "ok":
            yield f"    {row['capface']}"


def misplaced(row):
    """Return whether a part's head was further off than the case allows."""
    return row["error"] is not None and row.get("tolerance") is not None and row["error"] > row["tolerance"]


def shown(error):
    """Format a relative error for a table."""
    return "-" if error is None else "0" if error < 5e-7 else f"{error:.1g}" if error < 1e-3 else f"{error:.3f}"


def table(hosts):
    """Format a Markdown table for `hosts`: version -> rows.

    A cell holds CapFace's state, the ControlNet's state if it differs, and the error.
    """
    names = sorted(hosts, key=lambda name: [int(n) for n in name.split(".")])
    cases = {row["case"]: row for name in names for row in hosts[name]}
    order = [case.name for case in _cases()]
    yield f"| Pack | Version | Way | {' | '.join(names)} |"
    yield f"|---|---|---|{'---|' * len(names)}"
    for case in sorted(cases, key=lambda name: order.index(name) if name in order else len(order)):
        cells = []
        for name in names:
            row = next((row for row in hosts[name] if row["case"] == case), None)
            cells.append(cell(row))
        first = cases[case]
        way = first["method"] + (", all packs in one ComfyUI" if first["group"] == "together" else "")
        yield f"| {first['pack']} | {first['version']} | {way} | {' | '.join(cells)} |"


def cell(row):
    """Format the result of one case on one ComfyUI."""
    if row is None:
        return "not run"
    if row["capface"] == row["stock"] != "ok":
        return row["capface"] if row["capface"].startswith("does not") else "fails, so does a ControlNet"
    state = "fails" if row["capface"] != "ok" else "wrong place" if misplaced(row) else "ok"
    if (row["stock"] == "ok") != (row["capface"] == "ok"):
        state += ", a ControlNet " + ("works" if row["stock"] == "ok" else "fails")
    return state if row["error"] is None else f"{state}, {shown(row['error'])}"


def _cases():
    from capface.tests.neighbours.cases import CASES

    return CASES


def main():
    """Print the table, or write it into the page."""
    hosts = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in KEPT.glob("*.json")}
    if not hosts:
        sys.exit("nothing measured yet: run python -m pytest -m neighbours")
    text = "\n".join(table(hosts))
    if "--docs" not in sys.argv:
        print(text)
        return
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
