import sys

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from capface.errors import BadFile, BadInput, MissingFile, MissingPackage
from capface.models.clip.image_tokens import load_clip_tokens, preprocess
from capface.models.clip.open_clip_model import DEVIATION, MEAN
from capface.tests.synthetic import fill

open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")

PATCH, SIDE, WIDTH, LAYERS = 14, 56, 128, 3


def theirs():
    """open_clip's own tower with the synthetic weights."""
    with torch.random.fork_rng():
        tower = open_clip.transformer.VisionTransformer(
            SIDE, PATCH, WIDTH, LAYERS, heads=2, mlp_ratio=4.0, output_dim=32, act_layer=open_clip.transformer.QuickGELU
        ).eval()
    tower.load_state_dict({k: fill(f"visual.{k}", tuple(v.shape)) for k, v in tower.state_dict().items()})
    return tower


def to_transformers(state):
    """Convert a tower's tensors to transformers' layout: the inverse of the loader's conversion, implemented independently."""
    names = {"conv1.weight": "embeddings.patch_embedding.weight", "class_embedding": "embeddings.class_embedding"}
    names |= {"positional_embedding": "embeddings.position_embedding.weight"}
    for norm, other in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        names |= {f"{norm}.{kind}": f"{other}.{kind}" for kind in ("weight", "bias")}
    out = {f"vision_model.{names[k]}": v for k, v in state.items() if k in names}
    out["visual_projection.weight"] = state["proj"].T.contiguous()
    out["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    parts["attn.out_proj"] = "self_attn.out_proj"
    for i in range(LAYERS):
        block, layer = f"transformer.resblocks.{i}.", f"vision_model.encoder.layers.{i}."
        for kind in ("weight", "bias"):
            out |= {f"{layer}{new}.{kind}": state[f"{block}{old}.{kind}"] for old, new in parts.items()}
            for name, part in zip("qkv", state[f"{block}attn.in_proj_{kind}"].chunk(3), strict=True):
                out[f"{layer}self_attn.{name}_proj.{kind}"] = part.contiguous()
    return out


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, state = tmp_path_factory.mktemp("clip"), theirs().state_dict()
    text = {"token_embedding.weight": torch.zeros(2, 2)}
    save_file({f"visual.{k}": v for k, v in state.items()} | text, folder / "open_clip")
    save_file(to_transformers(state) | text, folder / "transformers")
    return folder


@pytest.mark.parametrize("layout", ["open_clip", "transformers"])
@torch.no_grad()
def test_tokens_are_the_last_layers_output(files, layout):
    tower, before = theirs(), []
    tower.transformer.register_forward_hook(lambda _module, _inputs, output: before.append(output))
    images = torch.rand(2, 3, SIDE, SIDE).mul(255).round() / 255
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
    tower((images - mean) / deviation)
    clip = load_clip_tokens(files / layout)
    assert clip.shape == (17, WIDTH)
    assert torch.allclose(clip(images), before[0], atol=1e-5)


@pytest.mark.usefixtures("without_type_checks")
def test_tokens_of_another_shape_are_refused(files):
    with pytest.raises(BadInput, match=r"\[B, 3, H, W\]"):
        load_clip_tokens(files / "open_clip")(torch.rand(3, SIDE, SIDE))


def test_the_middle_square_is_encoded_in_eight_bits():
    image = torch.rand(1, 3, 40, 80)
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
    seen = preprocess(image, 20) * deviation + mean
    assert torch.allclose((seen * 255).round(), seen * 255, atol=1e-3)
    wanted = F.interpolate(image, (20, 40), mode="bicubic", antialias=True)[..., 10:30].clamp(0, 1)
    assert (seen - wanted).abs().max() < 0.6 / 255


def test_files_without_an_image_tower_are_refused(files, tmp_path, monkeypatch):
    with pytest.raises(MissingFile):
        load_clip_tokens(tmp_path / "none.safetensors")
    save_file({"conv2d_1a.conv.weight": torch.zeros(2)}, tmp_path / "facenet")
    with pytest.raises(BadFile, match=r"a FaceNet checkpoint.*not CLIP's image encoder.*clip-vit-large-patch14"):
        load_clip_tokens(tmp_path / "facenet")
    state = to_transformers(theirs().state_dict())
    for missing in ("encoder.layers.1.self_attn.k_proj.bias", "pre_layrnorm.weight"):
        save_file({k: v for k, v in state.items() if not k.endswith(missing)}, tmp_path / "broken")
        with pytest.raises(BadFile, match=r"broken does not fit CLIP's image encoder: \S+(in_proj_bias|pre.weight) is missing"):
            load_clip_tokens(tmp_path / "broken")
    monkeypatch.setitem(sys.modules, "open_clip.transformer", None)
    with pytest.raises(MissingPackage, match="pip install open_clip_torch"):
        load_clip_tokens(files / "open_clip")
