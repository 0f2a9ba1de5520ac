"""The released code's noise predictions with CapFace, reproduced by the nodes and the host's own denoiser."""

import json

import pytest
import torch
from safetensors import safe_open

from capface.tests.host import pipeline
from capface.tests.synthetic import FOLDER, noise, relative_error

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def cases():
    with safe_open(FOLDER / "apply_small.safetensors", "pt") as golden:
        return {name: (json.loads(meta), golden.get_tensor(name)) for name, meta in golden.metadata().items()}


def check(denoiser, cases, name, positive, negative):
    meta, expected = cases[name]
    timesteps = meta["t"] if isinstance(meta["t"], list) else [meta["t"]]
    seed = meta.get("seed") or meta["seeds"][0]
    x = noise(seed, list(expected.shape))
    error = relative_error(pipeline.predict_noise(denoiser, positive, negative, x, timesteps), expected)
    print(f"{name}: relative error {error:.1e}")
    assert error < TOLERANCE
    return error


def test_plain(denoiser, cases):
    text = pipeline.person(300)[2]
    check(denoiser, cases, "plain", [[text, {}]], [[text, {}]])


@pytest.mark.parametrize("name", ["full", "strength", "tau_kept", "tau_dropped"])
def test_one_person(denoiser, capface, cases, name):
    meta, _ = cases[name]
    condition, identity, text = pipeline.person(meta["seed"])
    settings = {"strength": meta.get("strength", 1.0)} | ({"tau": meta["tau"]} if isinstance(meta.get("tau"), int) else {})
    check(denoiser, cases, name, *pipeline.apply(text, capface, condition, identity, **settings))


def test_batch(denoiser, capface, cases):
    meta, _ = cases["batch"]
    condition, identity, text = pipeline.person(meta["seed"], batch=2)
    check(denoiser, cases, "batch", *pipeline.apply(text, capface, condition, identity, tau=meta["tau"]))


def test_two_people(denoiser, capface, cases):
    first, second = cases["two_people"][0]["seeds"]
    condition, identity, text = pipeline.person(first)
    one = pipeline.apply(text, capface, condition, identity)
    condition, identity, _ = pipeline.person(second)
    check(denoiser, cases, "two_people", *pipeline.apply(text, capface, condition, identity, previous=one))


def test_post_hoc_head_control_by_a_stock_controlnet(denoiser, capface, cases):
    """Equation 9: F + alpha · pi*, with the ControlNet's residuals beyond the mask."""
    meta, _ = cases["post_hoc"]
    condition, identity, text = pipeline.person(meta["seed"])
    stock = pipeline.stock_control(noise(meta["seed"] + 5, [1, 3, 64, 64]).clamp(0, 1), meta["alpha"])
    options = {"control": stock, "control_apply_to_uncond": False}
    previous = ([[text, options]], [[text, options]])
    check(denoiser, cases, "post_hoc", *pipeline.apply(text, capface, condition, identity, previous=previous))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("name", ["full", "tau_dropped"])
def test_half_precision_stays_close_to_the_released_code(denoiser, cases, name, dtype, bound):
    meta, expected = cases[name]
    condition, identity, text = pipeline.person(meta["seed"])
    tau = meta["tau"] if isinstance(meta["tau"], int) else 1000
    conds = pipeline.apply(text, pipeline.small_capface(dtype), condition, identity, tau=tau)
    x = noise(meta["seed"], list(expected.shape))
    error = relative_error(pipeline.predict_noise(denoiser, *conds, x, [meta["t"]]), expected)
    print(f"{name} in {dtype}: relative error {error:.1e}")
    assert TOLERANCE < error < bound


def test_the_cases_differ(cases):
    """The tolerance distinguishes the cases: a control without effect, or one that drops the wrong part, would fail."""
    outputs = {name: out for name, (_, out) in cases.items() if name != "batch"}
    for name, out in outputs.items():
        for other in outputs:
            if other != name and {name, other} != {"full", "tau_kept"}:
                assert out.shape != outputs[other].shape or relative_error(out, outputs[other]) > 100 * TOLERANCE, (name, other)
    assert torch.equal(outputs["full"], outputs["tau_kept"])
