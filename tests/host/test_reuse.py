"""Residuals kept over steps and the likeness gamma: when CapFace is evaluated, and what is never bridged."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from capface.flame.builtin import builtin_head
from capface.flame.model.camera import WHOLE
from capface.flame.model.params import HeadParams
from capface.flame.render.condition import HeadCondition
from capface.tests.host import pipeline
from capface.tests.host.hint_images import HintImages
from capface.tests.host.pipeline import area, x_at
from capface.tests.synthetic import noise, relative_error

SCHEDULE = (10.0, 5.0, 2.0, 1.0, 0.5, 0.0)


@pytest.fixture
def conds(capface, someone):
    condition, identity, text = someone

    def make(every=2, **settings) -> tuple[list, list]:
        return pipeline.apply(text, capface, condition, identity, evaluate_every=every, **settings)

    return make


def evaluations(calls, denoiser, conds, sigmas=SCHEDULE[:-1], shape=(1, 4, 8, 8), **settings):
    """Denoise other latents at each sigma, and return how many latents CapFace evaluated at each."""
    counts = []

    def steps(denoise):
        for i, sigma in enumerate(sigmas):
            before = sum(calls.rows)
            denoise(x_at(torch.tensor(sigma), shape, i), torch.full(shape[:1], sigma))
            counts.append(sum(calls.rows) - before)

    pipeline.sample(denoiser, *conds, steps=steps, shape=shape, schedule=SCHEDULE, **settings)
    return counts


# Positions


def test_positions_in_a_schedule(in_host):
    from capface.host.control.reuse import descending, position_in

    schedule = descending([2.0, 10.0, 5.0, 5.0, 0.0])
    assert schedule == (10.0, 5.0, 2.0)
    assert [position_in(schedule, sigma) for sigma in (10.0, 5.0, 2.0)] == [0, 1, 2]
    assert position_in(schedule, 50.0**0.5) == pytest.approx(0.5)
    assert position_in(schedule, 11.0) == 0  # noise added before the first step
    assert position_in(schedule, 1.0) == pytest.approx(2.5)
    assert position_in(schedule, 0.0) == 3
    assert position_in((), 1.0) is None


@pytest.mark.parametrize(
    ("every", "sigmas", "expected"),
    [
        (1, (10.0, 5.0, 2.0, 1.0, 0.5), [1, 1, 1, 1, 1]),
        (2, (10.0, 5.0, 2.0, 1.0, 0.5), [1, 0, 1, 0, 1]),
        (3, (10.0, 5.0, 2.0, 1.0, 0.5), [1, 0, 0, 1, 0]),
        (100, (10.0, 5.0, 2.0, 1.0, 0.5), [1, 0, 0, 0, 0]),
        (2, (10.0, 5.0, 5.0, 2.0, 2.0, 1.0), [1, 0, 0, 1, 0, 0]),  # twice in a step: heun
        (2, (10.0, 7.0, 5.0, 3.0, 2.0, 1.4, 1.0), [1, 0, 0, 0, 1, 0, 0]),  # between the steps: dpm_2, dpmpp_sde
        (2, (10.0, 5.0, 2.0, 5.0, 2.0, 1.0), [1, 0, 1, 1, 0, 1]),  # back to more noise: restart
        (2, (10.3, 5.2, 2.06, 1.03), [1, 0, 0, 1]),  # a little noise added before each step: churn
        (2, (0.5, 1.0, 2.0, 5.0, 10.0), [1, 1, 1, 1, 1]),  # towards noise
    ],
)
def test_steps_are_skipped_by_their_distance_in_noise(denoiser, conds, calls, every, sigmas, expected):
    assert evaluations(calls, denoiser, conds(every), sigmas, cfg=3.0) == expected


def test_kept_residuals_are_those_of_the_evaluated_step(denoiser, conds):
    def steps(second):
        return lambda denoise: [denoise(x_at(torch.tensor(s), seed=1), torch.tensor([s])) for s in (10.0, second)]

    every, kept = (pipeline.sample(denoiser, *conds(n), steps=steps(5.0), schedule=SCHEDULE) for n in (1, 2))
    assert torch.equal(every[0], kept[0])
    assert relative_error(every[1], kept[1]) > 1e-4
    every, kept = (pipeline.sample(denoiser, *conds(n), steps=steps(2.0), schedule=SCHEDULE) for n in (1, 2))
    assert torch.equal(every[1], kept[1])


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_2", "dpmpp_sde", "uni_pc", "euler_ancestral", "ddpm"])
@pytest.mark.filterwarnings("ignore:Should have t:UserWarning")  # torchsde, at the ends of the schedule
def test_samplers(in_host, denoiser, conds, calls, sampler):
    def run(every):
        calls.rows.clear()
        latents = {"samples": torch.zeros(1, 4, 8, 8)}
        return in_host.nodes.common_ksampler(denoiser, 5, 7, 3.0, sampler, "normal", *conds(every), latents)[0]["samples"]

    exact = run(1)
    assert len(calls.rows) >= 7
    out = run(3)
    assert len(calls.rows) == 3
    assert torch.isfinite(out).all()
    assert 0 < relative_error(out, exact) < 0.5
    assert torch.equal(run(3), out)


# What is never bridged


def test_the_border_of_tau_is_never_bridged(denoiser, conds, calls):
    tau = denoiser.model.model_sampling.timestep(torch.tensor([2.0])).item()
    assert evaluations(calls, denoiser, conds(100, tau=tau)) == [1, 0, 1, 0, 0]
    assert calls.contexts == [False, True]
    back = (10.0, 2.0, 5.0, 2.0)
    assert evaluations(calls, denoiser, conds(100, tau=tau), back) == [1, 1, 1, 1]


def test_another_run_never_takes_residuals(denoiser, conds, calls):
    made = conds(100)
    for _ in range(2):
        assert evaluations(calls, denoiser, made) == [1, 0, 0, 0, 0]
        assert evaluations(calls, denoiser, made, (1.0, 0.5)) == [1, 0]  # a second pass that starts at less noise
    assert len(made[0][0][1]["control"].evaluation.kept) == 0


def test_a_run_inside_a_prepared_run_never_takes_residuals(capface, someone, calls):
    """As in packs that sample several times between the host's preparation and its cleaning up."""
    from capface.host.control.evaluation import Evaluation, Request, evaluate
    from capface.host.control.reuse import NoiseLevel

    condition, identity, _ = someone
    e = Evaluation(capface, condition, identity, 1000.0, steps=5)
    x, t = noise(3, [1, 4, 8, 8]), torch.tensor([500.0])
    runs = object(), object()
    for run, position in ((runs[0], 0.0), (runs[0], 2.0), (runs[1], 2.0), (runs[1], 3.0)):
        evaluate([(e, Request(x, t, [(WHOLE, 0)], [NoiseLevel(2.0, 500.0, position)], position, run, object()))])
    assert calls.rows == [1, 1]


