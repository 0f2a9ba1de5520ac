import os
import pickle
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from capface.errors import BadFile, MissingFile
from capface.files.checkpoint import read_state_dict
from capface.files.identify import describe
from capface.models.diffusion.capface import CapFace, CapFaceConfig, IdentityTokens
from capface.models.diffusion.capface_checkpoint import capface_tensors, load_capface

CONFIG = CapFaceConfig((1, 2), 1, (1,), model_channels=32, context_width=48)


def capface_state():
    torch.manual_seed(1)
    state = {f"control_model.{k}": v for k, v in CapFace(CONFIG).state_dict().items()}
    return state | IdentityTokens(1024, 512, 48).state_dict()


BESIDE = {
    "model.diffusion_model.input_blocks.0.0.weight": torch.ones(32, 4, 3, 3),
    "first_stage_model.decoder.conv_in.weight": torch.ones(8, 4, 3, 3),
    "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
}


def save(path, state):
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


class LightningCallback:
    """A class that unpickling would have to import."""


LAYOUTS = {
    "bare.ckpt": lambda s: s,
    "wrapped.ckpt": lambda s: {"state_dict": s, "epoch": 3, "optimizer_states": [{"state": {0: torch.ones(2)}}]},
    "all-in-one.ckpt": lambda s: {"state_dict": BESIDE | s, "global_step": 10},
    "ordered.pth": lambda s: OrderedDict(BESIDE | s),
    "lightning.ckpt": lambda s: {"state_dict": BESIDE | s, "callbacks": {LightningCallback: LightningCallback()}},
    "plain.safetensors": lambda s: s,
    "all-in-one.safetensors": lambda s: BESIDE | s,
    "named wrong.safetensors.ckpt": lambda s: s,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_of_the_released_file_loads(tmp_path, name):
    state = capface_state()
    path = save(tmp_path / name, LAYOUTS[name](state))
    network, tokens = load_capface(path)
    assert network.config == CONFIG
    loaded = {f"control_model.{k}": v for k, v in network.state_dict().items()} | tokens.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[k], state[k]) for k in state)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert capface_tensors(path).keys() == state.keys()


def test_the_old_pickle_format_loads(tmp_path):
    torch.save(capface_state(), tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    assert load_capface(tmp_path / "old.ckpt")[0].config == CONFIG


def test_a_state_dict_loads_with_another_type():
    network, tokens = load_capface(capface_state(), dtype=torch.bfloat16)
    assert {p.dtype for m in (network, tokens) for p in m.parameters()} == {torch.bfloat16}


def sd(width):
    return {"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.ones(8, width)}


OTHERS = {
    "a ControlNet": {k: v for k, v in capface_state().items() if "mask_predict" not in k and "linear" not in k},
    "a LoRA": {"lora_unet_down_blocks_0.lora_up.weight": torch.ones(2, 2)},
    "a Stable Diffusion 1.x checkpoint": sd(768) | {"first_stage_model.decoder.up.0.weight": torch.ones(1)},
    "a Stable Diffusion 2.x checkpoint": sd(1024),
    "an SDXL model": sd(2048),
    "a FaceNet checkpoint": {"conv2d_1a.conv.weight": torch.ones(1), "last_linear.weight": torch.ones(1)},
    "a CLIP vision model": {"vision_model.encoder.layers.0.layer_norm1.weight": torch.ones(1)},
    "a file without tensors": {},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_the_message_says_what_another_file_looks_like(tmp_path, kind):
    path = save(tmp_path / "caphuman.ckpt", OTHERS[kind])
    with pytest.raises(BadFile) as error:
        load_capface(path)
    assert f"caphuman.ckpt is {kind}" in str(error.value)
    assert "Expected a CapFace checkpoint: the released caphuman.ckpt" in str(error.value)
    assert describe(OTHERS[kind]).startswith(kind)


def broken(tmp_path, suffix, cut):
    whole = save(tmp_path / f"whole{suffix}", capface_state())
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole.read_bytes()[:cut])
    return path


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("cut", [0, 40, 30_000, -5])
def test_a_truncated_file_is_named(tmp_path, suffix, cut):
    with pytest.raises(BadFile, match=r"truncated|empty|broken"):
        load_capface(broken(tmp_path, suffix, cut))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"\n  <html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"GGUF\x03\x00\x00\x00", "is not a checkpoint"),
    ],
)
def test_a_download_gone_wrong_is_named(tmp_path, content, message):
    path = tmp_path / "caphuman.ckpt"
    path.write_bytes(content)
    with pytest.raises(BadFile, match=message):
        load_capface(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFile, match=r"caphuman\.ckpt"):
        load_capface(tmp_path / "caphuman.ckpt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("control_model.input_blocks.1.0.in_layers.2.weight"), "in_layers.2.weight is missing"),
        (lambda s: s.update({"control_model.extra.weight": torch.ones(1)}), "extra.weight does not belong"),
        (
            lambda s: s.update({"control_model.mask_predict.0.weight": torch.ones(2, 32, 3, 3)}),
            r"mask_predict.0.weight has shape \[2, 32, 3, 3\]",
        ),
        (lambda s: s.pop("id_linear.weight"), "incomplete"),
        (lambda s: s.pop("img_linear.bias"), "img_linear.bias is missing"),
        (lambda s: s.pop("control_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"), "is missing"),
    ],
)
def test_loading_is_strict(change, message):
    state = capface_state()
    change(state)
    with pytest.raises(BadFile, match=message):
        load_capface(state)


