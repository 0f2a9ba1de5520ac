"""CapFace as a control of the host's sampler: what is computed, how often, and what remains after a run."""

import pytest
import torch

from capface.errors import BadInput
from capface.flame.model.camera import WHOLE
from capface.tests.host import pipeline
from capface.tests.host.hint_images import HintImages
from capface.tests.host.pipeline import SIGMAS, area, walk, x_at
from capface.tests.synthetic import noise, relative_error

# Strength, start and end


def test_strength_0_is_bit_identical_to_no_control(denoiser, capface, someone, calls):
    condition, identity, text = someone
    plain = pipeline.sample(denoiser, [[text, {}]], [[text, {}]], walk(), cfg=3.0)
    nodes = pipeline.apply(text, capface, condition, identity, strength=0.0)
    assert torch.equal(pipeline.sample(denoiser, *nodes, walk(), cfg=3.0), plain)
    positive, negative = pipeline.apply(text, capface, condition, identity)
    positive[0][1]["control"].strength = 0.0
    assert torch.equal(pipeline.sample(denoiser, positive, negative, walk(), cfg=3.0), plain)
    assert not calls.rows


@pytest.mark.parametrize(("start", "end", "acting"), [(0.0, 1.0, 3), (0.0, 0.5, 2), (0.5, 1.0, 1), (0.99, 1.0, 0)])
def test_it_acts_between_start_and_end(denoiser, capface, someone, calls, start, end, acting):
    """Half of the schedule is at sigma = 1.6."""
    condition, identity, text = someone
    conds = pipeline.apply(text, capface, condition, identity, start_percent=start, end_percent=end)
    out = pipeline.sample(denoiser, *conds, walk())
    plain = pipeline.sample(denoiser, [[text, {}]], [[text, {}]], walk())
    assert [not torch.equal(a, b) for a, b in zip(out, plain, strict=True)].count(True) == acting
    assert len(calls.rows) == acting


# One evaluation for equal content


def test_both_halves_share_one_evaluation_when_batched(denoiser, capface, someone, calls):
    condition, identity, text = someone
    positive, negative = pipeline.apply(text, capface, condition, identity)
    pipeline.sample(denoiser, positive, negative, walk(), cfg=3.0)
    assert calls.rows == [1, 1, 1]


def test_both_halves_share_one_evaluation_when_the_host_cannot_batch_them(denoiser, capface, someone, calls):
    condition, identity, text = someone
    long = noise(5, [1, 462, 768])  # six chunks of text and one chunk are not padded to the same length
    positive, _ = pipeline.apply(long, capface, condition, identity)
    negative, _ = pipeline.apply(text, capface, condition, identity)
    negative[0][1]["control"] = positive[0][1]["control"]
    shared = pipeline.sample(denoiser, positive, negative, walk(), cfg=3.0)
    assert calls.rows == [1, 1, 1]
    positive, _ = pipeline.apply(long, capface, condition, identity)
    negative, _ = pipeline.apply(text, capface, condition, identity)
    alone = pipeline.sample(denoiser, positive, negative, walk(), cfg=3.0)
    assert len(calls.rows) == 3 + 6
    assert torch.equal(shared, alone)


def test_both_halves_share_one_evaluation_behind_different_controls(denoiser, capface, someone, calls):
    condition, identity, text = someone
    stock = pipeline.stock_control(noise(1, [1, 3, 64, 64]).clamp(0, 1))
    previous = ([[text, {"control": stock, "control_apply_to_uncond": False}]], [[text, {}]])
    positive, negative = pipeline.apply(text, capface, condition, identity, previous=previous)
    assert positive[0][1]["control"] is not negative[0][1]["control"]
    pipeline.sample(denoiser, positive, negative, walk(), cfg=3.0)
    assert calls.rows == [1, 1, 1]