def test_other_areas_and_sizes_are_kept_apart(denoiser, conds, calls):
    shape = (1, 4, 8, 16)
    positive, negative = conds(3)
    halves = area(positive, 8, 8, 0, 0) + area(positive, 8, 8, 0, 8)
    assert evaluations(calls, denoiser, (halves, negative), shape=shape, cfg=3.0) == [3, 0, 0, 3, 0]


def test_latents_of_a_batch_are_kept_apart(denoiser, conds, calls):
    assert evaluations(calls, denoiser, conds(2), shape=(3, 4, 8, 8), cfg=3.0) == [3, 0, 3, 0, 3]


def test_both_halves_share_them_when_the_host_cannot_batch_them(denoiser, capface, someone, calls):
    condition, identity, text = someone
    long = noise(5, [1, 462, 768])
    positive, _ = pipeline.apply(long, capface, condition, identity, evaluate_every=2)
    negative = [[text, positive[0][1]]]
    assert evaluations(calls, denoiser, (positive, negative), cfg=3.0) == [1, 0, 1, 0, 1]


def test_parts_of_unknown_position_are_evaluated_at_every_step(denoiser, conds, calls):
    """A sampler that cuts latents but not the control image: its tiles cannot be told apart."""
    positive, negative = conds(100)
    control = positive[0][1]["control"]
    ask = control.get_control
    control.get_control = lambda *_: None

    def tiled(apply_model, arguments):
        c = {k: v for k, v in arguments["c"].items() if k != "control"}
        x, sigma = arguments["input"], arguments["timestep"]
        for left in (0, 8):
            ask(x[..., left : left + 8], sigma, c, len(arguments["cond_or_uncond"]), c["transformer_options"])
        return apply_model(x, sigma, **c)

    model = denoiser.clone()
    model.set_model_unet_function_wrapper(tiled)
    assert evaluations(calls, model, (positive, negative), (10.0, 5.0), shape=(1, 4, 8, 16)) == [2, 2]


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")  # ComfyUI 0.3.64's windows
def test_frames_keep_theirs_in_moving_windows(denoiser, capface, someone, calls):
    """Windows whose borders move from step to step: a frame is evaluated when its own residuals are too old."""
    import comfy.context_windows as w

    _, identity, text = someone
    heads = HeadCondition(builtin_head(), HeadParams.neutral(6))
    made = pipeline.apply(text, capface, heads, identity, evaluate_every=2)
    model = denoiser.clone()
    model.model_options["context_handler"] = w.IndexListContextHandler(
        w.get_matching_context_schedule(w.ContextSchedules.UNIFORM_LOOPED),
        w.get_matching_fuse_method(w.ContextFuseMethods.FLAT),
        context_length=4, context_overlap=2, closed_loop=True, dim=0,
    )  # fmt: skip
    assert evaluations(calls, model, made, shape=(6, 4, 8, 8)) == [6, 0, 6, 0, 6]
    assert calls.hints == [(6, 9, 64, 64)]  # each frame's hint is rendered and encoded once


