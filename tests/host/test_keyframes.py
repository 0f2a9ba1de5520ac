"""Strength and tau over steps and frames, and a third conditioning."""

from typing import Any

import pytest
import torch

from capface.errors import BadInput
from capface.tests.host import pipeline
from capface.tests.host.pipeline import SIGMAS, walk, x_at
from capface.tests.synthetic import noise, relative_error

# Reading


@pytest.fixture
def read(in_host):
    from capface.host.control import read_keyframes

    return read_keyframes


def test_values_hold_and_ranges_are_straight_lines(read):
    made = read("20%: strength 0.5  # weaker\n40%..80%: strength = 1..0.2; 50% : TAU 300")
    at = {percent: (made.strength(999 * (1 - percent / 100), 0), made.tau(999 * (1 - percent / 100), 0, 700.0))
          for percent in (0, 19, 21, 39, 60, 81, 100)}  # fmt: skip
    expected = {0: (1, 700), 19: (1, 700), 21: (0.5, 700), 39: (0.5, 700), 60: (0.6, 300), 81: (0.2, 300), 100: (0.2, 300)}
    assert {percent: pytest.approx(values) for percent, values in expected.items()} == at


def test_steps_and_frames_multiply(read):
    made = read("0%: strength 0.5; frames 2..4: strength 0..1; frame 6: tau 10")
    assert [made.strength(999.0, frame) for frame in range(6)] == pytest.approx([0.5, 0.5, 0, 0.25, 0.5, 0.5])
    assert [made.tau(0.0, frame, 900.0) for frame in (5, 6, 7)] == [900, 10, 10]


@pytest.mark.parametrize("text", ["", " \n;; # 40%: strength 1"])
def test_no_lines_are_no_keyframes(read, text):
    assert read(text) is None


@pytest.mark.parametrize(
    "line",
    ["40: strength 1", "40%", "40% strength 1", "40%: likeness 1", "40%: strength -1", "40%: strength nan", "101%: tau 5",
     "40%..30%: tau 5", "frame 1.5: tau 5", "frame -1: tau 5", "frame 2..1: tau 5", "40%: strength 1 tau 5",
     "40%: strength 1,"],
)  # fmt: skip
def test_other_lines_are_refused_with_an_example(read, line):
    with pytest.raises(BadInput, match=r"expected lines such as '40%: strength 0\.5, tau 300'"):
        read(f"0%: strength 1; {line}")


def test_values_out_of_range_and_two_kinds_of_tau_are_refused(read):
    with pytest.raises(BadInput, match=r"tau in 0\.\.1000"):
        read("0%: tau 1001")
    with pytest.raises(BadInput, match=r"strength in 0\.\.10"):
        read("0%: strength 0..11")
    with pytest.raises(BadInput, match="both"):
        read("0%: tau 1; frame 0: tau 2")
    with pytest.raises(BadInput, match="10001"):
        read("0%: tau 1;" * 10001)


# Sampling


@pytest.fixture
def out(denoiser, capface, someone):
    """`out(keyframes, **settings)` denoises latents at three noise levels."""
    condition, identity, text = someone

    def sampled(keyframes="", batch=1, **settings):
        conds = pipeline.apply(text, capface, condition, identity, keyframes=keyframes, **settings)
        shape = (batch, 4, 8, 8)
        return pipeline.sample(denoiser, *conds, walk(shape=shape), shape=shape, cfg=3.0)

    return sampled


def percent_before(denoiser, index):
    """Return a percentage of the schedule between SIGMAS[index - 1] and SIGMAS[index]."""
    above, below = (denoiser.model.model_sampling.timestep(SIGMAS[i]).item() for i in (index - 1, index))
    return 100 * (1 - (above + below) / 2 / 999)


def test_keyframes_of_the_nodes_own_values_are_bit_identical_to_none(out):
    assert torch.equal(out("0%: strength 1, tau 1000; frames 0..5: strength 1..1"), out())


def test_strength_over_steps(out, denoiser, calls):
    plain, half, none = out(), out(strength=0.5), out(strength=0.0)
    calls.rows.clear()
    made = out(f"{percent_before(denoiser, 1)}%: strength 0.5; {percent_before(denoiser, 2)}%: strength 0")
    assert torch.equal(made[0], plain[0]) and torch.equal(made[2], none[2])
    assert relative_error(made[1], half[1]) < 1e-6 < relative_error(made[1], plain[1])
    assert calls.rows == [1, 1], "a step at strength 0 is not evaluated"


def test_tau_over_steps(out, denoiser, calls):
    plain, dropped = out(), out(tau=0.0)
    calls.contexts.clear()
    made = out(f"{percent_before(denoiser, 1)}%: tau 0; {percent_before(denoiser, 2)}%: tau 1000")
    for step, expected in enumerate((plain, dropped, plain)):
        assert torch.equal(made[step], expected[step])
    assert calls.contexts == [True, False, True]