def test_a_batch_is_evaluated_in_one_go(denoiser, capface, someone, calls):
    condition, identity, text = someone
    shape = (3, 4, 8, 8)
    out = pipeline.sample(
        denoiser, *pipeline.apply(text, capface, condition, identity), walk(shape=shape), shape=shape, cfg=3.0
    )
    assert calls.rows == [3, 3, 3]
    assert out.shape == (3, *shape)


def test_areas_of_different_content_are_evaluated_apart(denoiser, capface, someone, calls):
    condition, identity, text = someone
    shape = (1, 4, 8, 16)
    positive, negative = pipeline.apply(text, capface, condition, identity)
    halves = area(positive, 8, 8, 0, 0) + area(positive, 8, 8, 0, 8)
    out = pipeline.sample(denoiser, halves, negative, walk(SIGMAS[:1], shape), shape=shape, cfg=3.0)
    assert calls.rows == [1, 1, 1]  # left, right, and the whole frame of the negative prompt
    assert sorted(calls.hints) == [(1, 9, 64, 64), (1, 9, 64, 64), (1, 9, 64, 128)]
    left = pipeline.apply(text, capface, condition, identity)[0]
    right = pipeline.apply(text, capface, condition, identity)[0]
    apart = area(left, 8, 8, 0, 0) + area(right, 8, 8, 0, 8)
    expected = pipeline.sample(denoiser, apart, negative, walk(SIGMAS[:1], shape), shape=shape, cfg=3.0)
    assert relative_error(out, expected) < 1e-5


def test_other_latents_at_the_same_sigma_are_evaluated_again(denoiser, capface, someone, calls):
    """Second-order samplers (heun) evaluate twice at one sigma."""
    condition, identity, text = someone
    conds = pipeline.apply(text, capface, condition, identity)

    def heun(denoise):
        sigma = SIGMAS[1:2]
        return [denoise(x_at(sigma, seed=seed), sigma) for seed in (1, 2, 1)]

    first, second, again = pipeline.sample(denoiser, *conds, heun)
    assert calls.rows == [1, 1]
    assert torch.equal(first, again)
    alone = pipeline.sample(denoiser, *conds, lambda denoise: denoise(x_at(SIGMAS[1:2], seed=2), SIGMAS[1:2]))
    assert torch.equal(second, alone)


def test_the_hint_is_encoded_once_per_run_and_size(denoiser, capface, someone, calls):
    condition, identity, text = someone
    conds = pipeline.apply(text, capface, condition, identity)
    pipeline.sample(denoiser, *conds, walk())
    assert calls.hints == [(1, 9, 64, 64)]
    shape = (1, 4, 12, 8)
    pipeline.sample(denoiser, *conds, walk(shape=shape), shape=shape)
    assert calls.hints == [(1, 9, 64, 64), (1, 9, 96, 64)]


# ID dropout


def test_a_dropped_identity_costs_no_cross_attention(denoiser, capface, someone, calls):
    condition, identity, text = someone
    timesteps = denoiser.model.model_sampling.timestep(SIGMAS)
    tau = timesteps[1].item()
    pipeline.sample(denoiser, *pipeline.apply(text, capface, condition, identity, tau=tau), walk())
    assert calls.contexts == [False, True, True]  # t = tau is kept
    pipeline.sample(denoiser, *pipeline.apply(text, capface, condition, identity, tau=0.0), walk())
    pipeline.sample(denoiser, *pipeline.apply(text, capface, condition, None), walk())
    assert calls.contexts[3:] == [False] * 6


def evaluation(capface, someone, tau):
    from capface.host.control.evaluation import Evaluation

    condition, identity, _ = someone
    return Evaluation(capface, condition, identity, tau)


def test_rows_of_a_batch_drop_the_identity_each_at_its_own_fractional_timestep(capface, someone, calls):
    x, timesteps = noise(3, [4, 4, 8, 8]), torch.tensor([600.4, 600.6, 0.0, 900.0])
    mixed = evaluation(capface, someone, 600.5).residuals(x, timesteps, [(WHOLE, i) for i in range(4)])
    assert (calls.rows, calls.contexts) == ([2, 2], [True, False])
    for row, kept in enumerate([True, False, True, False]):
        one = slice(row, row + 1)
        alone = evaluation(capface, someone, 1000.0 if kept else 0.0).residuals(x[one], timesteps[one], [(WHOLE, 0)])
        for a, b in zip(mixed, alone, strict=True):
            assert relative_error(a[one], b) < 1e-5