def test_an_interrupt_frees_what_was_kept(denoiser, conds, in_host):
    import comfy.model_management as mm

    made = conds(2)
    evaluation = made[0][0][1]["control"].evaluation

    def interrupted(denoise):
        denoise(x_at(torch.tensor(10.0)), torch.tensor([10.0]))
        assert len(evaluation.kept) == 1
        mm.interrupt_current_processing()
        denoise(x_at(torch.tensor(2.0)), torch.tensor([2.0]))

    with pytest.raises(mm.InterruptProcessingException):
        pipeline.sample(denoiser, *made, steps=interrupted, schedule=SCHEDULE)
    assert (len(evaluation.kept), evaluation.hints, evaluation.done, evaluation.context) == (0, {}, [], None)


def test_without_memory_every_step_is_evaluated(denoiser, conds, calls, monkeypatch):
    monkeypatch.setattr("capface.host.control.reuse.MOST_KEPT", 1000)
    made = conds(2)
    made[1][0] = [noise(5, [1, 462, 768]), made[0][0][1]]  # halves that the host evaluates apart
    assert evaluations(calls, denoiser, made, cfg=3.0) == [1] * 5


# What does not change over the steps


def test_keys_and_values_of_the_identity_are_computed_once_a_run(denoiser, capface, conds):
    layers = [m for name, m in capface.network.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]
    computed = []
    handles = [layer.register_forward_hook(lambda *_: computed.append(1)) for layer in layers]
    made = conds(1)

    def steps(denoise):
        for i, sigma in enumerate((5.0, 2.0, 1.0)):
            if i == 2:  # another pack patches the weights, as a LoRA does
                capface.patcher.patches_uuid = object()
            denoise(x_at(torch.tensor(sigma)), torch.tensor([sigma]))

    before = capface.patcher.patches_uuid
    try:
        pipeline.sample(denoiser, *made, steps=steps, cfg=3.0)
        assert len(computed) == 2 * len(layers) > 0
    finally:
        capface.patcher.patches_uuid = before
        for handle in handles:
            handle.remove()
    assert made[0][0][1]["control"].evaluation.projected is None


# Several people, pi*, and no head


def test_people_and_the_head_control_keep_theirs(denoiser, capface, someone, conds, calls):
    _, identity, text = someone
    heads = [
        HeadCondition(builtin_head(), HeadParams.neutral(1).replace(camera=torch.tensor([[4.0, x, 0.0]]))) for x in (-0.4, 0.4)
    ]
    first = pipeline.apply(text, capface, heads[0], identity, evaluate_every=2, head_control=capface)
    both = pipeline.apply(text, capface, heads[1], identity, evaluate_every=3, previous=first)
    assert evaluations(calls, denoiser, both, cfg=3.0) == [3, 0, 2, 1, 2]


def test_only_latents_on_which_the_person_acts_are_evaluated(capface, calls):
    """In one frame of two the mask is empty."""
    heads = HintImages(noise(31, [2, 9, 64, 64]).clamp(-1, 1))
    _, identity, text = pipeline.person(300)
    x, sigma = noise(4, [2, 4, 8, 8]), torch.full([2], 2.0)
    out = []
    for last in (1.0, 0.0):
        mask = torch.tensor([1.0, last])[:, None, None].expand(2, 64, 64)
        control = pipeline.apply(text, capface, heads, identity, mask=mask, mask_edge="soft")[0][0][1]["control"]
        control.model_sampling = pipeline.small_sampling()
        made = control.get_control(x, sigma, {}, 1, {})
        out.append([*made["output"], *made["middle"]])
    assert calls.rows == [2, 1]
    for both, one in zip(*out, strict=True):
        assert relative_error(one[:1], both[:1]) < 1e-5
        assert both[1].abs().max() > 0
        assert one[1].abs().max() == 0


def test_a_masked_out_person_is_not_evaluated(denoiser, capface, someone, calls):
    condition, identity, text = someone
    made = pipeline.apply(text, capface, condition, identity, mask=torch.zeros(1, 64, 64))
    plain = [[text, {}]], [[text, {}]]
    x = [(x_at(torch.tensor(s)), torch.tensor([s])) for s in (5.0, 1.0)]
    out, without = (pipeline.sample(denoiser, *c, steps=lambda d: [d(*args) for args in x], cfg=3.0) for c in (made, plain))
    assert calls.rows == []
    assert all(torch.equal(a, b) for a, b in zip(out, without, strict=True))


