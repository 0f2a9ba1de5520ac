"""Finding, loading and converting files through the nodes."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from capface.errors import BadFile, BadInput, MissingFile
from capface.models.diffusion.capface_checkpoint import load_capface
from capface.tests.files.test_checkpoint import BESIDE, CONFIG, capface_state

NAME = "made by the test.ckpt"


@pytest.fixture
def folder(in_host, tmp_path):
    """A separate models/capface, searched before the others, with an all-in-one checkpoint in it."""
    from capface.host import model_folders

    model_folders.register_folders()
    in_host.folder_paths.add_model_folder_path("capface", str(tmp_path), is_default=True)
    torch.save({"state_dict": BESIDE | capface_state()}, tmp_path / NAME)
    yield tmp_path
    in_host.folder_paths.folder_names_and_paths["capface"][0].remove(str(tmp_path))


def test_load_capface_lists_and_loads_the_file(folder):
    from capface.nodes.load_models import LoadCapFace

    options = LoadCapFace.INPUT_TYPES()["required"]["checkpoint"]
    assert NAME in (options[0] if isinstance(options[0], list) else options[1]["options"])
    (capface,) = LoadCapFace.execute(NAME, "bfloat16").result
    assert (capface.network.config, capface.name) == (CONFIG, NAME)
    assert next(capface.network.parameters()).dtype == torch.bfloat16


def test_a_missing_file_is_named_with_folder_source_and_checksum(folder):
    from capface.nodes.load_models import LoadCapFace

    with pytest.raises(MissingFile) as error:
        LoadCapFace.execute("caphuman-2.ckpt", "auto")
    for part in ("caphuman-2.ckpt", str(folder), "github.com/VamosC/CapHuman", "6f0086112db9abc6ce4518a458d4d4b8"):
        assert part in str(error.value)


def test_a_replaced_file_is_loaded_again(folder):
    from capface.nodes.load_models import LoadCapFace

    before = LoadCapFace.fingerprint_inputs(NAME, "auto")
    assert LoadCapFace.fingerprint_inputs(NAME, "auto") == before
    torch.save(capface_state(), folder / NAME)
    assert LoadCapFace.fingerprint_inputs(NAME, "auto") != before


def test_the_network_asks_for_nothing_when_a_lora_lies_in_its_folder(folder):
    from capface.nodes.load_models import LoadCapFace

    save_file({"lora_unet.lora_up.weight": torch.ones(2, 2)}, folder / "lora.safetensors")
    with pytest.raises(BadFile, match="a LoRA"):
        LoadCapFace.execute("lora.safetensors", "auto")


@pytest.mark.parametrize(("dtype", "stored"), [("as it is", torch.float32), ("float16", torch.float16)])
def test_the_converted_file_holds_only_capface_and_loads(folder, dtype, stored):
    from capface.nodes.load_models import ConvertCapFace

    (path,) = ConvertCapFace.execute(NAME, dtype, "converted", False).result
    assert path == str(folder / "converted.safetensors")
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(capface_state())
        assert file.metadata()["source"] == NAME
    network, _ = load_capface(path)
    assert next(network.parameters()).dtype == stored
    expected = capface_state()
    assert all(torch.equal(v, expected[f"control_model.{k}"].to(stored)) for k, v in network.state_dict().items())


def test_converting_overwrites_nothing_and_leaves_no_partial_file(folder):
    from capface.nodes.load_models import ConvertCapFace

    ConvertCapFace.execute(NAME, "as it is", "converted", False)
    with pytest.raises(BadInput, match="exists already"):
        ConvertCapFace.execute(NAME, "as it is", "converted", False)
    ConvertCapFace.execute(NAME, "as it is", "converted", True)
    for name in ("", "../elsewhere", "a/b", ".hidden"):
        with pytest.raises(BadInput, match="plain file name"):
            ConvertCapFace.execute(NAME, "as it is", name, False)
    (folder / "broken.ckpt").write_bytes(b"<html>")
    with pytest.raises(BadFile, match="web page"):
        ConvertCapFace.execute("broken.ckpt", "as it is", "broken", False)
    assert sorted(p.name for p in folder.iterdir()) == ["broken.ckpt", "converted.safetensors", NAME]


def test_auto_takes_an_existing_parser_and_else_names_the_published_one(in_host, tmp_path, monkeypatch):
    from capface.nodes.load_models import LoadFaceAnalyzer

    _, endings = in_host.folder_paths.folder_names_and_paths["face_parsing"]
    monkeypatch.setitem(in_host.folder_paths.folder_names_and_paths, "face_parsing", ([str(tmp_path)], endings))
    (reader,) = LoadFaceAnalyzer.execute("auto", "facenet.pt").result
    assert reader.networks.parser_file == "79999_iter.pth"
    (tmp_path / "parsing_bisenet.pth").touch()
    (reader,) = LoadFaceAnalyzer.execute("auto", "facenet.pt").result
    assert reader.networks.parser_file == "parsing_bisenet.pth"