# Sequences


def test_a_window_of_frames_gets_its_own_heads(capface, someone):
    _, identity, _ = someone
    frames = HintImages(noise(31, [4, 9, 64, 64]).clamp(-1, 1))
    x = noise(32, [4, 4, 8, 8])
    sigma = torch.full((4,), 2.0)

    def control(condition, rows, options):
        from capface.host.control.control import CapFaceControl

        control = CapFaceControl(capface, condition, identity)
        control.model_sampling = pipeline.small_sampling()
        made = control.get_control(x[rows], sigma[rows], {}, 1, options)
        assert made is not None
        return made["output"]

    whole = control(frames, [0, 1, 2, 3], {})
    window = type("Window", (), {"index_list": [2, 3]})()
    for options in ({"context_window": window}, {"ad_params": {"sub_idxs": [2, 3]}}):
        for a, b in zip(control(frames, [2, 3], options), whole, strict=True):
            assert relative_error(a, b[2:]) < 1e-5
    without = control(frames, [2, 3], {})
    assert relative_error(without[0], whole[0][2:]) > 1e-3
    shared = control(HintImages(frames.images[2:3]), [2], {})
    for a, b in zip(shared, whole, strict=True):
        assert relative_error(a, b[2:3]) < 1e-5


# A first-class control


def test_controls_before_it_are_chained(denoiser, capface, someone):
    condition, identity, text = someone
    stock = pipeline.stock_control(noise(1, [1, 3, 64, 64]).clamp(0, 1))
    options = {"control": stock, "control_apply_to_uncond": False}
    positive, negative = pipeline.apply(text, capface, condition, identity, previous=([[text, options]], [[text, options]]))
    assert positive[0][1]["control"] is negative[0][1]["control"]
    both = pipeline.sample(denoiser, positive, negative, walk())
    only_stock = pipeline.sample(denoiser, [[text, options]], [[text, options]], walk())
    only_capface = pipeline.sample(denoiser, *pipeline.apply(text, capface, condition, identity), walk())
    assert relative_error(both, only_stock) > 1e-2
    assert relative_error(both, only_capface) > 1e-2
    late = stock.copy().set_cond_hint(stock.cond_hint_original, 0.5, (0.0, 1.0))
    first = pipeline.apply(text, capface, condition, identity)[0][0][1]["control"]
    late.set_previous_controlnet(first)
    options = {"control": late, "control_apply_to_uncond": False}
    assert relative_error(pipeline.sample(denoiser, [[text, options]], [[text, options]], walk()), both) < 1e-5


def test_copies_share_the_network_and_keep_their_settings(capface, someone):
    from capface.host.control.control import CapFaceControl

    condition, identity, _ = someone
    one = CapFaceControl(capface, condition, identity, tau=300.0, strength=0.4, timestep_percent_range=(0.1, 0.6))
    other = one.copy()
    assert other is not one
    assert other.evaluation is one.evaluation
    assert (other.strength, other.timestep_percent_range) == (0.4, (0.1, 0.6))
    assert one.get_models() == other.get_models() == [capface.patcher]


def test_a_run_leaves_nothing_behind(denoiser, capface, someone):
    condition, identity, text = someone
    positive, negative = pipeline.apply(text, capface, condition, identity)
    control = positive[0][1]["control"]
    held = []

    def look(denoise):
        out = denoise(x_at(SIGMAS[0]), SIGMAS[:1])
        held.append((len(control.evaluation.hints), len(control.evaluation.done)))
        out = denoise(x_at(SIGMAS[1]), SIGMAS[1:2])
        held.append((len(control.evaluation.hints), len(control.evaluation.done)))
        return out

    pipeline.sample(denoiser, positive, negative, look, cfg=3.0)
    assert held == [(1, 1), (1, 1)]  # one hint and the residuals of one step
    e = control.evaluation
    assert (e.hints, e.done, e.context, e.step, control.model_sampling) == ({}, [], None, None, None)


