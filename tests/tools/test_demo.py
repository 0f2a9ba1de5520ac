"""The demo without a ComfyUI, started as by `tasks.py`: the contact sheet, and the synthetic person."""

import subprocess
import sys

import numpy as np
from PIL import Image


def demo(*arguments):
    """Run the demo without a ComfyUI."""
    command = [sys.executable, "-m", "capface.tools.demo", *arguments]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)


def test_the_sheets_are_made(tmp_path):
    run = demo("--out", tmp_path)
    assert run.returncode == 0, run.stderr
    sheet = tmp_path / "contact-sheet.png"
    people = tmp_path / "synthetic-person.png"
    assert run.stdout.splitlines()[-2:] == [f"synthetic person: {people}", f"contact sheet: {sheet}"]
    for path in (sheet, people):
        with Image.open(path) as picture:
            assert np.asarray(picture).std() > 40


def test_a_photo_without_a_face_stops_with_a_message(tmp_path):
    Image.new("RGB", (300, 200), "grey").save(tmp_path / "grey.png")
    run = demo(tmp_path / "grey.png", "--out", tmp_path)
    assert run.returncode == 1
    assert "The demo stopped: There is no face in the image." in run.stderr
    assert "Traceback" not in run.stderr
