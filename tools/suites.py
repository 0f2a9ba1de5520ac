"""The test suite in groups: what each group runs, its result, and a table of all results. Needs only the standard library."""

import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

PACK = Path(__file__).resolve().parent.parent
_SLOWEST = "--durations=8"
_SIDE_BY_SIDE = (_SLOWEST, "--numprocesses=2", "--dist=loadfile")
# Tests that start browsers or other packs run separately: they move a mouse, or need much memory.
_APART = {"browser": "tests/browser", "neighbours": "tests/neighbours"}
_IGNORED = tuple(f"--ignore={folder}" for folder in _APART.values())
NO_HOST = (*_SIDE_BY_SIDE, "-m", "not host", *_IGNORED)
"""Pytest arguments for all tests that need no ComfyUI."""
DIFFERS = {
    "host": (
        "tests/host/test_compat.py",
        "tests/host/test_control.py",
        "tests/host/test_other_controls.py",
        "tests/host/test_parts.py",
        "tests/host/test_process.py",
        "tests/host/test_reuse.py",
        "tests/host/test_route.py",
        "tests/host/test_sampling.py",
        "tests/host/test_surface.py",
    ),
    "browser": (
        "tests/browser/test_editor.py::test_the_mouse_writes_the_widgets",
        "tests/browser/test_editor.py::test_a_saved_workflow_has_its_values_in_the_schemas_order",
        "tests/browser/test_editor.py::test_sections_collapse_and_change_only_the_appearance",
    ),
    "neighbours": ("tests/neighbours", "-k", "tiles or animatediff"),
}
"""The tests whose result can differ between ComfyUI versions, by group: `python tasks.py test --brief`."""


@dataclass
class Result:
    """The result of one group of tests on one ComfyUI and frontend."""

    group: str
    host: str = ""
    frontend: str = ""
    passed: int = 0
    failed: int = 0
    errors: int = 0
    skipped: int = 0
    seconds: float = 0.0
    ok: bool = True
    """Whether pytest ended with status 0. A run that crashed has no counts and is not ok."""

    def __str__(self):
        return f"{self.group} (ComfyUI {self.host}, frontend {self.frontend})" if self.host else self.group


def host_groups(*, brief=False, newest=False):
    """Return the groups that need a ComfyUI, with their pytest arguments.

    A brief run takes only the tests whose result can differ between versions. On the newest ComfyUI this applies only to the
    browser tests, which take longest.
    """
    everything = {"host": ("-m", "host", *_IGNORED), **{group: (folder,) for group, folder in _APART.items()}}
    groups = everything
    if brief:
        groups = {**everything, "browser": DIFFERS["browser"]} if newest else DIFFERS
    return {
        group: (*(_SIDE_BY_SIDE if group == "host" else (_SLOWEST,)), *arguments)
        for group, arguments in groups.items()
        if group == "host" or (PACK / _APART[group]).is_dir()
    }


def run_pytest(python, arguments, environ, result):
    """Run pytest, passing its output through, and fill in and return `result`."""
    with tempfile.TemporaryDirectory(prefix="capface-test-") as folder:
        report = Path(folder) / "report.xml"
        start = time.monotonic()
        command = [str(python), "-m", "pytest", "-ra", *arguments, f"--junitxml={report}"]
        result.ok = subprocess.call(command, cwd=PACK, env=environ) == 0
        result.seconds = time.monotonic() - start
        if report.is_file():
            count(report, result)
    return result


def count(report, result):
    """Add the counts of a report in JUnit's format to `result`."""
    for case in ET.parse(report).iter("testcase"):
        tags = {child.tag for child in case}
        result.failed += "failure" in tags
        result.errors += "error" in tags
        result.skipped += "skipped" in tags
        result.passed += not tags & {"failure", "error", "skipped"}


def table(results):
    """Format the results as a Markdown table."""
    rows: list[tuple[str, ...]] = [("ComfyUI", "frontend", "tests", "passed", "failed", "errors", "skipped", "seconds", "")]
    for r in results:
        numbers = map(str, (r.passed, r.failed, r.errors, r.skipped, round(r.seconds)))
        rows.append((r.host, r.frontend, r.group, *numbers, "" if r.ok else "FAILED"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *lines = ("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows)
    return "\n".join([head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines])
