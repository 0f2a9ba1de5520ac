"""The controls that Apply CapFace makes for several people, masks and head controls."""

import pytest
import torch

from capface.errors import BadInput
from capface.flame.builtin import builtin_head
from capface.flame.model.params import HeadParams
from capface.flame.render.condition import HeadCondition
from capface.tests.host import pipeline
from capface.tests.host.pipeline import Calls, area, walk
from capface.tests.synthetic import noise, relative_error

X = noise(1, [1, 4, 16, 16])


def head(scale=5.0, x=0.0):
    """The built-in head somewhere in the frame."""
    return HeadCondition(builtin_head(), HeadParams.neutral(1).replace(camera=torch.tensor([[scale, x, 0.0]])))


def residuals(positive):
    """Return the residuals of a conditioning's control at X, from the first to the middle one."""
    control = positive[0][1]["control"]
    link = control
    while link is not None:
        link.model_sampling = pipeline.small_sampling()
        link = link.previous_controlnet
    out = control.get_control(X, torch.tensor([2.0]), {}, 1, {})
    return [*out["output"], *out["middle"]]


def inside(condition, capface, size):
    """Return a head's own mask."""
    hint = condition.hint(128, 128)
    return capface.network.resize_mask(capface.network.encode_hint(hint)[1], size) > 0.5


@pytest.fixture
def someone(in_host):
    _, identity, text = pipeline.person(300)
    return identity, text


def test_an_extra_mask_bounds_the_person(capface, someone):
    identity, text = someone
    whole = residuals(pipeline.apply(text, capface, head(), identity)[0])
    mask = torch.zeros(1, 64, 64)
    mask[:, :, :32] = 1
    left = residuals(pipeline.apply(text, capface, head(), identity, mask=mask)[0])
    assert torch.allclose(left[0][..., :7], whole[0][..., :7], atol=1e-5)
    assert left[0][..., 9:].abs().max() == 0
    assert whole[0][..., 9:].abs().max() > 0
    everything = residuals(pipeline.apply(text, capface, head(), identity, mask=torch.ones(64, 64))[0])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(everything, whole, strict=True))
    nothing = residuals(pipeline.apply(text, capface, head(), identity, mask=torch.zeros(1, 8, 8))[0])
    assert all(r.abs().max() == 0 for r in nothing)


def test_a_soft_edge_is_the_prediction_itself(capface, someone):
    identity, text = someone
    everywhere = residuals(pipeline.apply(text, capface, head(), identity, strength=0, head_control=capface, alpha=1.0)[0])
    soft = residuals(pipeline.apply(text, capface, head(), None, mask_edge="soft")[0])
    mask = capface.network.encode_hint(head().hint(128, 128))[1]
    for r, all_over in zip(soft, everywhere, strict=True):
        assert relative_error(r, all_over * capface.network.resize_mask(mask, r.shape[-2:])) < 1e-5
    with pytest.raises(BadInput, match="hard or soft, got 'round'"):
        pipeline.apply(text, capface, head(), identity, mask_edge="round")


def test_post_hoc_head_control_is_unmasked_without_identity_and_scaled(capface, someone):
    """Equation 9: F‡ = F + alpha · pi*(z, t, H, none)."""
    identity, text = someone
    with Calls(capface.network) as calls:
        both = residuals(pipeline.apply(text, capface, head(), identity, head_control=capface, alpha=0.3)[0])
        assert calls.contexts == [False, True]
    person = residuals(pipeline.apply(text, capface, head(), identity)[0])
    control = residuals(pipeline.apply(text, capface, head(), None, strength=0, head_control=capface, alpha=1.0)[0])
    outside = ~inside(head(), capface, (16, 16)).expand_as(control[0])
    assert control[0][outside].abs().max() > 0
    for a, f, pi in zip(both, person, control, strict=True):
        assert relative_error(a, f + 0.3 * pi) < 1e-5


def test_post_hoc_head_control_has_its_own_window(denoiser, capface, someone):
    identity, text = someone
    settings = {"head_control": capface, "alpha": 0.5}
    until = pipeline.sample(
        denoiser, *pipeline.apply(text, capface, head(), identity, head_control_until=0.5, **settings), walk()
    )
    always = pipeline.sample(denoiser, *pipeline.apply(text, capface, head(), identity, **settings), walk())
    never = pipeline.sample(denoiser, *pipeline.apply(text, capface, head(), identity), walk())
    assert torch.equal(until[:2], always[:2])  # half of the schedule is at sigma = 1.6
    assert torch.equal(until[2], never[2])
    assert not torch.equal(always[2], never[2])


