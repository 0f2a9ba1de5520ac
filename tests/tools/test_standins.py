"""The stand-in weights have the real files' layouts, and have an effect."""

import json

import pytest
import torch
from safetensors.torch import load_file

from capface.models.diffusion.capface_checkpoint import load_capface
from capface.models.faces.facenet import load_facenet
from capface.tests.synthetic import FOLDER
from capface.tools import weights
from capface.tools.standins import (
    LIST,
    SMALL,
    STAND_INS,
    facenet_shapes,
    make_standins,
    parser_shapes,
    shaded_balls,
    write_safetensors,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of stand-ins."""
    return make_standins(tmp_path_factory.mktemp("models"))


def test_they_are_listed_and_made_once(models):
    rows = json.loads((models / LIST).read_text(encoding="utf-8"))
    assert [row["file"] for row in rows] == list(STAND_INS)
    made = []
    make_standins(models, say=made.append)
    assert made == []


@pytest.mark.parametrize(("shapes", "unused"), [(facenet_shapes, 2), (parser_shapes, 0)])
def test_the_layouts_are_those_of_the_published_files(shapes, unused):
    """The golden list of FaceNet's keys lacks the classifier's two, which its loader skips."""
    file = FOLDER / f"{shapes.__name__.removesuffix('_shapes').replace('parser', 'parsing')}.shapes.json"
    published = {k: tuple(s) for k, s in json.loads(file.read_text(encoding="utf-8")).items()}
    made = shapes()
    assert published.items() <= made.items()
    assert len(made) == len(published) + unused


def test_capface_is_read_as_the_small_network_with_a_mask_of_both_sides(models):
    net, _ = load_capface(models / weights.CAPFACE)
    assert net.config == SMALL
    hint, inside = shaded_balls(count=5)
    with torch.no_grad():
        _, mask = net.encode_hint(hint)
    head = inside[:, 4::8, 4::8]
    opened = mask[:, 0] > 0.5
    assert opened[head].float().mean() > 0.8
    assert opened[~head].float().mean() < 0.2


def test_facenet_is_read(models):
    with torch.no_grad():
        out = load_facenet(models / weights.FACENET)(torch.rand(1, 3, 160, 160))
    assert out.norm().item() == pytest.approx(1, abs=1e-5)


def test_zeros_are_stored_as_zeros(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", {"a": torch.arange(3.0)}, {"b": (2, 5)})
    read = load_file(tmp_path / "x.safetensors")
    assert torch.equal(read["a"], torch.arange(3.0))
    assert torch.equal(read["b"], torch.zeros(2, 5, dtype=torch.float16))


def test_real_files_are_recognized_by_their_layout(tmp_path, models):
    attention = "model.diffusion_model.input_blocks.{}.1.transformer_blocks.0.attn2.to_k.weight"
    rest = {"cond_stage_model.x": (1,), "first_stage_model.x": (1,)}
    for name, width in (("sd15", 768), ("sd21", 1024)):
        folder = tmp_path / name / "checkpoints"
        folder.mkdir(parents=True)
        write_safetensors(
            folder / "model.safetensors", {}, {attention.format(1): (320, width), attention.format(8): (1280, width), **rest}
        )
    found = weights.real_file(tmp_path / "sd15", weights.CHECKPOINT)
    assert found is not None and found.name == "model.safetensors"
    assert weights.real_file(tmp_path / "sd21", weights.CHECKPOINT) is None
    assert weights.real_file(models, weights.CHECKPOINT) is None
    assert weights.real_file(models, weights.CLIP_VISION) is not None


def test_a_hosts_other_files_are_left_alone(tmp_path):
    """ComfyUI's own folders hold placeholders, and users' hold files that the portrait does not load."""
    for name in ("controlnet/control_v11p_sd15_openpose.safetensors", "checkpoints/put_checkpoints_here", "loras/a.pt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"not a model")
    chosen = weights.choose(tmp_path, say=lambda _: None)
    assert set(chosen) == set(weights.INPUTS)
    assert not any(w.real for w in chosen.values())