def test_strength_and_tau_over_frames(out):
    plain, half, none, dropped = (out(batch=3, **s) for s in ({}, {"strength": 0.5}, {"strength": 0.0}, {"tau": 0.0}))
    made = out("frame 1: strength 0.5; frame 2: strength 0", batch=3)
    for frame, expected in enumerate((plain, half, none)):
        assert relative_error(made[:, frame], expected[:, frame]) < 1e-5
    made = out("frame 1: tau 0; frame 2: tau 1000", batch=3)
    for frame, expected in enumerate((plain, dropped, plain)):
        assert relative_error(made[:, frame], expected[:, frame]) < 1e-5
    assert relative_error(plain[:, 1], dropped[:, 1]) > 1e-4


def test_kept_residuals_do_not_cross_a_keyframe_of_tau(denoiser, capface, someone, calls):
    condition, identity, text = someone
    tau = denoiser.model.model_sampling.timestep(torch.tensor([2.0])).item()
    border = 100 * (1 - (tau + 1) / 999)
    conds = pipeline.apply(text, capface, condition, identity, evaluate_every=100, keyframes=f"0%: tau 0; {border}%: tau 1000")
    schedule = (10.0, 5.0, 2.0, 1.0, 0.0)

    def steps(denoise):
        for i, sigma in enumerate(schedule[:-1]):
            denoise(x_at(torch.tensor(sigma), seed=i), torch.tensor([sigma]))

    pipeline.sample(denoiser, *conds, steps=steps, schedule=schedule)
    assert calls.contexts == [False, True]


def test_copies_keep_keyframes(out, capface, someone):
    condition, identity, text = someone
    positive, _ = pipeline.apply(text, capface, condition, identity, keyframes="0%: strength 0.25")
    control = positive[0][1]["control"]
    assert control.copy().evaluation.keyframes is control.evaluation.keyframes is not None


# A third conditioning


@pytest.fixture
def three(capface, someone):
    """The three outputs of Apply CapFace with or without a third conditioning, and what came in."""
    condition, identity, text = someone

    def made(third: Any):
        from capface.nodes.apply_capface import ApplyCapFace

        widgets: dict[str, Any] = {"strength": 1.0, "tau": 1000.0, "start_percent": 0.0, "end_percent": 1.0}
        negative = noise(77, text.shape)
        return ApplyCapFace.execute(
            [[text, {}]], [[negative, {}]], capface, condition, identity=identity, third=third, **widgets
        ).result  # fmt: skip

    return made


@pytest.mark.parametrize("name", ["DualCFGGuider", "PerpNegGuider"])
def test_guiders_with_three_conditionings_evaluate_capface_once_a_step(in_host, denoiser, someone, three, calls, name):
    from comfy_extras import nodes_custom_sampler, nodes_perpneg

    positive, negative, third = three([[noise(78, someone[2].shape), {}]])
    controls = {id(cond[0][1]["control"]) for cond in (positive, negative, third)}
    assert len(controls) == 1

    def guided(*conds):
        if name == "DualCFGGuider":
            (guider,) = values(nodes_custom_sampler.DualCFGGuider, denoiser, conds[0], conds[2], conds[1], 3.0, 2.0, "regular")
        else:
            (guider,) = values(nodes_perpneg.PerpNegGuider, denoiser, *conds, 3.0, 1.0)
        import comfy.samplers

        latents, sigmas = noise(5, (1, 4, 8, 8)), torch.tensor([5.0, 2.0, 0.0])
        return guider.sample(
            latents, torch.zeros_like(latents), comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True
        )

    calls.rows.clear()
    made = guided(positive, negative, third)
    assert calls.rows == [1, 1]
    bare = [[third[0][0], {}]]
    assert relative_error(made, guided(positive, negative, bare)) > 1e-4


def values(node, *given):
    """Run a node of either of the host's interfaces."""
    import inspect

    try:
        made = node.execute(*given) if hasattr(node, "execute") else getattr(node(), node.FUNCTION)(*given)
    except TypeError:  # 0.3.64 has no style
        call = node.execute if hasattr(node, "execute") else getattr(node(), node.FUNCTION)
        made = call(*given[: len(inspect.signature(call).parameters)])
    return getattr(made, "result", made)


def test_without_a_third_conditioning_its_output_says_so(in_host, three):
    from comfy_execution.graph_utils import ExecutionBlocker

    *_, third = three(None)
    assert isinstance(third, ExecutionBlocker) and "nothing is connected to its input third" in str(third.message)
