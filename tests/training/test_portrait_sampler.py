"""The abilities of the shipped miniature, tested on a few dozen portraits of people held out of its training.

The margins are wide: they separate a working method from a broken one, not one seed from another. `python tasks.py miniature
--tables 128` prints the values.
"""

import functools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from capface.experiments.miniature_tables.tables import Trial
from capface.miniature.networks import HELD_OUT, load_miniature
from capface.miniature.people import BACKGROUNDS, SHIRTS, Setting, light_named
from capface.training.miniature.portrait_sampler import Recipe, head_hint, make_portraits
from capface.training.miniature.train_evaluator import Attributes

PEOPLE, RECIPE = 24, Recipe(steps=12)


@pytest.fixture(scope="module")
def miniature():
    return load_miniature()


@pytest.fixture(scope="module")
def trial():
    return Trial.of(range(HELD_OUT + 500, HELD_OUT + 500 + PEOPLE))


@pytest.fixture(scope="module")
def portraits(miniature, trial):
    """`portraits(light=…, prompt=…, swapped=…, **recipe)` makes a portrait of each person, once, in -1..1."""

    @functools.cache
    def make(light=None, setting=None, swapped=False, **recipe):
        heads = trial.heads if light is None else trial.heads.replace(light=light_named(light).expand(PEOPLE, -1, -1))
        prompts = trial.prompts if setting is None else [", ".join(setting.words())] * PEOPLE
        references = trial.references[trial.reference_rows(swapped)]
        made = make_portraits(miniature, head_hint(heads), prompts, references, replace(RECIPE, **recipe))
        return made * 2 - 1

    return make


@pytest.fixture(scope="module")
def likeness(miniature, portraits):
    """Return the mean cosine of portraits and pictures, by the evaluator, which was not used to make the portraits."""

    def measure(pictures, others):
        return F.cosine_similarity(miniature.evaluator(pictures)[0], miniature.evaluator(others)[0]).mean().item()

    return measure


def errors(miniature, trial, pictures):
    """Return the mean errors of the requested heads, by the evaluator."""
    predicted = Attributes.predicted(miniature.evaluator(pictures)[1])
    truth = Attributes.of(trial.heads, [scene.setting for scene in trial.targets])
    return {name: value.mean().item() for name, value in predicted.errors(truth).items()}


def test_the_evaluator_distinguishes_people_it_never_saw(likeness, trial):
    same = likeness(trial.truth * 2 - 1, trial.references)
    other = likeness(trial.truth * 2 - 1, trial.references[trial.swapped])
    print(f"same person {same:.2f}, another {other:.2f}")
    assert same > 0.6
    assert abs(other) < 0.2


def test_identity_follows_the_reference_and_not_whose_head_it_is(likeness, trial, portraits):
    made, null_identity = portraits(swapped=True), portraits(parts=(0.0, 0.0))
    reference, donor = likeness(made, trial.references[trial.swapped]), likeness(made, trial.references)
    without = likeness(null_identity, trial.references)
    print(f"reference {reference:.2f}, donor {donor:.2f}, without identity {without:.2f}")
    assert reference > donor + 0.3
    assert reference > without + 0.3


def test_position_and_rotation_follow_the_head(miniature, trial, portraits):
    ours, without = (errors(miniature, trial, portraits(strength=s)) for s in (1.0, 0.0))
    print(ours, without)
    assert ours["pose"] < 0.7 * without["pose"]
    assert ours["position"] < 0.5 * without["position"]


def test_light_follows_the_light(miniature, portraits):
    left, right = (Attributes.predicted(miniature.evaluator(portraits(light=name))[1]).light for name in ("left", "right"))
    wanted = (light_named("right") - light_named("left")).mean(-1)
    share = ((right - left) @ wanted) / wanted.square().sum()
    print(f"share of the difference in light: {share.mean():.2f}, least {share.min():.2f}")
    assert share.mean() > 0.5
    assert (share > 0).float().mean() > 0.9


def test_likeness_rises_with_tau(likeness, trial, portraits):
    found = [likeness(portraits(tau=tau), trial.references) for tau in (0.0, 300.0, 600.0, 1000.0)]
    print([f"{f:.2f}" for f in found])
    assert found == sorted(found)
    assert found[-1] > found[0] + 0.3


def test_alpha_improves_the_head(miniature, trial, portraits):
    without, more = (errors(miniature, trial, portraits(alpha=a)) for a in (0.0, 0.5))
    print(without, more)
    assert more["pose"] < without["pose"]
    assert more["light"] < without["light"]
    without, more = (errors(miniature, trial, portraits(strength=0.25, alpha=a)) for a in (0.0, 0.5))
    print(without, more)
    assert all(more[name] < 0.9 * without[name] for name in ("pose", "position", "light"))


def test_another_prompt_changes_the_background_and_not_the_person(miniature, likeness, trial, portraits):
    settings = Setting("red", "beach"), Setting("white", "night city")
    pictures = [portraits(setting=setting) for setting in settings]
    for setting, made in zip(settings, pictures, strict=True):
        predicted = Attributes.predicted(miniature.evaluator(made)[1])
        right = predicted.background.argmax(1) == BACKGROUNDS.index(setting.background)
        assert right.float().mean() > 0.9
        assert (predicted.shirt.argmax(1) == list(SHIRTS).index(setting.shirt)).float().mean() > 0.6
    assert likeness(*pictures) > likeness(pictures[0], pictures[1][trial.swapped]) + 0.4


def test_strength_0_has_no_effect_on_a_portrait(trial, portraits):
    assert torch.equal(portraits(strength=0.0), portraits(strength=0.0, swapped=True))
