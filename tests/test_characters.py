"""Sources, logs and printed texts contain only characters of CP1252, which a Windows console can show."""

import ast
import os
import subprocess
import sys

import pytest

from capface.tests.conftest import ROOT

SHOWN_BY_THE_BROWSER = {"tooltip", "display_name", "description"}
"""Keywords whose texts are sent to the frontend as JSON; they may contain any character, written as an escape."""


def sources():
    """Every Python file of the project, as users and contributors get it."""
    left_out = {"output", "__pycache__"}
    tops = [top for top in sorted(ROOT.iterdir()) if top.name not in left_out and not top.name.startswith(".")]
    return [path for top in tops for path in (sorted(top.rglob("*.py")) if top.is_dir() else [top]) if path.suffix == ".py"]


def foreign(text):
    """Return the characters of a text that CP1252 lacks."""
    return "".join(c for c in text if not c.encode("cp1252", "ignore"))


def messages(source):
    """Return the texts of a source that may be logged or printed, with escapes resolved: all except those for the browser."""
    elsewhere = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in SHOWN_BY_THE_BROWSER:
            elsewhere |= {id(part) for part in ast.walk(node.value)}
    return [
        n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in elsewhere
    ]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sources_use_only_characters_of_a_console(path):
    source = path.read_text(encoding="utf-8")
    assert [(number, found) for number, line in enumerate(source.splitlines(), 1) if (found := foreign(line))] == []
    if path.relative_to(ROOT).parts[0] != "tests":
        assert [text for text in messages(source) if foreign(text)] == []


def test_other_characters_are_detected():
    assert foreign("20° · ½ … — “é” ×") == "" and foreign("\u03c4 \u2212 x") == "\u03c4\u2212"
    source = 'x = io.Float.Input("tau", tooltip="\\u03c4 of " "eq. 8")\nlog(f"\\N{GREEK SMALL LETTER TAU} is {t}")'
    assert messages(source) == ["tau", "\u03c4 is "]


@pytest.mark.parametrize("command", [["--help"], ["test", "--help"], ["check", "--comfyui", "\u982d"]], ids=lambda c: c[0])
def test_the_command_line_prints_to_a_narrow_console(command):
    environ = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, str(ROOT / "tasks.py"), *command], env=environ, capture_output=True)
    assert done.returncode in (0, 1) and b"Traceback" not in done.stderr and b"codec" not in done.stderr
    assert done.stdout + done.stderr
