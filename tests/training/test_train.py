"""The command `train`: from a training set and a base model to a file for Load CapFace."""

import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from capface.flame.builtin import builtin_head
from capface.flame.io.heads_json import heads_to_json
from capface.flame.model.params import HeadParams
from capface.flame.render.maps import render_head
from capface.models.diffusion.capface_checkpoint import load_capface
from capface.tests.training.base_files import write_base
from capface.training.dataset import TrainingSet
from capface.training.feed import PhotoData
from capface.training.shards import DATASET, FORMAT, VERSION, Sample, read_index, write_json, write_shard
from capface.training.train import FILE, main

for package in ("diffusers", "transformers", "open_clip", "tensorboard"):
    pytest.importorskip(package)

LOCAL, TOKENS = 20, 6
QUICK = ["--size", "64", "--batch", "2", "--workers", "0", "--cpu", "--warmup", "0", "--people", "1", "--log-every", "1"]


def array(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a training set of three heads, and a base."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "set").mkdir()
    random, samples = np.random.default_rng(1), []
    for i in range(3):
        head = HeadParams.neutral().replace(rotation=torch.tensor([[0.0, 0.3 * i, 0.0]]))
        picture = render_head(builtin_head(), head, 64, 64).lambertian[0].clamp(0, 1)
        jpg = io.BytesIO()
        Image.fromarray((picture.permute(1, 2, 0) * 255).byte().numpy()).save(jpg, "jpeg")
        about = {"caption": f"person {i}", "head": json.loads(heads_to_json(head))}
        members = {"jpg": jpg.getvalue(), "json": json.dumps(about).encode()}
        members["global.npy"] = array(random.standard_normal(512, dtype=np.float32))
        members["local.npy"] = array(random.standard_normal((TOKENS, LOCAL), dtype=np.float32))
        samples.append(Sample(f"{i:06d}", str(i), f"{i}.jpg", members))
    write_shard(folder / "set", 0, samples, {"rejected": [], "stages": {}})
    index = read_index(folder / "set", 0)
    assert index is not None
    shard = {"file": index["shard"], "samples": 3}
    head_model = {"kind": builtin_head().kind}
    write_json(folder / "set" / DATASET, {"format": FORMAT, "version": VERSION, "head_model": head_model, "shards": [shard]})
    write_base(folder / "sd.safetensors")
    return folder


def command(files, out, *more):
    return main([str(files / "set"), str(out), "--base", str(files / "sd.safetensors"), *QUICK, *more])


def tensors(out):
    with safe_open(out / FILE, "pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}, file.metadata()  # noqa: SIM118  safe_open is not a dict


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    assert command(files, out, "--steps", "2", "--sample-every", "2") == 0
    return out


def test_the_exported_file_loads_and_holds_its_settings(trained):
    network, tokens = load_capface(trained / FILE)
    assert network.config.context_width == 24
    assert (tokens.img_linear.in_features, tokens.id_linear.in_features) == (LOCAL, 512)
    about = tensors(trained)[1]
    assert about["steps"] == "2"
    settings = json.loads(about["settings"])
    assert settings["samples"] == 3 and settings["learning_rate"] == 1e-4 and settings["base"].startswith("sd.safetensors")


def test_a_sheet_shows_the_picture_its_head_and_three_portraits(trained):
    with Image.open(trained / "samples" / "00000002.png") as sheet:
        assert sheet.size == (5 * 64, 64)


def test_the_same_command_resumes(files, trained, tmp_path, capsys):
    assert command(files, tmp_path, "--steps", "1", "--sample-every", "0") == 0
    assert command(files, tmp_path, "--steps", "2", "--sample-every", "0", "--recompute") == 0
    one, whole = tensors(tmp_path)[0], tensors(trained)[0]
    assert one.keys() == whole.keys()
    assert all(torch.equal(one[k], whole[k]) for k in whole)
    assert command(files, tmp_path, "--steps", "2", "--batch", "1") == 1
    assert "batch was 2, is 1" in capsys.readouterr().err


def test_training_starts_from_a_given_file(files, trained, tmp_path, capsys):
    start = ["--start", str(trained / FILE), "--steps", "1", "--sample-every", "0"]
    assert command(files, tmp_path, *start, "--learning-rate", "0", "--half") == 0
    again, first = tensors(tmp_path)[0], tensors(trained)[0]
    assert all(torch.equal(again[k], first[k].half()) for k in first)


def test_head_control_is_the_same_command_without_identity(files, tmp_path):
    assert command(files, tmp_path, "--identity", "none", "--steps", "1", "--sample-every", "1") == 0
    network, _ = load_capface(tmp_path / FILE)
    with torch.no_grad():
        network(torch.randn(1, 4, 8, 8), torch.tensor([5]), network.encode_hint(torch.rand(1, 9, 64, 64))[0], None)
    with Image.open(tmp_path / "samples" / "00000001.png") as sheet:
        assert sheet.size == (4 * 64, 64)


def test_a_missing_base_is_named(files, tmp_path, capsys):
    assert main([str(files / "set"), str(tmp_path), "--base", str(tmp_path / "none.ckpt")]) == 1
    assert re.search(r"no file .*none\.ckpt", capsys.readouterr().err)


def test_batches_resume_and_are_split_between_processes(files):
    from capface.training.base_model import load_base

    base = load_base(files / "sd.safetensors")
    data = PhotoData(TrainingSet(files / "set", size=64), base, batch=2, seed=5)

    def take(start, rank, world, count):
        batches = data.batches(start, rank, world)
        return [next(batches) for _ in range(count)]

    whole, later = take(0, 0, 1, 3), take(2, 0, 1, 1)
    for name in ("latents", "context", "hint", "mask", "local", "global_", "null_context"):
        assert torch.equal(getattr(whole[2], name), getattr(later[0], name)), name
    first, second = take(0, 0, 2, 1)[0], take(0, 1, 2, 1)[0]
    both = torch.cat([first.local, second.local])
    alone = torch.cat([b.local for b in whole[:2]])
    assert sorted(both.flatten(1).sum(1).tolist()) == sorted(alone.flatten(1).sum(1).tolist())
    assert torch.equal(whole[0].null_context[0].half(), base.encode_prompts([""])[0].half())
