"""A small manifest of folders of photos, and a fake ComfyUI that fails on demand.

No test depends on the machine's speed. Tests wait for what has happened (`until`), the fake ComfyUI waits for them (`[gate]`),
and a clock that runs fast tells a hanging ComfyUI.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from capface.iphc.comfy_host import HostSettings
from capface.iphc.manifest import read_manifest

FAKE = Path(__file__).with_name("fake_comfy")
SECONDS = 300
"""After these, a test gives up waiting for what must happen."""
GRAPH = {
    "1": ("LoadImage", {"image": "x.png"}, "@photo"),
    "2": ("CLIPTextEncode", {"text": ""}, "@prompt The prompt"),
    "3": ("CapFaceEditHead", {}, "@head"),
    "4": ("KSampler", {"seed": 0, "steps": 1, "cfg": 1.0}, "@seed @sampling"),
    "5": ("SaveImage", {}, "@output"),
    "6": ("CapFaceApply", {"tau": 1000, "model": ["4", 0]}, "Apply"),
}


def alive(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # a container without an init leaves ended processes behind as zombies
    return "Z" not in subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout


def until(happened: Callable[[], object], what: str) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < end, f"{what} did not happen within {SECONDS} s"
        time.sleep(0.02)


def hurry_clock(monkeypatch, hanging: Callable[[], bool]) -> None:
    """Let the client of ComfyUI, which measures silence, see a clock that gains an hour at each look while ComfyUI hangs."""
    gained = 0.0

    def monotonic():
        nonlocal gained
        gained += 3600 * hanging()
        return time.monotonic() + gained

    monkeypatch.setattr("capface.tools.comfy.time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))


def workflow(**changes):
    """A workflow of the fake ComfyUI; `changes` are titles by node id, or None to leave the node out."""
    nodes = {
        key: {"class_type": kind, "inputs": inputs, "_meta": {"title": changes.get(f"n{key}", title)}}
        for key, (kind, inputs, title) in GRAPH.items()
    }
    return {key: node for key, node in nodes.items() if node["_meta"]["title"] is not None}


class Bench:
    """A folder with photos, a workflow and a manifest."""

    def __init__(self, folder):
        self.folder, self.file, self.out = folder, folder / "manifest.json", folder / "out"
        (folder / "photos").mkdir()
        for i, name in enumerate(("ann", "bob")):
            Image.fromarray(np.full((8, 8, 3), 60 * i, np.uint8)).save(folder / "photos" / f"{name}.png")
        self.write("workflow.json", workflow())
        self.content = {
            "name": "test", "seed": 5, "people": {"photos": "photos"}, "prompts": ["a {subject} at sea",
            "a {subject} in a hat"],
            "heads": {"left": {"yaw": -20}, "right": {"yaw": 20}}, "images": 2, "unit_images": 4, "size": [64, 64],
            "sampling": {"steps": 3}, "metrics": [], "methods": {"one": {"workflow": "workflow.json"}},
        }  # fmt: skip

    def write(self, name, content):
        (self.folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")

    def manifest(self, **changes):
        """Write the manifest with changes, and read it."""
        self.content |= changes
        self.write("manifest.json", self.content)
        return read_manifest(self.file)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Settings of the fake ComfyUI; `fake_log` returns what it did."""
    (tmp_path / "fake").mkdir()
    monkeypatch.setenv("FAKE_COMFY", str(tmp_path / "fake"))
    return HostSettings(str(FAKE), cpu=True, start_seconds=SECONDS, silence=SECONDS)


@pytest.fixture
def fake_log(tmp_path):
    def read(word=""):
        file = tmp_path / "fake" / "log.txt"
        return [line for line in file.read_text().splitlines() if line.startswith(word)] if file.exists() else []

    return read
