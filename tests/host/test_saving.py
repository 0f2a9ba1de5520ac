"""Saving by the nodes: full disks, odd names, other people's files, and several ComfyUIs on one output folder."""

import multiprocessing
import sys
from types import SimpleNamespace

import pytest
import torch

from capface.errors import BadInput, CannotWrite, CapFaceError
from capface.flame import HeadParams
from capface.tests.files.test_checkpoint import capface_state

PROCESSES, FILES_EACH = 8, 25


@pytest.fixture
def output(in_host, tmp_path, monkeypatch):
    """A separate output folder."""
    folder = tmp_path / "output"
    folder.mkdir()
    monkeypatch.setattr(in_host.folder_paths, "output_directory", str(folder))
    return folder


@pytest.fixture
def capface_folder(in_host, tmp_path):
    """A separate models/capface, with a checkpoint in it."""
    from capface.host import model_folders

    model_folders.register_folders()
    folder = tmp_path / "capface"
    folder.mkdir()
    in_host.folder_paths.add_model_folder_path("capface", str(folder), is_default=True)
    torch.save({"state_dict": capface_state()}, folder / "small.ckpt")
    yield folder
    in_host.folder_paths.folder_names_and_paths["capface"][0].remove(str(folder))


@pytest.fixture
def save(in_host):
    """The nodes' functions."""
    from capface.host.identity import Identity
    from capface.nodes.head_files import SaveHead
    from capface.nodes.identity_files import SaveIdentity
    from capface.nodes.load_models import ConvertCapFace

    person = Identity(torch.nn.functional.normalize(torch.randn(1, 512), dim=1), torch.randn(1, 257, 1024))
    return SimpleNamespace(
        head=lambda prefix, frames=1: SaveHead.execute(HeadParams.neutral(frames), prefix).result[0],
        identity=lambda prefix: SaveIdentity.execute(person, prefix).result[0],
        capface=lambda name, overwrite=False: ConvertCapFace.execute("small.ckpt", "as it is", name, overwrite).result[0],
    )


def test_a_full_disk_is_named_and_leaves_nothing(in_host, save, tiny_disk, monkeypatch, capface_folder):
    monkeypatch.setattr(in_host.folder_paths, "output_directory", str(tiny_disk))
    for write in (lambda: save.head("a/h", 200), lambda: save.identity("a/i")):
        with pytest.raises(CannotWrite, match=r"the disk of .* is full"):
            write()
    assert not [path for path in tiny_disk.rglob("*") if path.is_file()]
    assert save.head("a/h").endswith("h_00001_.json")
    in_host.folder_paths.add_model_folder_path("capface", str(tiny_disk), is_default=True)
    try:
        with pytest.raises(CannotWrite, match=r"the disk of .* is full"):
            save.capface("full")
    finally:
        in_host.folder_paths.folder_names_and_paths["capface"][0].remove(str(tiny_disk))
    assert [path.name for path in tiny_disk.iterdir()] == ["a"]


NAMES = {
    "long": "n" * 300,
    "just too long": "n" * 245,
    "four bytes each": "\U0001f44d" * 80,
    "a long path": "/".join(["d" * 200] * 30),
    "surrogate": "a\ud800b",
    "null": "a\0b",
    "empty": " ",
    "a folder": "a/",
    "outside": "../a",
    "absolute": "/etc/a",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
def test_odd_names_are_refused_with_a_message(output, save, capface_folder, name):
    from capface.nodes.head_files import LoadHead
    from capface.nodes.identity_files import LoadIdentity

    for write in (save.head, save.identity, save.capface):
        with pytest.raises(CapFaceError) as caught:
            write(name)
        text = str(caught.value)
        text.encode()  # no half of a surrogate pair, which a browser cannot be sent
        assert len(text) < 600
    for node, ending in ((LoadHead, ".json"), (LoadIdentity, ".identity.safetensors")):
        for file in (f"{name}{ending}", f"{name}{ending} [output]"):
            said = node.validate_inputs(file)
            assert isinstance(said, str) and len(said) < 1000
            said.encode()
            with pytest.raises(CapFaceError):
                node.fingerprint_inputs(file=file)
    assert not [path for path in output.rglob("*") if path.is_file()]
    assert [path.name for path in capface_folder.iterdir()] == ["small.ckpt"]


def test_names_of_other_alphabets_and_the_longest_name(output, save):
    for prefix in ("été/\N{CJK UNIFIED IDEOGRAPH-5934} \U0001f44d", "%year%/%month%", "n" * 220):
        save.head(prefix)
        save.identity(prefix)
    assert len([path for path in output.rglob("*") if path.is_file()]) == 6


def test_a_file_in_the_folders_place_is_named(output, save):
    (output / "taken").write_bytes(b"mine")
    with pytest.raises(CannotWrite, match="was not written"):
        save.head("taken/h")
    assert (output / "taken").read_bytes() == b"mine"


def test_converting_leaves_a_users_files_alone(save, capface_folder):
    for name in ("mine.part", "mine.safetensors.part"):
        (capface_folder / name).write_bytes(b"mine")
    save.capface("mine")
    save.capface("mine", True)
    with pytest.raises(BadInput, match="exists already"):
        save.capface("mine")
    assert {path.name for path in capface_folder.iterdir()} == {
        "small.ckpt", "mine.part", "mine.safetensors.part", "mine.safetensors"
    }  # fmt: skip
    assert (capface_folder / "mine.part").read_bytes() == (capface_folder / "mine.safetensors.part").read_bytes() == b"mine"


@pytest.mark.skipif(sys.platform != "linux", reason="needs processes that begin as copies of this one")
def test_several_comfyuis_on_one_output_folder_lose_nothing(output, save):
    def work():
        for _ in range(FILES_EACH):
            save.head("race/h")
            save.identity("race/i")

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    from capface.host.identity import load_identity
    from capface.nodes.head_files import LoadHead

    for ending in (".json", ".identity.safetensors"):
        assert len(list((output / "race").glob(f"*{ending}"))) == PROCESSES * FILES_EACH
    for path in (output / "race").iterdir():
        if path.suffix == ".json":
            LoadHead.execute(f"race/{path.name} [output]")
        else:
            load_identity(path)
