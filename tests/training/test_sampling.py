import pytest
import torch

from capface.models.diffusion.capface import CapFace
from capface.tests.training.small_training import Samples, objective
from capface.training.sampling import (
    capface_control,
    ddim,
    ddim_timesteps,
    evaluated_at,
    head_control,
    noise_prediction,
)
from capface.training.schedule import NoiseSchedule


def test_timesteps_equal_the_released_codes():
    assert ddim_timesteps(20) == list(range(951, 0, -50))
    assert len(ddim_timesteps(1000)) == 999
    assert len(ddim_timesteps(1)) == 1


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_finds_the_only_picture(eta):
    """If all data is one point, the optimal prediction of eps is known, and every path ends at that point."""
    schedule, point = NoiseSchedule(), torch.randn(1, 4, 8, 8)

    def predict(x, t):
        a = schedule.at(t)
        return (x - a.sqrt() * point) / (1 - a).sqrt()

    z = ddim(predict, torch.randn(3, 4, 8, 8), steps=10, eta=eta, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(z, point.expand_as(z), atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_keeps_the_variance_of_gaussian_data(eta):
    """For data N(0, 1) the optimal prediction is sqrt(1 - abar) z; for any eta the result is N(0, 1) again."""
    schedule = NoiseSchedule()
    g = torch.Generator().manual_seed(1)
    z = ddim(lambda x, t: (1 - schedule.at(t)).sqrt() * x, torch.randn(64, 4, 32, 32), steps=100, eta=eta, generator=g)
    assert z.std().item() == pytest.approx(1, abs=0.05)


@pytest.fixture
def trained():
    made = objective().trained
    with torch.no_grad():
        for conv in (*made.capface.zero_convs, made.capface.middle_block_out):
            torch.nn.init.normal_(conv.get_parameter("0.weight"), std=0.1)
        made.capface.mask_predict[0].get_parameter("weight").mul_(100)
        torch.nn.init.normal_(made.capface.input_hint_block[-1].get_parameter("weight"))
    return made.requires_grad_(False)


def test_control_functions_are_equations_6_8_and_9(trained):
    batch, x = Samples().all, torch.randn(4, 4, 8, 8)
    tokens = trained.tokens(batch.local, batch.global_)
    guided, mask = trained.capface.encode_hint(batch.hint)
    assert 0.05 < (mask > 0.5).float().mean() < 0.95
    control = capface_control(trained.capface, batch.hint, tokens, strength=0.6, tau=500)
    star = head_control(trained.capface, batch.hint, alpha=0.3, active=(400, 1000))
    for t, identity, heads in ((500, tokens, True), (501, None, True), (399, tokens, False)):
        t = torch.full((4,), t)
        expected = CapFace.mask_residuals(trained.capface(x, t, guided, identity), mask)
        acting = control(x, t)
        assert acting is not None
        for a, b in zip(acting, expected, strict=True):
            assert torch.allclose(a, 0.6 * b)
        if not heads:
            assert star(x, t) is None
            continue
        acting = star(x, t)
        assert acting is not None
        for a, b in zip(acting, trained.capface(x, t, guided, None), strict=True):
            assert torch.allclose(a, 0.3 * b)


def test_likeness_extends_the_line_from_no_identity_to_identity(trained):
    batch, x = Samples().all, torch.randn(4, 4, 8, 8)
    tokens = trained.tokens(batch.local, batch.global_)
    three, one, none = (
        capface_control(trained.capface, batch.hint, identity, tau=500, likeness=likeness)
        for identity, likeness in ((tokens, 3.0), (tokens, 1.0), (None, 1.0))
    )
    for timestep in (500, 501):
        t = torch.full((4,), timestep)
        found = [control(x, t) for control in (three, one, none)]
        for f, f_id, f_null in zip(*(residuals or [] for residuals in found), strict=True):
            assert torch.allclose(f, f_null + 3 * (f_id - f_null), atol=1e-5)


def test_residuals_are_kept_between_the_steps_that_are_evaluated():
    timesteps = [900, 700, 500, 300, 100]
    seen = []

    def control(x, t):
        seen.append(int(t[0]))
        return [x]

    kept = evaluated_at(control, {0, 3}, timesteps, tau=600)
    found = [kept(torch.tensor(float(i)), torch.tensor([t])) for i, t in enumerate(timesteps)]
    assert seen == [900, 500, 300]  # the identity starts to act at 500
    assert [int(residuals[0]) for residuals in found if residuals] == [0, 0, 2, 3, 3]


def test_both_halves_of_guidance_are_controlled_alike(trained):
    base, batch, x, t = objective().base, Samples().all, torch.randn(4, 4, 8, 8), torch.full((4,), 300)
    control = capface_control(trained.capface, batch.hint, None)
    acting = control(x, t)
    assert acting is not None
    added = [2 * r for r in acting]
    with_text, without = base(x, t, batch.context, added), base(x, t, batch.null_context.expand_as(batch.context), added)
    predict = noise_prediction(base, batch.context, batch.null_context, [control, control], guidance=3.0)
    assert torch.allclose(predict(x, t), without + 3 * (with_text - without), atol=1e-5)
    assert torch.equal(noise_prediction(base, batch.context, batch.null_context, guidance=1)(x, t), base(x, t, batch.context))
