"""Export Head and Import Head in a ComfyUI: files, sockets of its own 3D nodes, and the way back."""

import dataclasses
from pathlib import Path

import pytest
import torch

from capface.errors import BadFile, BadInput, MissingFile
from capface.flame.builtin import builtin_head
from capface.flame.editing import heads_from_arkit
from capface.flame.model import HeadParams
from capface.tests.flame.heads import random_heads


@pytest.fixture(scope="module")
def model():
    return builtin_head()


@pytest.fixture
def export(in_host, model):
    from capface.nodes.exchange_heads import ExportHead

    def run(head, format, **options):
        node = ExportHead.execute(head, options.pop("head_model", model), format, "capface/test", **options)
        return *node.result, Path(in_host.folder_paths.get_output_directory())

    return run


@pytest.fixture
def load(in_host, model):
    from capface.nodes.exchange_heads import NO_FILE, ImportHead

    return lambda **inputs: ImportHead.execute(**{"head_model": model, "file": NO_FILE, **inputs}).result[0]


def test_blendshapes_go_out_as_a_file_and_come_back(export, load, model):
    heads = heads_from_arkit(model, {"jawOpen": torch.tensor([0.2, 0.8])}, HeadParams.neutral(2))
    text, name, _, _, folder = export(heads, "blendshapes (CSV)")
    assert (folder / name).read_text(encoding="utf-8") == text
    again = load(file=f"{name} [output]")
    assert torch.allclose(again.jaw, heads.jaw, atol=0.01)
    assert torch.equal(load(text=text).jaw, again.jaw)


def test_a_base_keeps_its_own(load):
    base = random_heads(1)
    head = load(text="jawOpen\n0.5\n", base=base)
    assert torch.equal(head.shape, base.shape) and torch.equal(head.camera, base.camera)


def test_without_a_table_it_is_the_average_head(load):
    assert torch.equal(load().camera, HeadParams.neutral().camera)
    base = random_heads(2)
    assert load(text=" \n", base=base) is base


def test_vectors_and_motion(export, model):
    flame = dataclasses.replace(model, kind="flame2020")
    text, name, *_ = export(random_heads(2), "FLAME vectors (CSV)", head_model=flame)
    assert text.startswith("expression_0,") and name.endswith(".csv")
    with pytest.raises(BadInput, match="FLAME 2020"):
        export(random_heads(2), "FLAME vectors (CSV)")
    text, name, *_ = export(random_heads(2), "motion (BVH)", frame_rate=50.0)
    assert "Frame Time: 0.0200000" in text and name.endswith(".bvh")


@pytest.mark.parametrize(("format", "start"), [("mesh (OBJ)", b"v "), ("mesh (GLB)", b"glTF")])
def test_every_head_gets_a_mesh_file(export, format, start):
    text, name, mesh, _, folder = export(random_heads(3), format)
    assert bool(text) == (format == "mesh (OBJ)")
    number = int(name.rpartition(".")[0].rstrip("_").rpartition("_")[2])
    names = [name.replace(f"{number:05}", f"{number + i:05}") for i in range(3)]
    assert all((folder / one).read_bytes().startswith(start) for one in names)
    assert len({(folder / one).read_bytes() for one in names}) == 3
    assert mesh.vertices.shape[0] == 3


def test_the_host_writes_the_mesh(export, in_host):
    """What Save GLB of this ComfyUI calls writes our MESH, and the file holds our vertices."""
    import inspect

    try:
        from comfy_extras.nodes_save_3d import save_glb
    except ImportError:
        from comfy_extras.nodes_hunyuan3d import save_glb

    _, _, mesh, _, folder = export(random_heads(1), "blendshapes (CSV)")
    path = folder / "host.glb"
    more = {"uvs": mesh.uvs[0], "normals": mesh.normals[0]} if hasattr(mesh, "uvs") else {}
    assert set(more) <= set(inspect.signature(save_glb).parameters)
    save_glb(mesh.vertices[0], mesh.faces[0], str(path), **more)
    data = path.read_bytes()
    assert data.startswith(b"glTF") and mesh.vertices[0].numpy().tobytes() in data


def test_the_file_of_newer_hosts_is_a_glb(export):
    from comfy_api import latest

    *_, file, _ = export(random_heads(1), "blendshapes (CSV)")
    if hasattr(latest.Types, "File3D"):
        assert file.format == "glb" and file.get_bytes().startswith(b"glTF")
    else:
        assert file is None


def test_what_cannot_be_written_or_read_is_said(export, load, model):
    with pytest.raises(BadInput, match="at most 512 heads"):
        export(HeadParams.neutral(513), "mesh (OBJ)")
    with pytest.raises(BadFile, match="names but no row"):
        load(text="jawOpen\n")
    with pytest.raises(MissingFile, match=r"gone\.csv"):
        load(file="gone.csv")


def test_the_file_list_and_its_fingerprint(in_host):
    from capface.nodes.exchange_heads import NO_FILE, ImportHead

    path = Path(in_host.folder_paths.get_input_directory()) / "mine.csv"
    path.write_text("jawOpen\n1\n", encoding="utf-8")
    options = next(entry.options for entry in ImportHead.define_schema().inputs if entry.id == "file")
    assert options[0] == NO_FILE and "mine.csv" in options
    assert ImportHead.validate_inputs("mine.csv") is True and ImportHead.validate_inputs(NO_FILE) is True
    assert "gone.csv" in str(ImportHead.validate_inputs("gone.csv"))
    before = ImportHead.fingerprint_inputs(file="mine.csv", text="")
    path.write_text("jawOpen\n0.5\n", encoding="utf-8")
    assert ImportHead.fingerprint_inputs(file="mine.csv", text="") != before