def test_a_run_after_an_interrupt_is_clean(denoiser, capface, someone, in_host):
    import comfy.model_management as mm

    condition, identity, text = someone
    conds = pipeline.apply(text, capface, condition, identity)
    before = pipeline.sample(denoiser, *conds, walk())

    def interrupted(denoise):
        denoise(x_at(SIGMAS[0]), SIGMAS[:1])
        mm.interrupt_current_processing()
        denoise(x_at(SIGMAS[1]), SIGMAS[1:2])

    with pytest.raises(mm.InterruptProcessingException):
        pipeline.sample(denoiser, *conds, interrupted)
    assert torch.equal(pipeline.sample(denoiser, *conds, walk()), before)


@pytest.mark.parametrize("where", ["network", "encode_hint", "base model"])
@pytest.mark.parametrize("kind", ["out of memory", "MemoryError", "RuntimeError", "interrupt"])
def test_a_run_that_fails_frees_what_it_held(denoiser, capface, someone, monkeypatch, where, kind):
    import comfy.model_management as mm

    kinds = {"out of memory": mm.OOM_EXCEPTION, "interrupt": mm.InterruptProcessingException}
    kinds |= {"MemoryError": MemoryError, "RuntimeError": RuntimeError}
    condition, identity, text = someone
    positive, negative = pipeline.apply(text, capface, condition, identity)
    before = pipeline.sample(denoiser, positive, negative, walk(), cfg=3.0)

    def fail(*_, **__):
        raise kinds[kind]("failed on purpose") if kind != "interrupt" else kinds[kind]()

    def steps(denoise):
        denoise(x_at(SIGMAS[0]), SIGMAS[:1])
        evaluation = positive[0][1]["control"].evaluation
        assert evaluation.hints and evaluation.context is not None
        with monkeypatch.context() as patch:
            if where == "base model":
                fail()
            evaluation.hints.clear()
            patch.setattr(capface.network, "forward" if where == "network" else "encode_hint", fail)
            denoise(x_at(SIGMAS[1]), SIGMAS[1:2])

    with pytest.raises(kinds[kind]):
        pipeline.sample(denoiser, positive, negative, steps, cfg=3.0)
    evaluation = positive[0][1]["control"].evaluation
    assert (evaluation.hints, evaluation.done, evaluation.context, evaluation.step) == ({}, [], None, None)
    assert torch.equal(pipeline.sample(denoiser, positive, negative, walk(), cfg=3.0), before)
    assert not denoiser.patches


def test_cached_hints_are_limited_in_bytes(capface, someone, monkeypatch):
    from capface.flame.model.camera import Window
    from capface.host.control import evaluation

    condition, identity, _ = someone
    evaluated = evaluation.Evaluation(capface, condition, identity, 1000.0)
    views = [Window(0.0, 0.0, 1.0, 0.5 + i / 100) for i in range(8)]
    monkeypatch.setattr(evaluation, "render_view", lambda condition, view, height, width: condition.hint(height, width))
    x = torch.zeros(1, 4, 8, 8)
    evaluated.mask(x, [(views[0], 0)])
    one = sum(part.numel() * part.element_size() for part in next(iter(evaluated.hints.values())))
    monkeypatch.setattr(evaluation, "MAX_HINT_BYTES", 3 * one)
    for view in views:
        evaluated.mask(x, [(view, 0)])
    assert [key[2] for key in evaluated.hints] == views[-3:]
    monkeypatch.setattr(evaluation, "MAX_HINT_BYTES", 1)
    evaluated.mask(x, [(views[0], 0)])
    assert [key[2] for key in evaluated.hints] == views[:1]


