"""Bulk portraits on a running ComfyUI, and the statements of docs/api.md about the shipped workflow."""

import json
import re

import numpy as np
import pytest
import skimage.data
from PIL import Image

from capface.iphc.ledger import pixel_hash
from capface.iphc.portraits import main
from capface.tests.conftest import ROOT
from capface.tools.comfy import ComfyClient, ComfyProcess, model_folders, request

API = ROOT / "workflows" / "api" / "portrait.json"
SMALL = ["13.width=128", "13.height=128", "14.steps=2"]


@pytest.fixture(scope="module")
def client(comfyui, standins):
    """A running ComfyUI. The folder's name contains no space, because ComfyUI would not serve browser files from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONSAFEPATH", "1")  # as tasks.py sets it for the demo
        with ComfyProcess(comfyui, model_folders(standins), folder="capface") as process, ComfyClient(process) as client:
            yield client


def make(client, photos, portraits, *more):
    """Make portraits; return the exit status."""
    command = [str(photos), str(portraits), "--workflow", str(API), "--address", client.process.url, "--prompt", "a person"]
    return main([*command, *(word for change in SMALL for word in ("--set", change)), *more])


def test_a_folder_of_photos(client, tmp_path, capsys):
    photos, portraits = tmp_path / "photos", tmp_path / "portraits"
    photos.mkdir()
    Image.fromarray(skimage.data.astronaut()).save(photos / "astronaut é.jpg")
    Image.fromarray(np.full((256, 256, 3), 128, np.uint8)).save(photos / "grey.png")
    assert make(client, photos, portraits) == 3
    assert "1 portraits made, 1 failed" in (printed := capsys.readouterr().out) and "no face" in printed.lower()
    picture = portraits / "astronaut é" / "01-own-1.png"
    with Image.open(picture) as image:
        assert image.size == (128, 128)
    failed = [line for line in (portraits / "portraits.jsonl").read_text(encoding="utf-8").splitlines() if '"failed"' in line]
    assert len(failed) == 1 and "no face" in failed[0].lower() and "grey.png" in failed[0]

    prompts, stamp = client._call("history"), picture.stat().st_mtime_ns
    assert make(client, photos, portraits) == 3
    assert client._call("history").keys() == prompts.keys() and picture.stat().st_mtime_ns == stamp

    assert make(client, photos, portraits, "--retry") == 3
    assert len(client._call("history")) == len(prompts) + 1

    content = picture.read_bytes()
    picture.unlink()
    assert make(client, photos, portraits) == 3 and len(client._call("history")) == len(prompts) + 2
    assert pixel_hash(picture.read_bytes()) == pixel_hash(content), "from ComfyUI's cache"

    assert make(client, photos, tmp_path / "others", "--set", "2.ckpt_name=nobody.safetensors") == 3
    assert "nobody.safetensors" in (tmp_path / "others" / "portraits.jsonl").read_text(encoding="utf-8")


def test_heads_turn_in_a_workflow_without_edit_head(client, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.fromarray(skimage.data.astronaut()).save(tmp_path / "photos" / "ann.png")
    (tmp_path / "heads.json").write_text('{"own": {}, "left": {"yaw": -40}}', encoding="utf-8")
    assert make(client, tmp_path / "photos", tmp_path / "out", "--heads", str(tmp_path / "heads.json")) == 0
    own, left = (pixel_hash((tmp_path / "out" / "ann" / f"01-{head}-1.png").read_bytes()) for head in ("own", "left"))
    assert own != left


def test_words_pages_and_pictures_are_served(client):
    base = client.process.url
    assert json.loads(request(f"{base}/i18n"))["ko"]["nodeDefs"]["CapFaceApply"]["inputs"]["tau"]["tooltip"]
    for page, begin in (
        ("CapFaceEditHead/ja.md", "# \u982d\u90e8\u3092\u7de8\u96c6".encode()),
        ("CapFaceEditHead/picture.png", b"\x89PNG"),
    ):
        assert request(f"{base}/extensions/capface/docs/{page}").startswith(begin)


def test_the_page_names_nodes_and_inputs_of_the_workflow():
    workflow = json.loads(API.read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\d+)` \| (\w+)[^|]*\| ([^|]*) \|", page, re.MULTILINE)
    assert len(rows) >= 8
    for key, kind, inputs in rows:
        assert workflow[key]["class_type"] == kind
        names = re.findall(r"`(\w+)`", inputs.partition(":")[0])
        assert names and set(names) <= set(workflow[key]["inputs"]), key
