"""Loading of Stable Diffusion 1.x files. tests/host/test_base.py compares the networks with ComfyUI's."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from capface.errors import BadFile
from capface.tests.training.base_files import DENOISER, write_base
from capface.training.base_model import LATENT_SCALE, load_base, tokenize

pytest.importorskip("diffusers")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "sd.safetensors")


@pytest.fixture(scope="module")
def base(file):
    return load_base(file)


def test_all_three_networks_are_read_and_frozen(base):
    assert base.denoiser.config == DENOISER
    for network in (base.denoiser, base.autoencoder, base.text_encoder):
        assert not network.training
        assert not any(p.requires_grad or p.is_meta for p in network.parameters())


def test_pictures_go_to_latents_and_back(base):
    pictures = torch.rand(2, 3, 64, 48) * 2 - 1
    one, same, other = (base.encode_pictures(pictures, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == (2, 4, 8, 6)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    posterior = base.autoencoder.encode(pictures).latent_dist
    with torch.no_grad():
        assert ((one - other).abs() < 10 * LATENT_SCALE * posterior.std).all()
    assert base.decode(one).shape == pictures.shape


def test_prompts_are_padded_with_the_end_token():
    tokens = tokenize(["a face!", "", "word " * 100])
    assert tokens.shape == (3, 77)
    assert tokens[0, :5].tolist() == [49406, 320, 1710, 256, 49407]
    assert (tokens[0, 4:] == 49407).all()
    assert (tokens[1, 1:] == 49407).all()
    assert tokens[2, 75] != 49407 and tokens[2, 76] == 49407


def test_features_depend_on_the_words(base):
    a, b, same = base.encode_prompts(["a face", "a dog", "a face"])
    assert a.shape == (77, 24)
    assert torch.equal(a, same)
    assert not torch.allclose(a, b)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("first_stage_model.", r"without first_stage_model\.\*"),
        ("first_stage_model.decoder.conv_in.weight", "does not fit the autoencoder .*decoder.conv_in.weight is missing"),
        ("cond_stage_model.transformer.text_model.embeddings.position", "no complete text encoder .*position_embedding"),
        ("model.diffusion_model.out.2.weight", "out.2.weight"),
    ],
)
def test_an_incomplete_checkpoint_is_refused(file, tmp_path, missing, message):
    state = {k: v for k, v in load_file(file).items() if not k.startswith(missing)}
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(BadFile, match=message):
        load_base(tmp_path / "half.safetensors")
