"""The denoiser against the released code's noise predictions, and CapFace as its copy."""

import json

import pytest
import torch
from safetensors import safe_open

from capface.errors import BadFile
from capface.models.diffusion.capface import CapFace, CapFaceConfig, IdentityTokens
from capface.models.diffusion.capface_checkpoint import load_capface
from capface.models.diffusion.denoiser import Denoiser, DenoiserConfig
from capface.tests.synthetic import FOLDER, fill, noise, relative_error, state_dict

SMALL = {"channel_mult": (1, 2), "num_res_blocks": 1, "attention_downsamplings": (1, 2)}
TINY = DenoiserConfig((1, 2), 1, (1, 2), model_channels=32, context_width=24, in_channels=3, out_channels=3)


def load(network, shapes, prefix):
    state = state_dict(shapes, prefix)
    for key in network.state_dict().keys() - state.keys():
        state[key] = torch.zeros_like(network.state_dict()[key])  # the mask, which a plain ControlNet does not have
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def denoiser():
    return load(Denoiser(DenoiserConfig(**SMALL)), "unet_small.shapes.json", "model.diffusion_model.")


@pytest.fixture(scope="module")
def capface():
    return load(CapFace(CapFaceConfig(**SMALL)), "capface_small.shapes.json", "control_model.")


@pytest.fixture(scope="module")
def tokens():
    layer = IdentityTokens()
    layer.load_state_dict({k: fill(k, tuple(v.shape)) for k, v in layer.state_dict().items()})
    return layer.requires_grad_(False)


def residuals(capface, tokens, x, t, seed, tau=1000):
    """One person's masked residuals; rows beyond tau have no identity."""
    batch, h, w = x.shape[0], *x.shape[2:]
    guided, mask = capface.encode_hint(noise(seed + 1, [batch, 9, 8 * h, 8 * w]).clamp(-1, 1))
    context = tokens(noise(seed + 3, [batch, 257, 1024]), noise(seed + 2, [batch, 1, 512]))
    return capface.mask_residuals(capface(x, t, guided, context * (t <= tau)[:, None, None]), mask)


@pytest.mark.parametrize("name", ["plain", "full", "strength", "tau_kept", "tau_dropped", "post_hoc", "two_people", "batch"])
def test_noise_prediction_equals_the_released_code(denoiser, capface, tokens, name):
    with safe_open(FOLDER / "apply_small.safetensors", "pt") as golden:
        meta, expected = json.loads(golden.metadata()[name]), golden.get_tensor(name)
    seeds = meta.get("seeds") or [meta["seed"]]
    x, batch = noise(seeds[0], list(expected.shape)), expected.shape[0]
    t = torch.tensor(meta["t"]).reshape(batch)
    text = noise(seeds[0] + 4, [batch, 77, 768])
    added = None
    if name != "plain":
        tau = meta["tau"] if isinstance(meta.get("tau"), int) else 1000
        people = [residuals(capface, tokens, x, t, seed, tau) for seed in seeds]
        added = [meta.get("strength", 1.0) * sum(parts) for parts in zip(*people, strict=True)]
    if name == "post_hoc":
        pose = load(CapFace(CapFaceConfig(**SMALL, hint_channels=3)), "pose_small.shapes.json", "pose_control_model.")
        guided, _ = pose.encode_hint(noise(seeds[0] + 5, [1, 3, 64, 64]).clamp(0, 1))
        assert added is not None
        added = [f + meta["alpha"] * star for f, star in zip(added, pose(x, t, guided, text), strict=True)]
    assert relative_error(denoiser(x, t, text, added), expected) < 1e-5


def test_keys_and_shapes_are_a_checkpoints():
    shapes = json.loads((FOLDER / "unet_small.shapes.json").read_text())
    config = DenoiserConfig.from_shapes(shapes)
    assert config == DenoiserConfig(**SMALL)
    assert {k: list(v.shape) for k, v in Denoiser(config, device="meta").state_dict().items()} == shapes


def test_the_default_is_stable_diffusion_1():
    network = Denoiser(DenoiserConfig(), device="meta")
    assert sum(p.numel() for p in network.parameters()) == 859_520_964
    assert len(network.state_dict()) == 686


@pytest.mark.parametrize(
    "config",
    [TINY, DenoiserConfig((1, 2, 2), 2, (2, 4), 64, 32, num_heads=4), DenoiserConfig((2,), 1, (), 32, in_channels=9)],
)
def test_other_sizes_survive_the_round_trip_through_shapes(config):
    state = Denoiser(config, device="meta").state_dict()
    assert DenoiserConfig.from_state_dict(state, config.num_heads) == config


@pytest.mark.parametrize("missing", ["out.2.weight", "middle_block.1.transformer_blocks.0.attn2.to_k.weight"])
def test_an_incomplete_network_is_refused(missing):
    shapes = {k: v.shape for k, v in Denoiser(TINY, device="meta").state_dict().items() if k != missing}
    with pytest.raises(BadFile, match=missing):
        DenoiserConfig.from_shapes(shapes)


def tiny_denoiser():
    torch.manual_seed(2)
    return Denoiser(TINY).eval().requires_grad_(False)


def tiny_inputs(h=8, w=8):
    x, text = torch.randn(2, 3, h, w), torch.randn(2, 5, 24)
    return x, torch.tensor([3, 700]), text, torch.rand(2, 9, 8 * h, 8 * w)


def test_odd_sizes_are_preserved():
    x, t, text, _ = tiny_inputs(7, 5)
    assert tiny_denoiser()(x, t, text).shape == x.shape


def test_an_untrained_capface_computes_the_denoisers_features_and_changes_nothing():
    denoiser = tiny_denoiser()
    capface = CapFace.from_denoiser(denoiser, hint_widths=(4, 4, 8, 8, 8, 8, 16))
    seen = {}
    for name, network in (("denoiser", denoiser), ("capface", capface)):
        for block in (*network.input_blocks, network.middle_block):
            block.register_forward_hook(lambda _m, _i, out, name=name: seen.setdefault(name, []).append(out))
    x, t, text, hint = tiny_inputs()
    plain = denoiser(x, t, text)
    added = capface(x, t, capface.encode_hint(hint)[0], text)
    assert len(seen["capface"]) == len(seen["denoiser"]) == 5
    for a, b in zip(seen["capface"], seen["denoiser"], strict=True):
        assert torch.equal(a, b)
    assert all(not r.any() for r in added)
    assert torch.equal(denoiser(x, t, text, added), plain)


def test_an_untrained_capface_shares_no_memory_with_the_denoiser():
    denoiser = tiny_denoiser()
    capface = CapFace.from_denoiser(denoiser, hint_widths=(4, 4, 8, 8, 8, 8, 16))
    before = {k: v.clone() for k, v in denoiser.state_dict().items()}
    with torch.no_grad():
        for parameter in capface.parameters():
            parameter.add_(1)
    assert all(torch.equal(before[k], v) for k, v in denoiser.state_dict().items())


def test_a_narrow_capface_loads_by_its_shapes():
    capface = CapFace.from_denoiser(tiny_denoiser(), hint_widths=(4, 4, 8, 8, 12, 12, 16))
    projections = IdentityTokens(40, 20, 24)
    state = {f"control_model.{k}": v for k, v in capface.state_dict().items()} | projections.state_dict()
    network, loaded = load_capface(state)
    assert network.config == capface.config
    assert network.config.hint_widths == (4, 4, 8, 8, 12, 12, 16)
    assert loaded(torch.zeros(1, 6, 40), torch.zeros(1, 1, 20)).shape == (1, 7, 24)
