"""CapFace Check: reports on a models folder with right, wrong, misplaced, nested and truncated files."""

import dataclasses
import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from capface.files import catalogue
from capface.files.capabilities import PACKAGES, Inventory, capabilities
from capface.files.insightface_packs import PACKS
from capface.files.scan import SearchPaths, scan
from capface.files.scan_report import report
from capface.flame.io.inspection import INSPECTORS
from capface.tests.conftest import ROOT
from capface.tests.files.test_checkpoint import BESIDE, capface_state

CAPHUMAN = catalogue.CAPHUMAN
LORA = {"lora_unet.lora_up.weight": torch.ones(2, 2)}


@pytest.fixture
def models(tmp_path):
    """An empty models folder."""
    for kind in {asset.folder for asset in catalogue.ASSETS} | {"checkpoints", "controlnet", "clip_vision"}:
        (tmp_path / "models" / kind).mkdir(parents=True)
    return tmp_path / "models"


def search_paths(models):
    """Return the folders as ComfyUI would list them: checkpoints by their usual extensions."""
    kinds = [folder.name for folder in models.iterdir() if folder.is_dir()]
    endings = {".ckpt", ".pt", ".pth", ".safetensors", ".bin", ".pkl", ".tar", ".npy", ".npz", ".obj"}
    listed = {kind: sorted(p for p in (models / kind).rglob("*") if p.suffix in endings) for kind in kinds}
    return SearchPaths({kind: [models / kind] for kind in kinds}, listed, [models])


def look(models, asset, **options):
    (found,) = scan(search_paths(models), inspectors=INSPECTORS, assets=[asset], **options)
    return found


def text(*reports):
    return report(["a machine"], Inventory(reports, [], []))


def test_every_file_of_the_catalogue_is_in_the_report(models):
    shown = text(*scan(search_paths(models), inspectors=INSPECTORS))
    for asset in catalogue.ASSETS:
        (line,) = (line for line in shown.splitlines() if line.startswith(f"  no   {asset.folder}/{asset.file}: "))
        assert line.endswith(asset.purpose)
        assert f"from {asset.source}; licence {asset.licence}" in shown
        assert f"belongs into {models / asset.folder}" in shown
        assert asset.checksum is None or asset.checksum in shown


def test_the_catalogue_holds_every_asset():
    named = [value for value in vars(catalogue).values() if isinstance(value, catalogue.Asset)]
    assert sorted(named, key=str) == sorted([*catalogue.ASSETS, catalogue.CLIP_VISION], key=str)


def test_the_right_file_is_found_under_any_name_and_in_a_subfolder(models):
    torch.save({"state_dict": BESIDE | capface_state()}, models / "capface" / "caphuman.ckpt")
    found = look(models, CAPHUMAN)
    assert found.usable
    assert f"yes  capface/caphuman.ckpt: {CAPHUMAN.purpose}" in text(found)
    assert found.elsewhere == []
    nested = models / "capface" / "downloads" / "mine.safetensors"
    nested.parent.mkdir()
    save_file(capface_state(), nested)
    (models / "capface" / "caphuman.ckpt").unlink()
    found = look(models, CAPHUMAN)
    assert [one.path for one in found.found if one.good] == [nested]


def test_the_message_says_what_a_wrong_file_is(models):
    save_file(LORA, models / "capface" / "caphuman.safetensors")
    found = look(models, CAPHUMAN)
    assert not found.usable
    shown = text(found)
    assert "BAD  capface/caphuman.ckpt" in shown
    assert "NOT USABLE" in shown
    assert "caphuman.safetensors is a LoRA (1 tensors" in shown


