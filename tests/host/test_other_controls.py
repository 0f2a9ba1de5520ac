"""Reuse ControlNet: when ComfyUI's own ControlNets are evaluated, and what stays as it was."""

import logging

import pytest
import torch

from capface.tests.host import pipeline
from capface.tests.host.pipeline import area, x_at
from capface.tests.synthetic import noise, relative_error

SCHEDULE = (10.0, 5.0, 2.0, 1.0, 0.5, 0.0)
TEXT, OTHER = noise(1, [1, 77, 768]), noise(2, [1, 77, 768])


@pytest.fixture(scope="module")
def stock(in_host):
    return pipeline.stock_control(noise(1, [1, 3, 64, 64]).clamp(0, 1))


@pytest.fixture
def evaluated(stock):
    """Record how many latents the ControlNet's network gets."""
    rows = []
    handle = stock.control_model.register_forward_pre_hook(lambda _, __, given: rows.append(len(given["x"])), with_kwargs=True)
    yield rows
    handle.remove()


def controlled(control, text=TEXT, negative=OTHER):
    options = {"control": control, "control_apply_to_uncond": False}
    return [[text, options]], [[negative, options]]


def reused(every, conds):
    from capface.nodes.reuse_controlnet import ReuseControlNet

    return ReuseControlNet.execute(*conds, evaluate_every=every).result


def run(denoiser, conds, rows, sigmas=SCHEDULE[:-1], shape=(1, 4, 8, 8), cfg=3.0):
    """Denoise other latents at each sigma; return the results, and how many latents the ControlNet evaluated at each."""
    counts = []

    def steps(denoise):
        out = []
        for i, sigma in enumerate(sigmas):
            before = sum(rows)
            out.append(denoise(x_at(torch.tensor(sigma), shape, i), torch.full(shape[:1], sigma)))
            counts.append(sum(rows) - before)
        return out

    return pipeline.sample(denoiser, *conds, steps=steps, shape=shape, cfg=cfg, schedule=SCHEDULE), counts


def test_every_step_is_bit_identical(denoiser, stock, evaluated):
    plain, counts = run(denoiser, controlled(stock), evaluated)
    one, again = run(denoiser, reused(1, controlled(stock)), evaluated)
    assert counts == again == [2] * 5
    assert all(torch.equal(a, b) for a, b in zip(plain, one, strict=True))


@pytest.mark.parametrize(
    ("sigmas", "expected"),
    [
        ((10.0, 5.0, 2.0, 1.0, 0.5), [2, 0, 2, 0, 2]),
        ((10.0, 5.0, 5.0, 2.0, 2.0, 1.0), [2, 0, 0, 2, 0, 0]),
        ((10.0, 5.0, 2.0, 5.0, 2.0, 1.0), [2, 0, 2, 2, 0, 2]),
    ],
)
def test_steps_are_skipped_by_their_distance_in_noise(denoiser, stock, evaluated, sigmas, expected):
    plain, _ = run(denoiser, controlled(stock), evaluated, sigmas)
    out, counts = run(denoiser, reused(2, controlled(stock)), evaluated, sigmas)
    assert counts == expected
    assert torch.equal(out[0], plain[0])
    assert 1e-5 < relative_error(out[1], plain[1]) < 0.5


def test_it_stays_a_controlnet_in_the_chain_with_its_own_range(denoiser, stock, evaluated):
    import comfy.controlnet

    late = stock.copy().set_cond_hint(stock.cond_hint_original, 0.5, (0.5, 1.0))  # half of the schedule is at sigma = 1.6
    early = stock.copy().set_cond_hint(stock.cond_hint_original, 0.7, (0.0, 1.0))
    late.set_previous_controlnet(early)
    made = reused(3, controlled(late))
    control = made[0][0][1]["control"]
    assert isinstance(control, comfy.controlnet.ControlNet) and control is not late
    assert made[1][0][1]["control"] is control
    assert type(late) is type(early) is comfy.controlnet.ControlNet  # the given ones are not changed
    assert run(denoiser, made, evaluated)[1] == [2, 0, 0, 4, 0]
    copied = control.copy()
    assert type(copied) is type(control) and copied.kept is control.kept
    assert run(denoiser, reused(2, made), evaluated)[1] == [2, 0, 2, 2, 2]
    plain, _ = run(denoiser, controlled(late), evaluated)
    again, _ = run(denoiser, reused(1, made), evaluated)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_conditionings_and_runs_are_kept_apart(denoiser, stock, evaluated):
    shape = (1, 4, 8, 16)
    positive, negative = reused(3, controlled(stock))
    halves = area(positive, 8, 8, 0, 0) + area(positive, 8, 8, 0, 8)
    for _ in range(2):
        assert run(denoiser, (halves, negative), evaluated, shape=shape)[1] == [
            5,
            0,
            0,
            5,
            0,
        ]  # the host adds both areas to the negative prompt
    assert len(positive[0][1]["control"].kept) == 0
    long = reused(2, controlled(stock, negative=noise(5, [1, 462, 768])))  # evaluated apart
    assert run(denoiser, long, evaluated)[1] == [2, 0, 2, 0, 2]


def test_an_interrupt_frees_what_was_kept(denoiser, stock):
    import comfy.model_management as mm

    made = reused(2, controlled(stock))
    control = made[0][0][1]["control"]

    def interrupted(denoise):
        denoise(x_at(torch.tensor(10.0)), torch.tensor([10.0]))
        assert len(control.kept) == 1
        raise mm.InterruptProcessingException

    with pytest.raises(mm.InterruptProcessingException):
        pipeline.sample(denoiser, *made, steps=interrupted, schedule=SCHEDULE)
    assert len(control.kept) == 0


def test_capface_keeps_its_own_setting(denoiser, stock, evaluated):
    capface = pipeline.small_capface()
    condition, identity, text = pipeline.person(300)
    conds = pipeline.apply(text, capface, condition, identity, previous=controlled(stock))
    with pipeline.Calls(capface.network) as calls:
        assert run(denoiser, reused(5, conds), evaluated)[1] == [2, 0, 0, 0, 0]
        assert calls.rows == [1] * 5


def test_controls_of_other_packs_are_left_alone(denoiser, stock, caplog):
    import comfy.controlnet

    class Theirs(comfy.controlnet.ControlNet):
        def copy(self):
            c = Theirs(None)
            c.control_model, c.control_model_wrapped = self.control_model, self.control_model_wrapped
            self.copy_to(c)
            return c

    theirs = Theirs(None)
    theirs.control_model, theirs.control_model_wrapped = stock.control_model, stock.control_model_wrapped
    with caplog.at_level(logging.WARNING, "capface"):
        made = reused(2, controlled(theirs))
    assert type(made[0][0][1]["control"]) is Theirs
    assert "Theirs is evaluated at every step" in caplog.text
    assert reused(2, ([[TEXT, {}]], [[OTHER, {}]]))[0][0][1] == {}