# Likeness


def residuals(capface, someone, gamma, timesteps, tau=1000.0, identity=True):
    from capface.host.control.evaluation import Evaluation

    condition, who, _ = someone
    e = Evaluation(capface, condition, who if identity else None, tau, gamma)
    return e.residuals(
        noise(3, [len(timesteps), 4, 8, 8]), torch.tensor(timesteps), [(WHOLE, i) for i in range(len(timesteps))]
    )


def test_likeness_extends_the_line_from_no_identity_to_identity(capface, someone, calls):
    """F = F_null + gamma · (F_id - F_null), in one batch; 1 is one evaluation, and 0 one without cross-attention."""
    t = [500.0]
    with_identity, without = residuals(capface, someone, 1.0, t), residuals(capface, someone, 1.0, t, identity=False)
    calls.rows.clear()
    calls.contexts.clear()
    null = residuals(capface, someone, 0.0, t)
    assert (calls.rows, calls.contexts) == ([1], [False])
    assert all(torch.equal(a, b) for a, b in zip(null, without, strict=True))
    for gamma in (0.5, 2.0, 3.0):
        out = residuals(capface, someone, gamma, t)
        assert calls.rows[-1] == 2
        for f, f_id, f_null in zip(out, with_identity, without, strict=True):
            assert relative_error(f, f_null + gamma * (f_id - f_null)) < 1e-5


def test_likeness_ends_at_tau(capface, someone, calls):
    t = [400.0, 800.0]
    mixed = residuals(capface, someone, 2.0, t, tau=500.0)
    assert sum(calls.rows) == 3  # the second row has no identity to strengthen
    full, null = residuals(capface, someone, 2.0, t), residuals(capface, someone, 0.0, t)
    for a, b, c in zip(mixed, full, null, strict=True):
        assert relative_error(a[:1], b[:1]) < 1e-5
        assert relative_error(a[1:], c[1:]) < 1e-5


def test_likeness_1_is_bit_identical(denoiser, conds, calls):
    def steps(denoise):
        return [denoise(x_at(torch.tensor(s)), torch.tensor([s])) for s in (5.0, 1.0)]

    plain = pipeline.sample(denoiser, *conds(1), steps=steps, cfg=3.0)
    one = pipeline.sample(denoiser, *conds(1, likeness=1.0), steps=steps, cfg=3.0)
    assert all(torch.equal(a, b) for a, b in zip(plain, one, strict=True))
    assert calls.rows == [1] * 4
    more = pipeline.sample(denoiser, *conds(1, likeness=2.0), steps=steps, cfg=3.0)
    assert relative_error(more[0], plain[0]) > 1e-4


def test_the_head_control_and_likeness_share_the_evaluation_without_identity(denoiser, conds, capface, calls):
    made = conds(1, likeness=2.0, head_control=capface)
    assert evaluations(calls, denoiser, made, (5.0,), cfg=3.0) == [2]
    assert evaluations(calls, denoiser, conds(2, likeness=2.0), cfg=3.0) == [2, 0, 2, 0, 2]


# Reading from the GPU


class Reads(TorchDispatchMode):
    """Counts operations whose result the CPU must wait for."""

    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.partition(".")[0]
        if name in self.WAITS:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", [{}, {"every": 2}, {"likeness": 2.0, "tau": 900.0}], ids=str)
def test_a_step_reads_nothing_but_the_noise_level_from_the_gpu(denoiser, conds, monkeypatch, settings):
    from capface.host.control import sampling_context
    from capface.host.control.control import CapFaceControl

    made = conds(**{"every": 1, **settings})
    levels, noise_levels, get_control = [], sampling_context.noise_levels, CapFaceControl.get_control
    monkeypatch.setattr(sampling_context, "noise_levels", lambda *a: levels.append(a) or noise_levels(*a))
    found, lists, tolist = [], [], torch.Tensor.tolist

    def watched(*arguments):
        with Reads() as reads:
            monkeypatch.setattr(torch.Tensor, "tolist", lambda t: lists.append(t.shape) or tolist(t))
            out = get_control(*arguments)
            monkeypatch.setattr(torch.Tensor, "tolist", tolist)
        found.append((reads.found, list(lists)))
        lists.clear()
        return out

    monkeypatch.setattr(CapFaceControl, "get_control", watched)

    def steps(denoise):
        for sigma in SCHEDULE[:-1]:
            denoise(x_at(torch.tensor(sigma)), torch.tensor([sigma]))

    pipeline.sample(denoiser, *made, steps=steps, cfg=3.0, schedule=SCHEDULE)
    assert found[1:] == [([], [])] * 4  # the first step also renders the head
    assert len(levels) == 5  # one read for all controls and both halves