@pytest.mark.parametrize("name", ["caphuman.ckpt", "capface.safetensors"])
def test_a_truncated_download_is_named(models, name):
    path = models / "capface" / name
    torch.save(capface_state(), path) if name.endswith("ckpt") else save_file(capface_state(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = look(models, CAPHUMAN)
    assert not found.usable
    assert "truncated" in text(found)
    path.write_bytes(b"<!DOCTYPE html>")
    assert "web page" in text(look(models, CAPHUMAN))


def test_an_unfinished_download_is_named(models):
    (models / "capface" / "caphuman.ckpt.crdownload").write_bytes(b"PK")
    (sentence,) = look(models, CAPHUMAN).elsewhere
    assert "caphuman.ckpt.crdownload" in sentence
    assert "finish the download" in sentence


@pytest.mark.parametrize("folder", ["checkpoints", "controlnet", "."])
@pytest.mark.parametrize("name", ["caphuman.ckpt", "from-the-internet.ckpt", "renamed.safetensors"])
def test_a_checkpoint_in_a_wrong_folder_is_found_by_name_or_by_its_tensors(models, folder, name):
    path = models / folder / name
    state = BESIDE | capface_state()
    save_file(state, path) if path.suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    save_file(BESIDE, models / "checkpoints" / "an ordinary one.safetensors")
    found = look(models, CAPHUMAN)
    assert not found.usable
    (sentence,) = found.elsewhere
    assert sentence.startswith(str(path))
    assert sentence.endswith(f"move it to {models / 'capface'}.")


def test_a_file_of_the_format_before_torch_1_6_is_recognised_by_its_tensors(models):
    torch.save(capface_state(), models / "controlnet" / "old.pth", _use_new_zipfile_serialization=False)
    (sentence,) = look(models, CAPHUMAN).elsewhere
    assert "old.pth looks like it" in sentence


def test_a_file_found_only_by_name_must_be_in_a_searched_folder(models):
    deep = models / "flame" / "FLAME2020" / catalogue.FLAME_TEMPLATE.file
    deep.parent.mkdir()
    deep.write_text("v 0 0 0\nvt 0 0\n")
    (sentence,) = look(models, catalogue.FLAME_TEMPLATE).elsewhere
    assert "is in a subfolder that is not searched" in sentence
    shutil.move(deep, models / "flame")
    assert "a mesh with 1 texture coordinates" in look(models, catalogue.FLAME_TEMPLATE).found[0].description


def test_the_report_says_how_to_fetch_what_is_missing(models):
    def lines():
        reports = scan(search_paths(models), inspectors=INSPECTORS)
        return report(["a machine"], Inventory(reports, [], []), lambda *names: f"fetch {' '.join(names)}").splitlines()

    shown = lines()
    assert "  for a first portrait: fetch portrait" in shown
    (rest,) = (line for line in shown if line.startswith("  for the rest: fetch "))
    assert rest.endswith(" landmark_embedding.npy head_template.obj 79999_iter.pth") or "79999_iter.pth" in rest.split()
    (by_hand,) = (line for line in shown if "in a browser: fetch " in line)
    assert {"generic_model.pkl", "FLAME_texture.npz", "deca_model.tar"} <= set(by_hand.split())
    (models / "face_parsing" / "79999_iter.pth").write_bytes(b"<html>")
    (rest,) = (line for line in lines() if line.startswith("  for the rest: fetch "))
    assert "79999_iter.pth" not in rest
    assert "terminal" not in text(*scan(search_paths(models), inspectors=INSPECTORS))


def test_broken_files_of_flame_are_named(models):
    for asset in (catalogue.FLAME, catalogue.FLAME_LANDMARKS, catalogue.FLAME_TEMPLATE, catalogue.FLAME_TEXTURE):
        (models / "flame" / asset.file).write_bytes(b"<html>")
        found = look(models, asset)
        assert [one.good for one in found.found] == [False], asset.file
        assert asset.file in found.found[0].description


@pytest.mark.parametrize(
    ("asset", "data"),
    [
        (CAPHUMAN, b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."),
        (CAPHUMAN, b"PK\x03\x04" + bytes(60)),
        (catalogue.FLAME, b"\x80\x02}p300000000\n."),
        (catalogue.FLAME_LANDMARKS, b"\x93NUMPY\x01\x00\x03\x00((("),
        (catalogue.FLAME_TEXTURE, b"PK\x03\x04" + bytes(60)),
        (catalogue.FLAME_TEMPLATE, b"vt 0 0\nf 99999999999999999999/1 2/1 3/1\n"),
    ],
    ids=lambda value: value.file if isinstance(value, catalogue.Asset) else "",
)
def test_one_broken_file_does_not_end_the_report(models, asset, data):
    (models / asset.folder / asset.file).write_bytes(data)
    (found,) = look(models, asset).found
    assert not found.good and len(found.description) < 600
    assert "NOT USABLE" in text(*scan(search_paths(models), inspectors=INSPECTORS, verify=True))


def test_an_error_of_an_inspector_does_not_end_the_report(models):
    def inspect(path, asset):
        raise RecursionError("anything")

    (models / "flame" / "generic_model.pkl").write_bytes(b"x")
    (report,) = scan(search_paths(models), inspectors={catalogue.FLAME: inspect}, assets=[catalogue.FLAME])
    assert "cannot be read" in report.found[0].description and "anything" not in report.found[0].description


def test_missing_files_of_insightfaces_packs_are_named(models):
    pack = models / "insightface" / "models" / PACKS[1]
    pack.mkdir(parents=True)
    (pack / "scrfd_10g_bnkps.onnx").write_bytes(b"x")
    found = look(models, catalogue.INSIGHTFACE)
    assert found.usable
    assert "without the 68 landmarks (1k3d68.onnx) and recognition" in found.found[0].description
    (pack / "1k3d68.onnx").write_bytes(b"x")
    (pack / "glintr100.onnx").write_bytes(b"x")
    assert look(models, catalogue.INSIGHTFACE).found[0].description == "complete"


def test_checksums_are_compared_with_progress_and_can_be_stopped(models):
    path = models / "capface" / "caphuman.ckpt"
    torch.save(capface_state(), path)
    seen = []
    found = look(models, CAPHUMAN, verify=True, progress=lambda done, total: seen.append((done, total)))
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    assert found.found[0].checksum.startswith(f"MD5 {digest}, published is {CAPHUMAN.md5}")
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
    published = dataclasses.replace(CAPHUMAN, md5=digest)
    assert look(models, published, verify=True).found[0].checksum == f"MD5 {digest}, as published"
    assert look(models, CAPHUMAN).found[0].checksum == ""

    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        look(models, CAPHUMAN, verify=True, progress=stop)


# Capabilities


def works(reports=(), *, packages=PACKAGES, checkpoints=(), clip_visions=()):
    inventory = Inventory(reports, checkpoints, clip_visions, lambda package: package in packages)
    return {one.name: one.missing for one in capabilities(inventory)}


def usable(*assets, path=Path("x")):
    from capface.files.scan import AssetReport, FoundFile

    return [AssetReport(asset, [], [FoundFile(path, 1, "", True)], []) for asset in assets]


def test_with_all_files_everything_works(tmp_path):
    for name in ("1k3d68.onnx", "w600k_r50.onnx"):
        (tmp_path / name).touch()
    reports = usable(*catalogue.ASSETS, path=tmp_path)
    assert set(works(reports, checkpoints=[Path("any.ckpt")]).values()) == {()}


def test_without_files_every_capability_names_its_requirements():
    missing = works(packages=())
    assert all(missing.values())
    everything = " ".join(part for parts in missing.values() for part in parts)
    for asset in catalogue.ASSETS:
        assert asset.file in everything
    for package in PACKAGES[:-1]:
        assert package.distributions[0] in everything


def test_a_portrait_needs_one_of_two_detectors_and_a_base_of_its_family(tmp_path):
    save_file({"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(640, 2048)},
              tmp_path / "xl.safetensors")  # fmt: skip
    files = usable(catalogue.CAPHUMAN, catalogue.FACENET, catalogue.OPEN_CLIP)
    mtcnn = [package for package in PACKAGES if package.module == "facenet_pytorch"]
    portrait = "Portraits with the built-in head"
    base = "a Stable Diffusion 1.x checkpoint in models/checkpoints"
    assert works(files, packages=mtcnn, checkpoints=[tmp_path / "xl.safetensors"])[portrait] == (base,)
    assert works(files, packages=mtcnn, checkpoints=[tmp_path / "any.ckpt"])[portrait] == ()
    assert "a face detector" in works(files, packages=(), checkpoints=[tmp_path / "any.ckpt"])[portrait][0]


# In ComfyUI


@pytest.fixture
def extra(in_host, tmp_path, standins):
    """Folders named in an extra_model_paths.yaml, in addition to the stand-ins."""
    from utils.extra_config import load_extra_path_config

    from capface.host import model_folders

    model_folders.register_folders()
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    torch.save(capface_state(), folder / "from the extra folder.ckpt")
    config = tmp_path / "extra_model_paths.yaml"
    config.write_text(json.dumps({"mine": {"base_path": str(tmp_path), "capface": "elsewhere"}}))
    load_extra_path_config(str(config))
    yield folder
    in_host.folder_paths.folder_names_and_paths["capface"][0].remove(str(folder))


def test_the_node_reports_on_all_folders_of_its_host(extra, standins, in_host):
    from capface.nodes.capface_check import CapFaceCheck

    output = CapFaceCheck.execute(False)
    (shown,) = output.result
    assert shown == output.ui.as_dict()["text"][0]
    for part in (
        f"CapFace in ComfyUI {'.'.join(map(str, in_host.version))}",
        "Device: ",
        "CapFace's weights in float32",
        str(extra / "from the extra folder.ckpt"),
        str(standins / "capface" / "caphuman.ckpt"),
        "yes  facenet/20180402-114759-vggface2.pt",
        "yes  Measuring ID similarity",
        "no   Heads by DECA: needs deca_model.tar in models/deca",
    ):
        assert part in shown
    assert "Portraits with the built-in head: needs" not in shown
    (line,) = (line for line in shown.splitlines() if line.startswith("  for the rest: "))
    assert (
        f"{shlex.quote(str(ROOT / 'files' / 'weights.py'))} get " in line
        and "landmark_embedding.npy" in line
        and sys.executable in line
    )
    assert line.endswith((f"--comfyui {in_host.folder_paths.base_path}", f"--models {in_host.folder_paths.models_dir}"))
    assert "get portrait" not in shown


def test_the_node_verifies_on_request(extra):
    from capface.nodes.capface_check import CapFaceCheck

    assert "published is" in CapFaceCheck.execute(True).result[0]


def test_an_interrupt_stops_the_checksums(extra):
    import comfy.model_management as mm

    from capface.nodes.capface_check import CapFaceCheck

    mm.interrupt_current_processing(True)
    with pytest.raises(mm.InterruptProcessingException):
        CapFaceCheck.execute(True)
    mm.interrupt_current_processing(False)


def test_the_node_scans_on_every_run():
    from capface.nodes.capface_check import CapFaceCheck

    assert CapFaceCheck.fingerprint_inputs(checksums=False) != CapFaceCheck.fingerprint_inputs(checksums=False)


def run_tool(*arguments):
    command = [sys.executable, "-m", "capface.tools.check_files", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_command_works_without_a_host():
    shown = run_tool()
    assert shown.startswith("CapFace without a ComfyUI")
    for asset in catalogue.ASSETS:
        assert f"{asset.folder}/{asset.file}" in shown


def test_the_command_searches_a_hosts_own_folders(comfyui):
    shown = run_tool("--comfyui", str(comfyui))
    assert shown.startswith("CapFace in ComfyUI ")
    assert str(comfyui / "models" / "capface") in shown
