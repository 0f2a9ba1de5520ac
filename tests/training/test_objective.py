import dataclasses

import pytest
import torch

from capface.errors import BadInput
from capface.models.diffusion.capface_checkpoint import load_capface
from capface.tests.synthetic import relative_error
from capface.tests.training.small_training import CONFIG, Samples, objective
from capface.training.export import write_capface
from capface.training.objective import ObjectiveSettings, sample_randomness
from capface.training.schedule import WEIGHTS, NoiseSchedule


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_an_untrained_capface_leaves_the_bases_prediction():
    made, batch = objective(), Samples().all
    random = sample_randomness(batch.latents, made.settings, generator())
    noisy = made.schedule.add_noise(batch.latents, random.noise, random.timesteps)
    with torch.no_grad():
        plain = made.base(noisy, random.timesteps, batch.context)
        errors = made(batch, generator())["errors"]
    assert torch.equal(errors, (plain - random.noise).square().mean((1, 2, 3)))


def test_the_loss_is_equation_7():
    made, batch = objective(mask_weight=0.5, weighting="inverse_alpha"), Samples().all
    with torch.no_grad():
        out = made(batch, generator())
    weights = (1 / made.schedule.alphas_bar[out["timesteps"]]).clamp(max=10)
    assert torch.allclose(out["loss"], (weights * out["errors"]).mean().float() + 0.5 * out["mask"])
    predicted = made.trained.capface.encode_hint(batch.hint)[1]
    truth = torch.nn.functional.avg_pool2d(batch.mask, 8)
    assert torch.allclose(out["mask"], (predicted - truth).square().mean())


@pytest.mark.parametrize("t", [0, 100, 500, 999])
def test_weights_against_their_closed_forms(t):
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2
    a = (1 - beta)[: t + 1].prod().item()
    schedule = NoiseSchedule()
    assert schedule.alphas_bar[t].item() == pytest.approx(a, rel=1e-5)
    snr = a / (1 - a)
    expected = {"eps": 1.0, "min_snr_5": min(snr, 5) / snr, "inverse_alpha": min(1 / a, 10)}
    assert expected.keys() == WEIGHTS.keys()
    for name, weight in expected.items():
        assert schedule.weights(name, torch.tensor([t])).item() == pytest.approx(weight, rel=1e-5)


def test_noise_keeps_the_variance():
    x0, noise = torch.ones(2, 4, 8, 8), torch.full((2, 4, 8, 8), 2.0)
    z = NoiseSchedule().add_noise(x0, noise, torch.tensor([0, 999]))
    a = NoiseSchedule().alphas_bar[[0, 999]].float()
    assert torch.allclose(z[:, 0, 0, 0], a.sqrt() + 2 * (1 - a).sqrt())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, lambda t: torch.ones_like(t)),
        ({"tau": 400}, lambda t: (t <= 400).float()),
        ({"tau": 0}, lambda t: torch.zeros_like(t)),
        ({"tau": "drawn"}, lambda t: 1 - t / 1000),
        ({"identity_dropout": 0.25, "tau": 400}, lambda t: 0.75 * (t <= 400)),
    ],
)
def test_identity_is_kept_as_often_as_it_should_be(settings, expected):
    random = sample_randomness(torch.zeros(20_000, 1, 1, 1), ObjectiveSettings(**settings), generator())
    for low in range(0, 1000, 100):
        within = (random.timesteps >= low) & (random.timesteps < low + 100)
        fraction = expected(random.timesteps[within].float()).mean().item()
        assert random.keep_identity[within].float().mean().item() == pytest.approx(fraction, abs=0.04)


def with_trained_outputs(**settings):
    """An objective whose residuals are no longer zero, and whose mask is open."""
    made = objective(**settings)
    g = generator(7)
    with torch.no_grad():
        for parameter in [
            p for m in (made.trained.capface.zero_convs, made.trained.capface.middle_block_out) for p in m.parameters()
        ]:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=g))
        made.trained.capface.mask_predict[0].get_parameter("bias").fill_(10)
    return made


def test_a_dropped_identity_equals_no_identity():
    batch = Samples().all
    errors = {}
    for name, settings in {
        "none": {"identity": "none"},
        "tau 0": {"tau": 0},
        "dropout": {"identity_dropout": 1.0},
        "both": {},
    }.items():
        with torch.no_grad():
            errors[name] = with_trained_outputs(**settings)(batch, generator())["errors"]
    assert torch.allclose(errors["none"], errors["tau 0"], rtol=1e-5)
    assert torch.allclose(errors["none"], errors["dropout"], rtol=1e-5)
    assert not torch.allclose(errors["none"], errors["both"], rtol=1e-3)


@pytest.mark.parametrize(("identity", "ignores", "needs"), [("local", "global_", "local"), ("global", "local", "global_")])
def test_a_single_part_of_the_identity(identity, ignores, needs):
    made, batch = with_trained_outputs(identity=identity), Samples().all

    def errors(**changes):
        with torch.no_grad():
            return made(dataclasses.replace(batch, **changes), generator())["errors"]

    assert torch.equal(errors(), errors(**{ignores: torch.randn_like(getattr(batch, ignores))}))
    assert not torch.equal(errors(), errors(**{needs: torch.randn_like(getattr(batch, needs))}))


def test_dropped_text_equals_the_empty_prompt():
    batch = Samples().all
    with torch.no_grad():
        dropped = objective(text_dropout=1.0)(batch, generator())["errors"]
        empty = objective()(dataclasses.replace(batch, context=batch.null_context.expand_as(batch.context)), generator())[
            "errors"
        ]
        kept = objective()(batch, generator())["errors"]
    assert torch.equal(dropped, empty)
    assert not torch.equal(dropped, kept)


def test_without_identity_parameters_without_effect_are_not_trained():
    made = objective(identity="none")
    made(Samples().all, generator())["loss"].backward()
    trained = {n for n, p in made.trained.named_parameters() if p.requires_grad}
    with_gradient = {n for n, p in made.trained.named_parameters() if p.grad is not None}
    assert trained == with_gradient
    assert not any(n.startswith("tokens.") or ".attn2.to_k." in n for n in trained)
    assert all(p.grad is None for p in made.base.parameters())


@pytest.mark.parametrize("wrong", [{"identity": "all"}, {"tau": 1001}, {"tau": "random"}, {"text_dropout": 2.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(BadInput, match="Expected"):
        ObjectiveSettings(**wrong)


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_the_saved_file_loads_and_gives_equal_residuals(tmp_path, dtype):
    made, batch = with_trained_outputs(), Samples().all
    path = tmp_path / "mine.safetensors"
    write_capface(path, made.trained, dtype=dtype, about={"steps": "3"})
    network, tokens = load_capface(path, dtype=torch.float32)
    t = torch.tensor([1, 400, 800, 999])
    loaded = []
    for capface, project in ((network, tokens), (made.trained.capface, made.trained.tokens)):
        with torch.no_grad():
            guided, mask = capface.encode_hint(batch.hint)
            residuals = capface(batch.latents, t, guided, project(batch.local, batch.global_))
        if capface is network:
            loaded = [mask, *residuals]
    assert network.config.in_channels == CONFIG.in_channels
    for a, b in zip(loaded, [mask, *residuals], strict=True):
        assert torch.equal(a, b) if dtype is None else relative_error(a, b) < 5e-3
