"""The base model of training, compared with the host's own networks with the same weights."""

import pytest
import torch

from capface.tests.synthetic import relative_error
from capface.tests.training.base_files import AUTOENCODER, CONTEXT, TEXT_LAYERS, parts, write_base

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

PROMPTS = ["A photo of a woman, smiling; red hair & freckles, 1.5x!", "", "naïve café   in  the RAIN's end"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    from capface.training.base_model import load_base

    return load_base(write_base(tmp_path_factory.mktemp("base") / "sd.safetensors"))


def test_autoencoder(in_host, base):
    from comfy.ldm.models.autoencoder import AutoencoderKL

    sizes = {**AUTOENCODER, "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3}
    host = AutoencoderKL(embed_dim=4, ddconfig={**sizes, "attn_resolutions": [], "dropout": 0.0}).eval()
    host.load_state_dict(parts()["first_stage_model."])
    pictures = torch.rand(2, 3, 64, 48) * 2 - 1
    with torch.no_grad():
        mean = host.encoder(pictures)
        mean = host.quant_conv(mean)[:, :4]
        assert relative_error(base.autoencoder.encode(pictures).latent_dist.mean, mean) < 1e-5
        latents = torch.randn(2, 4, 8, 6)
        assert relative_error(2 * base.decode(latents) - 1, host.decode(latents / 0.18215)) < 1e-5


def test_text(in_host, base):
    import comfy.ops
    from comfy.clip_model import CLIPTextModel
    from comfy.sd1_clip import SD1Tokenizer

    from capface.training.base_model import tokenize

    host_tokens = [[t for t, _ in SD1Tokenizer().tokenize_with_weights(prompt)["l"][0]] for prompt in PROMPTS]
    assert tokenize(PROMPTS).tolist() == host_tokens
    config = {"vocab_size": 49408, "hidden_size": CONTEXT, "intermediate_size": 4 * CONTEXT, "num_hidden_layers": TEXT_LAYERS}
    config |= {"num_attention_heads": 12, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "eos_token_id": 49407}
    host = CLIPTextModel(config, torch.float32, "cpu", comfy.ops.disable_weight_init)
    host.load_state_dict(parts()["cond_stage_model.transformer."], strict=False)
    with torch.no_grad():
        features = host(torch.tensor(host_tokens))[0]
    assert relative_error(base.encode_prompts(PROMPTS), features) < 1e-5
