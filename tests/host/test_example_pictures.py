"""The example pictures that the workflows load."""

import json

import pytest
from PIL import Image

from capface.tests.conftest import ROOT
from capface.tools import example_pictures

PICTURES = sorted(path.name for path in example_pictures.FOLDER.glob("*.png"))


@pytest.fixture
def folder(in_host, tmp_path, monkeypatch):
    """An empty input folder of ComfyUI."""
    monkeypatch.setattr(in_host.folder_paths, "get_input_directory", lambda: str(tmp_path))
    return tmp_path


@pytest.fixture
def place(in_host):
    from capface.host.example_pictures import place_examples

    return place_examples


def test_every_picture_that_a_workflow_loads_is_there():
    loaded = {
        node["inputs"]["image"]
        for path in (ROOT / "workflows" / "api").glob("*.json")
        for node in json.loads(path.read_text(encoding="utf-8")).values()
        if node["class_type"] == "LoadImage"
    }
    assert loaded == set(PICTURES)


def test_missing_pictures_are_placed(folder, place):
    assert sorted(path.name for path in place()) == PICTURES
    for name in PICTURES:
        with Image.open(folder / name) as picture:
            picture.load()
            assert min(picture.size) >= 512
    assert place() == []


def test_a_users_own_picture_is_kept(folder, place):
    (folder / "photo.png").write_bytes(b"my own")
    assert sorted(path.name for path in place()) == [name for name in PICTURES if name != "photo.png"]
    assert (folder / "photo.png").read_bytes() == b"my own"


def test_an_input_folder_that_cannot_be_used_is_no_error(folder, place, monkeypatch):
    monkeypatch.setattr("shutil.copyfile", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert place() == []
    assert list(folder.iterdir()) == [], "nothing half written stays"


@pytest.mark.parametrize("name", example_pictures.PEOPLE)
def test_the_command_draws_the_shipped_photos(name):
    with Image.open(example_pictures.FOLDER / name) as shipped:
        drawn = example_pictures.person(*example_pictures.PEOPLE[name])
        a, b = (picture.convert("RGB").resize((64, 64)) for picture in (shipped, drawn))
    apart = [abs(p - q) for p, q in zip(a.tobytes(), b.tobytes(), strict=True)]
    assert sum(apart) / len(apart) < 4