class Hostile:
    """Unpickling it with Python's own unpickler would run a command."""

    def __init__(self, call, argument):
        self.call, self.argument = call, argument

    def __reduce__(self):
        return self.call, (self.argument,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("call", ["os.system", "builtins.exec"])
def test_a_pickle_runs_no_code(tmp_path, call, legacy):
    trace = tmp_path / "trace"
    command = {"os.system": f"touch '{trace}'", "builtins.exec": f"open({str(trace)!r}, 'w').close()"}[call]
    function = {"os.system": os.system, "builtins.exec": exec}[call]
    path = tmp_path / "hostile.ckpt"
    state = {"state_dict": capface_state(), "callbacks": Hostile(function, command)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(BadFile, match="never run"):
        load_capface(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(state["callbacks"]))  # the guard can fail: with the usual unpickler, the same object does run
    assert trace.exists()


def test_nested_dictionaries_are_joined_with_dots(tmp_path):
    path = save(tmp_path / "deca_model.tar", {"E_flame": {"layers.0.bias": torch.ones(3)}, "step": 7})
    assert list(read_state_dict(path)) == ["E_flame.layers.0.bias"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_an_all_in_one_file_costs_only_capfaces_own_memory(tmp_path, suffix):
    config = CapFaceConfig((1, 2), 1, (1,), model_channels=160)
    state = {f"control_model.{k}": v for k, v in CapFace(config).state_dict().items()} | IdentityTokens().state_dict()
    beside = {f"model.diffusion_model.{i}": torch.ones(25_000_000) for i in range(4)}
    whole = save(tmp_path / f"whole{suffix}", beside | state)
    warm_up = save(tmp_path / f"small{suffix}", capface_state())
    command = [sys.executable, "-m", "capface.tools.loading_memory", str(whole), str(warm_up)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before, peak, own = map(int, out.split())
    assert own > 50e6
    assert peak - before < 1.3 * own, f"{(peak - before) / own:.2f} times CapFace's own tensors"


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_weights_that_are_no_numbers_are_named(tmp_path, suffix):
    for bad in (float("nan"), float("inf")):
        state = {key: value.clone() for key, value in capface_state().items()}
        state["control_model.mask_predict.0.weight"].view(-1)[3] = bad
        with pytest.raises(BadFile, match=r"NaN or infinite: mask_predict\.0\.weight\."):
            load_capface(save(tmp_path / f"x{suffix}", state))
    state = {key: value.clone() for key, value in capface_state().items()}
    state["id_linear.bias"][0] = 1e6  # too large for half precision
    load_capface(save(tmp_path / f"x{suffix}", state))
    with pytest.raises(BadFile, match=r"id_linear\.bias.*load it in float32"):
        load_capface(tmp_path / f"x{suffix}", dtype=torch.float16)


@pytest.mark.parametrize("kind", [torch.int64, torch.complex64])
def test_weights_of_another_kind_are_named(kind):
    state = capface_state()
    state["id_linear.weight"] = state["id_linear.weight"].to(kind)
    with pytest.raises(BadFile, match=r"floating-point weights, got id_linear\.weight"):
        load_capface(state)


def test_an_expanded_tensor_is_not_copied(tmp_path):
    state = {key: torch.zeros(1).expand(value.shape) for key, value in capface_state().items()}
    with pytest.raises(BadFile, match="is a stub"):
        load_capface(save(tmp_path / "x.ckpt", state))


@pytest.mark.parametrize("before", ["module.", "model.", "ema."])
def test_weights_as_training_code_names_them_load(tmp_path, before):
    state = {f"{before}{key}": value for key, value in capface_state().items()}
    assert load_capface(save(tmp_path / "x.safetensors", state))[0].config == CONFIG
    assert capface_tensors(tmp_path / "x.safetensors").keys() == capface_state().keys()


def test_the_message_holds_no_advice_of_torch(tmp_path):
    numpys = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R."
    for data in (numpys, numpys[:-9], b"\x80\x02cos\nsystem\n)R."):
        (tmp_path / "x.ckpt").write_bytes(data)
        with pytest.raises(BadFile) as error:
            read_state_dict(tmp_path / "x.ckpt")
        assert "weights_only" not in str(error.value) and "torch.load" not in str(error.value)
