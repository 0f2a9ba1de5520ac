import json

import pytest
import torch
from safetensors import safe_open

from capface.errors import BadFile, BadInput
from capface.models.diffusion.capface import CapFace, CapFaceConfig, IdentityTokens
from capface.models.diffusion.layers import Projected
from capface.tests.synthetic import FOLDER, fill, noise, relative_error, state_dict

SMALL = CapFaceConfig(channel_mult=(1, 2), num_res_blocks=1, attention_downsamplings=(1, 2))


def build(name, config):
    network = CapFace(config).eval().requires_grad_(False)
    network.load_state_dict(state_dict(f"{name}.shapes.json", "control_model."))
    return network


def tokens_layer():
    layer = IdentityTokens().requires_grad_(False)
    layer.load_state_dict({k: fill(k, tuple(v.shape)) for k, v in layer.state_dict().items()})
    return layer


def case_inputs(meta):
    seed, batch, h, w = (meta[k] for k in ("seed", "batch", "h", "w"))
    x = noise(seed, [batch, 4, h, w])
    hint = noise(seed + 1, [batch, 9, 8 * h, 8 * w]).clamp(-1, 1)
    tokens = tokens_layer()(noise(seed + 3, [batch, 257, 1024]), noise(seed + 2, [batch, 1, 512]))
    return x, torch.tensor(meta["timesteps"]), hint, tokens


@pytest.fixture(scope="module")
def small():
    return build("capface_small", SMALL)


def check_case(network, file, name):
    with safe_open(FOLDER / f"{file}.safetensors", "pt") as golden:
        meta = json.loads(golden.metadata()[name])
        x, timesteps, hint, tokens = case_inputs(meta)
        guided, mask = network.encode_hint(hint)
        residuals = network(x, timesteps, guided, tokens if meta["identity"] else None)
        assert relative_error(mask, golden.get_tensor(f"{name}.mask")) < 1e-5
        for i, residual in enumerate(residuals):
            assert relative_error(residual, golden.get_tensor(f"{name}.feature.{i}")) < 1e-5, f"feature {i}"
        assert f"{name}.feature.{len(residuals)}" not in golden.keys()  # noqa: SIM118  safe_open is not a dict


@pytest.mark.parametrize("name", ["identity", "dropped", "portrait", "batch"])
def test_small_network_equals_the_released_code(small, name):
    check_case(small, "capface_small", name)


def test_full_size_network_equals_the_released_code():
    network = build("capface_sd15", CapFaceConfig())
    assert sum(p.numel() for p in network.parameters()) == 361_282_865
    for name in ("identity", "dropped"):
        check_case(network, "capface_sd15", name)


@pytest.mark.parametrize(
    ("name", "config"), [("capface_small", SMALL), ("capface_sd15", CapFaceConfig())], ids=["small", "sd15"]
)
def test_configuration_is_read_from_shapes(name, config):
    shapes = json.loads((FOLDER / f"{name}.shapes.json").read_text())
    assert CapFaceConfig.from_shapes(shapes) == config
    built = {k: list(v.shape) for k, v in CapFace(config, device="meta").state_dict().items()}
    assert built == shapes


@pytest.mark.parametrize(
    "config",
    [
        CapFaceConfig((1,), 1, (1,)),
        CapFaceConfig((1, 2, 2), 3, (2, 4), model_channels=64, context_width=32),
        CapFaceConfig((2, 4), 2, (), model_channels=32, hint_channels=3),
    ],
)
def test_other_sizes_survive_the_round_trip_through_shapes(config):
    shapes = {k: v.shape for k, v in CapFace(config, device="meta").state_dict().items()}
    assert CapFaceConfig.from_shapes(shapes) == config


def test_incomplete_network_is_refused():
    shapes = json.loads((FOLDER / "capface_small.shapes.json").read_text())
    del shapes["input_hint_block.0.weight"]
    with pytest.raises(BadFile, match="input_hint_block"):
        CapFaceConfig.from_shapes(shapes)


