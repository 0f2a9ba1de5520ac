"""Networks after their files were truncated or overwritten, and copies of tensors that are mapped to a file."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from capface.errors import BadFile
from capface.files.mapped import OwnCopies, own_copies
from capface.miniature.networks import MINIATURE_FILE
from capface.models.diffusion import CapFace, CapFaceConfig, IdentityTokens
from capface.tests.flame.flame_files import write_flame
from capface.tests.models.landmarker_files import comfyui_state, synthetic_state, task_members, write_task
from capface.tools.standins import write_facenet, write_parser

USE_AFTER = """
import sys
from pathlib import Path
from capface.flame.io import load_flame
from capface.miniature.networks import load_miniature
from capface.models.diffusion import load_capface
from capface.models.faces import load_face_landmarker, load_facenet, load_parser


def tensors(loaded):
    parts = loaded if isinstance(loaded, tuple) else vars(loaded).values() if not hasattr(loaded, "parameters") else [loaded]
    for part in parts:
        if hasattr(part, "parameters"):
            yield from (t for t in (*part.parameters(), *part.buffers()))
        elif hasattr(part, "data_ptr"):
            yield part


def total(loaded):
    return sum(float(t.double().sum()) for t in tensors(loaded))


for load, path, change in zip(*[iter(sys.argv[1:])] * 3):
    loaded = globals()[load](Path(path))
    before, count = total(loaded), sum(1 for _ in tensors(loaded))
    assert count > 3, load
    with Path(path).open("r+b") as file:
        if change == "truncated":
            file.truncate(4096)
        else:
            file.write(bytes(Path(path).stat().st_size))
    assert total(loaded) == before, (load, change)
    print(load, change, count)
"""
"""Loads a file, changes it in place, and uses everything that was loaded."""


def capface_state():
    network = CapFace(CapFaceConfig((1,), 1, (1,), model_channels=32, context_width=48, hint_widths=(2,) * 7))
    state = {f"control_model.{k}": v.detach() for k, v in network.state_dict().items()}
    return state | {k: v.detach() for k, v in IdentityTokens(8, 8, 48).state_dict().items()}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not let a mapped file be truncated")
def test_networks_do_not_depend_on_their_files(tmp_path):
    from capface.flame.io import convert_flame

    (tmp_path / "flame").mkdir()
    write_flame(tmp_path / "flame")
    convert_flame(tmp_path / "flame" / "generic_model.pkl", tmp_path / "flame.safetensors")
    cases = []
    for change in ("truncated", "overwritten"):
        save_file(capface_state(), tmp_path / f"{change}.safetensors")
        torch.save({"state_dict": capface_state()}, tmp_path / f"{change}.ckpt")
        write_facenet(tmp_path / f"{change}.facenet.pt")
        write_parser(tmp_path / f"{change}.parser.pth")
        write_task(tmp_path / f"{change}.task", task_members(synthetic_state()))
        save_file(comfyui_state(), tmp_path / f"{change}.landmarker.safetensors")
        (tmp_path / f"{change}.flame.safetensors").write_bytes((tmp_path / "flame.safetensors").read_bytes())
        (tmp_path / f"{change}.miniature.safetensors").write_bytes(MINIATURE_FILE.read_bytes())
        cases += ["load_capface", f"{change}.safetensors", change, "load_capface", f"{change}.ckpt", change]
        cases += ["load_facenet", f"{change}.facenet.pt", change, "load_parser", f"{change}.parser.pth", change]
        cases += ["load_face_landmarker", f"{change}.task", change, "load_flame", f"{change}.flame.safetensors", change]
        cases += ["load_face_landmarker", f"{change}.landmarker.safetensors", change]
        cases += ["load_miniature", f"{change}.miniature.safetensors", change]
    script = tmp_path / "use_after.py"
    script.write_text(USE_AFTER, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script), *cases], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, f"status {done.returncode}: {done.stdout}{done.stderr[-2000:]}"
    assert len(done.stdout.splitlines()) == len(cases) // 3


def test_a_copy_has_the_values_type_and_layout_of_the_mapped_tensor(tmp_path):
    whole = torch.arange(240.0).view(12, 20)
    parts = {"whole": whole, "rows": whole[3:5], "columns": whole[:, 3:5], "turned": whole.T, "one": whole[4, 4]}
    torch.save(parts | {"half": whole.half(), "none": whole[:0]}, tmp_path / "parts.pt")
    mapped = torch.load(tmp_path / "parts.pt", mmap=True, weights_only=True)
    copied = own_copies(mapped)
    for name, tensor in mapped.items():
        assert torch.equal(copied[name], tensor) and copied[name].dtype == tensor.dtype, name
        assert copied[name].untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr(), name
    assert OwnCopies().copy(mapped["half"], dtype=torch.float32).dtype == torch.float32
    expanded = torch.ones(1, 3).expand(1000, 3)
    assert torch.equal(own_copies({"x": expanded})["x"], expanded)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the copy is made through the mapping")
def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path):
    save_file({"x": torch.ones(100_000)}, tmp_path / "x.safetensors")
    mapped = load_file(tmp_path / "x.safetensors")
    with (tmp_path / "x.safetensors").open("r+b") as file:
        file.truncate(4096)
    with pytest.raises(BadFile, match=r"x\.safetensors became shorter while it was being read"):
        own_copies(mapped)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not let a mapped file be replaced")
def test_a_file_that_was_replaced_gives_the_old_values(tmp_path):
    for value in (1.0, 2.0):
        save_file({"x": torch.full((1000,), value)}, tmp_path / f"{value}.safetensors")
    mapped = load_file(tmp_path / "1.0.safetensors")
    (tmp_path / "2.0.safetensors").replace(tmp_path / "1.0.safetensors")
    assert (own_copies(mapped)["x"] == 1).all()
