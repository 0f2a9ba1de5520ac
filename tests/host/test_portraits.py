"""docs/portraits.py with a real ComfyUI, and the statements of docs/api.md about the shipped workflow."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import skimage.data
from PIL import Image

from capface.tests.conftest import ROOT
from capface.tools.comfy import ComfyClient, ComfyProcess, model_folders, request

SMALL = ["13.width=128", "13.height=128", "14.steps=2", "10.text=a person"]


@pytest.fixture(scope="module")
def client(comfyui, standins):
    """A running ComfyUI. The folder's name contains no space, because ComfyUI would not serve browser files from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONSAFEPATH", "1")  # as tasks.py sets it for the demo
        with ComfyProcess(comfyui, model_folders(standins), folder="capface") as process, ComfyClient(process) as client:
            yield client


def make(client, photos, portraits, *more):
    """Run the script; return its lines and its status."""
    command = [sys.executable, str(ROOT / "docs" / "portraits.py"), str(photos), str(portraits), "--server", client.process.url]
    command += [word for change in SMALL for word in ("--set", change)]
    environ = dict(os.environ, PYTHONUTF8="1", NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
    done = subprocess.run([*command, *more], capture_output=True, text=True, encoding="utf-8", env=environ, timeout=500)
    return done.stdout.splitlines(), done


def test_a_folder_of_photos(client, tmp_path):
    photos, portraits = tmp_path / "photos", tmp_path / "portraits"
    photos.mkdir()
    Image.fromarray(skimage.data.astronaut()).save(photos / "astronaut é.jpg")
    Image.fromarray(np.full((256, 256, 3), 128, np.uint8)).save(photos / "grey.png")
    lines, done = make(client, photos, portraits)
    assert len(lines) == 2, done.stderr
    assert lines[0].endswith("astronaut é.jpg.png")
    assert lines[1].startswith("grey.png: failed: ") and "no face" in lines[1].lower()
    picture = portraits / "astronaut é.jpg.png"
    with Image.open(picture) as image:
        assert image.size == (128, 128)
    assert "no face" in (portraits / "grey.png.failed.txt").read_text(encoding="utf-8").lower()

    prompts, stamp = client._call("history"), picture.stat().st_mtime_ns
    assert make(client, photos, portraits)[0] == lines
    assert client._call("history").keys() == prompts.keys()
    assert picture.stat().st_mtime_ns == stamp

    assert make(client, photos, portraits, "--retry")[0] == lines
    assert len(client._call("history")) == len(prompts) + 1

    picture.unlink()
    lines, done = make(client, photos, portraits, "--set", "2.ckpt_name=nobody.safetensors")
    assert done.returncode != 0 and "nobody.safetensors" in done.stderr and not picture.exists()


def test_words_pages_and_pictures_are_served(client):
    base = client.process.url
    assert json.loads(request(f"{base}/i18n"))["ko"]["nodeDefs"]["CapFaceApply"]["inputs"]["tau"]["tooltip"]
    for page, begin in (
        ("CapFaceEditHead/ja.md", "# \u982d\u90e8\u3092\u7de8\u96c6".encode()),
        ("CapFaceEditHead/picture.png", b"\x89PNG"),
    ):
        assert request(f"{base}/extensions/capface/docs/{page}").startswith(begin)


def test_the_script_is_short():
    assert len((ROOT / "docs" / "portraits.py").read_text(encoding="utf-8").splitlines()) < 60


def test_the_page_names_nodes_and_inputs_of_the_workflow():
    workflow = json.loads((ROOT / "workflows" / "api" / "portrait.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\d+)` \| (\w+)[^|]*\| ([^|]*) \|", page, re.MULTILINE)
    assert len(rows) >= 8
    for key, kind, inputs in rows:
        assert workflow[key]["class_type"] == kind
        names = re.findall(r"`(\w+)`", inputs.partition(":")[0])
        assert names and set(names) <= set(workflow[key]["inputs"]), key