def test_dropped_identity_equals_zero_tokens_without_cross_attention(small):
    meta = {"seed": 5, "batch": 1, "h": 8, "w": 8, "timesteps": [321]}
    x, timesteps, hint, tokens = case_inputs(meta)
    guided, _ = small.encode_hint(hint)
    calls = []
    queries = [m for n, m in small.named_modules() if n.endswith(("attn2.to_q", "attn2.to_k", "norm2"))]
    handles = [m.register_forward_hook(lambda *_: calls.append(1)) for m in queries]
    dropped = small(x, timesteps, guided, None)
    assert not calls
    zero = small(x, timesteps, guided, 0 * tokens)
    assert len(calls) == len(queries) == 9
    for handle in handles:
        handle.remove()
    for a, b in zip(dropped, zero, strict=True):
        assert relative_error(a, b) < 1e-6


def test_keys_and_values_computed_once_give_the_same(small):
    x, t = noise(1, [2, 4, 12, 8]), torch.tensor([10.0, 700.0])
    guided, _ = small.encode_hint(noise(2, [1, 9, 96, 64]))
    tokens = noise(3, [2, 5, 768])
    for context in (tokens, tokens[:1]):
        projected = small.project_identity(context)
        assert all(torch.equal(a, b) for a, b in zip(small(x, t, guided, context), small(x, t, guided, projected), strict=True))
    joined = Projected.cat([small.project_identity(tokens[:1]), small.project_identity(tokens[1:])])
    for a, b in zip(small(x, t, guided, joined), small(x, t, guided, tokens), strict=True):
        assert relative_error(a, b) < 1e-5


@pytest.mark.parametrize("size", [(8, 8), (9, 13)])
def test_sizes_of_the_residuals(small, size):
    guided, _ = small.encode_hint(torch.zeros(1, 9, 8 * size[0], 8 * size[1]))
    residuals = small(torch.zeros(1, 4, *size), torch.tensor([1.0]), guided, None)
    assert small.sizes(*size) == [tuple(r.shape[-2:]) for r in residuals]
    assert small.residual_elements(*size) == sum(r.numel() for r in residuals)


def test_batch_equals_its_rows(small):
    meta = {"seed": 9, "batch": 2, "h": 8, "w": 6, "timesteps": [700, 30.5]}
    x, timesteps, hint, tokens = case_inputs(meta)
    guided, _ = small.encode_hint(hint)
    together = small(x, timesteps, guided, tokens)
    for row in range(2):
        one = slice(row, row + 1)
        for a, b in zip(small(x[one], timesteps[one], guided[one], tokens[one]), together, strict=True):
            assert relative_error(a, b[one]) < 1e-5


def test_mask_is_hard_and_resized_per_residual():
    mask = torch.tensor([[[[0.0, 0.4, 0.6, 1.0]] * 4]])
    full, half = CapFace.mask_residuals([torch.ones(1, 3, 4, 4), torch.ones(1, 5, 2, 2)], mask)
    assert full.unique().tolist() == [0, 1]
    assert full[0, 0, 0].tolist() == [0, 0, 1, 1]
    assert half.shape == (1, 5, 2, 2)
    assert half[0, 0, 0].tolist() == [0, 1]
    narrow = torch.tensor([0.0, 0.0, 0.55, 0.55, 0.0, 0.0, 0.0, 0.0]).expand(1, 1, 8, 8)
    (antialiased,) = CapFace.mask_residuals([torch.ones(1, 1, 4, 4)], narrow)
    assert not antialiased.any()  # 0.55 has 6/8 of the weight of a triangle two steps wide; a plain mean would keep it


def test_an_rgb_hint_is_refused(small):
    with pytest.raises(BadInput, match=r"\[1, 3, 64, 64\].*Render Head"):
        small.encode_hint(torch.zeros(1, 3, 64, 64))


def test_a_hint_off_the_grid_is_refused(small):
    with pytest.raises(BadInput, match="multiples of 8"):
        small.encode_hint(torch.zeros(1, 9, 60, 64))