def test_head_control_first_and_identity_then_is_two_nodes(denoiser, capface, someone):
    """Figure 8: only the head in the first part of the schedule, the full model afterwards."""
    identity, text = someone
    first = pipeline.apply(text, capface, head(), None, end_percent=0.5)
    schedule = pipeline.apply(text, capface, head(), identity, start_percent=0.5, previous=first)
    out = pipeline.sample(denoiser, *schedule, walk())
    alone = pipeline.sample(denoiser, *pipeline.apply(text, capface, head(), None), walk())
    full = pipeline.sample(denoiser, *pipeline.apply(text, capface, head(), identity), walk())
    assert torch.equal(out[:2], alone[:2])
    assert torch.equal(out[2], full[2])


def test_three_people_are_evaluated_in_one_batch(denoiser, capface, someone, monkeypatch):
    identity, text = someone
    conds = ([[text, {}]], [[text, {}]])
    for x in (-0.5, 0.0, 0.5):
        conds = pipeline.apply(text, capface, head(3.0, x), identity, previous=conds)
    with Calls(capface.network) as calls:
        together = pipeline.sample(denoiser, *conds, walk(), cfg=3.0)
        assert calls.rows == [3] * 3
        calls.rows.clear()
        monkeypatch.setattr("capface.host.control.evaluation.encoder_memory", lambda *_: float("inf"))
        apart = pipeline.sample(denoiser, *conds, walk(), cfg=3.0)
        assert calls.rows == [1] * 9  # one by one if memory is short
    assert relative_error(together, apart) < 1e-5


def test_people_are_evaluated_one_by_one_if_their_batch_does_not_fit(denoiser, capface, someone, monkeypatch):
    """The memory was estimated too low."""
    import comfy.model_management as mm

    identity, text = someone
    conds = pipeline.apply(text, capface, head(3.0, -0.5), identity)
    conds = pipeline.apply(text, capface, head(3.0, 0.5), identity, previous=conds)
    forward, rows = capface.network.forward, []

    def limited(x, *others):
        if len(x) > 1:
            raise mm.OOM_EXCEPTION("no memory")
        rows.append(len(x))
        return forward(x, *others)

    together = pipeline.sample(denoiser, *conds, walk(), cfg=3.0)
    monkeypatch.setattr(capface.network, "forward", limited)
    apart = pipeline.sample(denoiser, *conds, walk(), cfg=3.0)
    assert rows == [1] * 6
    assert relative_error(together, apart) < 1e-5


@pytest.mark.parametrize("nearer_first", [True, False])
def test_with_overlap_nearest_only_the_nearer_head_acts(capface, someone, nearer_first):
    identity, text = someone
    near, far = head(6.0, -0.2), head(3.0, 0.2)
    order = [near, far] if nearer_first else [far, near]
    first = pipeline.apply(text, capface, order[0], identity)
    added = residuals(pipeline.apply(text, capface, order[1], identity, previous=first)[0])
    sorted_ = residuals(pipeline.apply(text, capface, order[1], identity, previous=first, overlap="nearest")[0])
    alone = {c: residuals(pipeline.apply(text, capface, c, identity)[0]) for c in order}
    overlapping = 0
    for i, r in enumerate(sorted_):
        in_front = inside(near, capface, r.shape[-2:])
        expected = alone[near][i] * in_front + alone[far][i] * ~in_front
        assert relative_error(r, expected) < 1e-5
        overlapping += (in_front & inside(far, capface, r.shape[-2:])).sum().item()
    assert overlapping > 10
    assert relative_error(sorted_[0], added[0]) > 1e-2
    first[0][0][1]["control"].evaluation.clear()
    again = residuals(first[0])  # later nodes do not change the first node's output
    assert all(torch.equal(a, b) for a, b in zip(again, alone[order[0]], strict=True))


def test_a_mask_on_the_conditioning_and_an_area_still_act(denoiser, capface, someone):
    identity, text = someone
    shape = (1, 4, 8, 16)
    positive, negative = pipeline.apply(text, capface, head(), identity)
    plain = ([[text, {}]], [[text, {}]])
    half = torch.zeros(1, 8, 16)
    half[..., :8] = 1
    for change in (
        lambda c: [[c[0][0], {**c[0][1], "mask": half, "mask_strength": 1.0}]],
        lambda c: area(c, 8, 8, 0, 8),
    ):
        acted = pipeline.sample(denoiser, change(positive), negative, walk(shape=shape), shape=shape, cfg=3.0)
        without = pipeline.sample(denoiser, change(plain[0]), plain[1], walk(shape=shape), shape=shape, cfg=3.0)
        assert torch.isfinite(acted).all()
        assert relative_error(acted, without) > 1e-3


@pytest.mark.parametrize("name", ["strength", "tau", "start_percent", "end_percent", "alpha", "head_control_until"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_a_host_lets_through_are_refused(capface, someone, name, number):
    from capface.nodes.apply_capface import ApplyCapFace

    identity, text = someone
    numbers = {"strength": 1.0, "tau": 1000.0, "start_percent": 0.0, "end_percent": 1.0, name: number}
    with pytest.raises(BadInput, match=f"finite number for {name}"):
        ApplyCapFace.execute(text, text, capface, head(), identity=identity, head_control=capface, **numbers)
