"""CapFace together with other packs' real code in the host, in one process per group.

The packs are in the folders listed in PACKS (separated like PATH), else in ~/comfy/packs. Cases of missing packs are
skipped.
The rows are also written to output/neighbours/<host's version>.json, from which tools/neighbours.py makes a table.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from capface.tests.neighbours.cases import CASES, GROUPS
from capface.tests.neighbours.packs import PackMissing, pack_folder
from capface.tools.comfy import find_host, host_version

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SECONDS = 1200  # for a group: a busy machine takes several times as long as an idle one
rows = {}


def pytest_configure(config):
    config.addinivalue_line("markers", "neighbours: needs a ComfyUI and other packs (PACKS, or ~/comfy/packs)")


def pytest_collection_modifyitems(items):
    """Mark all tests here, so that `-m "not neighbours"` excludes them."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.neighbours)


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """`results(group)` runs a group's cases once and returns the rows by case, and the end of the log."""
    done = {}
    comfyui = find_host()

    def run(group):
        if comfyui is None:
            pytest.skip("no ComfyUI: set COMFYUI_PATH, or put one into ~/comfy/ComfyUI")
        if not any(_is_there(name) for name in GROUPS[group]):
            pytest.skip(f"no pack of {', '.join(GROUPS[group])}: set PACKS to the folder that holds them")
        if group not in done:
            out = tmp_path_factory.mktemp("neighbours")
            done[group] = _run_group(group, comfyui, out)
        return done[group]

    return run


def _is_there(name):
    try:
        return bool(pack_folder(name))
    except PackMissing:
        return False


def _run_group(group, comfyui, out):
    command = [sys.executable, "-m", "capface.tests.neighbours.runner", group, str(out / "rows.jsonl")]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "COMFYUI_PATH": str(comfyui), "HF_HUB_OFFLINE": "1"}
    with (out / "log.txt").open("wb") as log:
        try:
            subprocess.run(command, stdout=log, stderr=log, env=environment, timeout=SECONDS, cwd=ROOT, check=False)
        except subprocess.TimeoutExpired:
            log.write(f"\nstopped after {SECONDS} s\n".encode())
    lines = (out / "rows.jsonl").read_text(encoding="utf-8").splitlines() if (out / "rows.jsonl").exists() else []
    found = {row["case"]: row for row in map(json.loads, lines)}
    rows.update({name: row for name, row in found.items() if "missing" not in row})
    return found, (out / "log.txt").read_text(encoding="utf-8", errors="replace")[-3000:]


def pytest_terminal_summary(terminalreporter):
    """Print the table and save it for tools/neighbours.py."""
    if not rows:
        return
    from capface.tools.neighbours import keep, lines

    ordered = [rows[case.name] for case in CASES if case.name in rows]
    keep(ordered, host_version(find_host()))
    terminalreporter.section("beside other packs")
    for line in lines(ordered):
        terminalreporter.write_line(line)