def test_the_memory_estimate_includes_frames_and_earlier_controls(capface, someone):
    from capface.host.control.control import CapFaceControl

    condition, identity, _ = someone
    one = CapFaceControl(capface, condition, identity)
    estimate = one.inference_memory_requirements(torch.float32)
    assert 50e6 < estimate < 4e9
    many = CapFaceControl(capface, HintImages(torch.zeros(3, 9, 8, 8)), identity)
    assert many.inference_memory_requirements(torch.float32) == 3 * estimate
    two = CapFaceControl(capface, condition, identity).set_previous_controlnet(one)
    assert two.inference_memory_requirements(torch.float32) == 2 * estimate


# Types and partial loading


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 5e-3), (torch.bfloat16, 3e-2)])
def test_half_precision_weights_stay_close(denoiser, capface, someone, dtype, bound):
    condition, identity, text = someone
    full = pipeline.sample(denoiser, *pipeline.apply(text, capface, condition, identity), walk())
    half = pipeline.small_capface(dtype)
    assert half.network.mask_predict[0].weight.dtype == dtype
    out = pipeline.sample(denoiser, *pipeline.apply(text, half, condition, identity), walk())
    error = relative_error(out, full)
    print(f"{dtype}: relative error {error:.1e}")
    assert 0 < error < bound


def test_channels_last_weights_give_the_same(denoiser, capface, someone, monkeypatch):
    """ComfyUI's --force-channels-last."""
    condition, identity, text = someone
    monkeypatch.setattr("comfy.model_management.force_channels_last", lambda: True)
    last = pipeline.small_capface()
    weight = last.network.get_parameter("input_blocks.1.0.in_layers.2.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    out = pipeline.sample(denoiser, *pipeline.apply(text, last, condition, identity), walk())
    assert relative_error(out, pipeline.sample(denoiser, *pipeline.apply(text, capface, condition, identity), walk())) < 1e-5


def test_a_partly_loaded_network_gives_the_same(denoiser, capface, someone):
    condition, identity, text = someone
    whole = pipeline.sample(denoiser, *pipeline.apply(text, capface, condition, identity), walk())
    partly = pipeline.small_capface()
    partly.patcher.load(torch.device("cpu"), lowvram_model_memory=1_000_000)
    streamed = [m for m in partly.network.modules() if getattr(m, "comfy_cast_weights", False)]
    assert len(streamed) > 20
    sampled = pipeline.sample(denoiser, *pipeline.apply(text, partly, condition, identity), walk())
    assert torch.equal(sampled, whole)


# Base models that do not fit


class Base:
    """The part of a host's base model that a control uses before sampling."""

    def __init__(self, name, unet_config):
        self.model_config = type(name, (), {"unet_config": unet_config})()


@pytest.mark.parametrize(
    ("name", "unet_config"),
    [
        ("SDXL", {"context_dim": 2048, "model_channels": 320, "adm_in_channels": 2816}),
        ("SD20", {"context_dim": 1024, "model_channels": 320, "adm_in_channels": None}),
        ("Flux", {"image_model": "flux", "in_channels": 16}),
    ],
)
def test_another_family_is_refused_with_its_name(capface, someone, name, unet_config):
    from capface.host.control.control import CapFaceControl

    condition, identity, _ = someone
    with pytest.raises(BadInput, match=rf"Stable Diffusion 1\.x.*{name}"):
        CapFaceControl(capface, condition, identity).pre_run(Base(name, unet_config), lambda percent: percent)


def test_a_base_of_another_size_is_refused_instead_of_ignored(capface, someone):
    from capface.host.control.control import CapFaceControl

    condition, identity, _ = someone
    unet = {"context_dim": 768, "model_channels": 320, "channel_mult": (1, 2, 4, 4), "num_res_blocks": [2, 2, 2, 2]}
    with pytest.raises(BadInput, match=r"small was made for.*\[1, 2\].*\[1, 2, 4, 4\]"):
        CapFaceControl(capface, condition, identity).pre_run(Base("SD15", unet), lambda percent: percent)
