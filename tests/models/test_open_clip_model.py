import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from capface.errors import BadFile, BadInput, MissingFile, MissingPackage
from capface.models.clip.open_clip_model import load_open_clip_model
from capface.tests.synthetic import fill

EMBEDDING, WIDTH, PATCH, SIDE, LAYERS = 32, 64, 8, 16, 2
VISION = {"image_size": SIDE, "layers": LAYERS, "width": WIDTH, "head_width": 64, "patch_size": PATCH}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": WIDTH, "heads": 1, "layers": LAYERS}

open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")


def network(quick_gelu=False):
    with torch.random.fork_rng():
        return open_clip.CLIP(EMBEDDING, vision_cfg=VISION, text_cfg=TEXT, quick_gelu=quick_gelu).eval()


@pytest.fixture(scope="module")
def state():
    return {k: fill(f"clip.{k}", tuple(v.shape)) for k, v in network().state_dict().items()}


@pytest.fixture
def file(state, tmp_path):
    save_file(state, tmp_path / "clip.safetensors")
    return tmp_path / "clip.safetensors"


@pytest.mark.parametrize("quick", [False, True])
@torch.no_grad()
def test_it_computes_what_open_clip_computes(state, file, quick):
    reference = network(quick)
    reference.load_state_dict(state)
    images = torch.rand(2, 3, SIDE, SIDE)
    transform = open_clip.image_transform(SIDE, is_train=False).transforms[-1]  # its mean and deviation
    clip = load_open_clip_model(file, "QuickGELU" if quick else "GELU")
    assert torch.allclose(clip.images(images), reference.encode_image(transform(images), normalize=True), atol=1e-5)
    prompts = ["a photo of a person", "an oil painting"]
    tokens = open_clip.SimpleTokenizer(context_length=TEXT["context_length"])(prompts)
    assert torch.allclose(clip.texts(prompts), reference.encode_text(tokens, normalize=True), atol=1e-5)
    assert clip.images(images).norm(dim=1) == pytest.approx([1, 1], abs=1e-5)


@torch.no_grad()
def test_images_of_any_size_are_cropped_to_their_middle_square(file):
    clip = load_open_clip_model(file)
    square, edge = torch.rand(1, 3, SIDE, SIDE), torch.zeros(1, 3, SIDE, 8)
    wide = torch.cat([edge, square, edge], dim=3)
    assert torch.allclose(clip.images(wide), clip.images(square), atol=1e-5)
    large = wide.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    assert torch.nn.functional.cosine_similarity(clip.images(large), clip.images(square)).item() > 0.99
    assert torch.nn.functional.cosine_similarity(clip.images(large.flip(3)), clip.images(square)).item() < 0.99


@pytest.mark.usefixtures("without_type_checks")
def test_images_of_another_shape_are_refused(file):
    with pytest.raises(BadInput, match=r"\[B, 3, H, W\]"):
        load_open_clip_model(file).images(torch.zeros(3, 32, 32))


def test_the_architecture_is_found_in_open_clips_list():
    """ViT-H-14's heads are 80 wide, which cannot be inferred from the tensors."""
    from capface.models.clip.open_clip_model import _architecture, _configuration

    with torch.device("meta"):
        config = open_clip.get_model_config("ViT-H-14")
        state = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"]).state_dict()
    vision, text, embedding = _configuration(state, "h.safetensors")
    assert _architecture(open_clip, vision, text, embedding) == "ViT-H-14"
    assert (vision["head_width"], text["heads"]) == (80, 16)


def test_the_activation_follows_the_file_beside_it_or_the_name(state, file, tmp_path):
    assert load_open_clip_model(file).name.endswith("with GELU")
    openai = tmp_path / "vit_large_patch14_clip_224.openai" / "open_clip_model.safetensors"
    openai.parent.mkdir()
    save_file(state, openai)
    assert load_open_clip_model(openai).name.endswith("with QuickGELU")
    assert load_open_clip_model(openai, "GELU").name.endswith("with GELU")
    config = tmp_path / "open_clip_config.json"
    config.write_text(json.dumps({"model_cfg": {"embed_dim": EMBEDDING, "quick_gelu": True}}))
    assert load_open_clip_model(file).name.endswith("with QuickGELU")
    config.write_text("[]")
    with pytest.raises(BadFile, match="not an open_clip configuration"):
        load_open_clip_model(file)
    with pytest.raises(BadInput, match="auto, GELU, QuickGELU, got 'ReLU'"):
        load_open_clip_model(file, "ReLU")


def test_loading_does_not_change_the_random_state(file):
    before = torch.get_rng_state()
    load_open_clip_model(file)
    assert torch.equal(torch.get_rng_state(), before)


def test_files_of_other_kinds_are_refused(state, tmp_path):
    with pytest.raises(MissingFile):
        load_open_clip_model(tmp_path / "nothing.safetensors")
    vision = {"vision_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(2, 2)}
    save_file(vision, tmp_path / "vision.safetensors")
    with pytest.raises(BadFile, match=r"a CLIP vision model.*not a CLIP of images and texts"):
        load_open_clip_model(tmp_path / "vision.safetensors")
    save_file({k: v for k, v in state.items() if k != "text_projection"}, tmp_path / "part.safetensors")
    with pytest.raises(BadFile, match=r"part\.safetensors is an incomplete CLIP.*text_projection"):
        load_open_clip_model(tmp_path / "part.safetensors")
    save_file({k: v for k, v in state.items() if k != "ln_final.bias"}, tmp_path / "part.safetensors")
    with pytest.raises(BadFile, match=r"ln_final\.bias is missing"):
        load_open_clip_model(tmp_path / "part.safetensors")


def test_missing_open_clip_is_named(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingPackage, match="pip install open_clip_torch"):
        load_open_clip_model(file)
