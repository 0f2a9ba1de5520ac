import dataclasses

import pytest
import torch

from capface.errors import BadInput
from capface.flame import HeadParams
from capface.flame.builtin import builtin_head
from capface.flame.editing.expressions import (
    LEFT_CHEEK,
    SLIDERS,
    amounts_of,
    express,
    eye_distance,
    slider_directions,
    slider_target,
)
from capface.tests.flame.heads import golden_model, random_heads


def points(model, head):
    """The 68 landmarks and the two cheek vertices of a head that faces the viewer, `[70, 3]`."""
    rest = HeadParams.neutral()
    still = model.landmarks(rest)[0]
    middles = torch.stack([still[54] + still[12], still[48] + still[4]]) / 2
    cheeks = torch.cdist(middles, model.vertices(rest)[0]).argmin(1)
    return torch.cat([model.landmarks(head)[0], model.vertices(head)[0, cheeks]])


def moved(model, **amounts):
    """How far the points move, in eye distances, `[70, 3]`."""
    rest = HeadParams.neutral()
    still = points(model, rest)
    return (points(model, express(model, rest, amounts)) - still) / eye_distance(still)


def error_and_spill(model, name):
    """Return how far a slider's own points are from their intended positions, and how far the others move.

    Both are relative to the root mean square of the intended displacement; the second is a root mean square and a maximum.
    """
    still = points(model, HeadParams.neutral())
    target = slider_target(SLIDERS[name], still)
    meant = target.displacement / eye_distance(still)
    size = meant[target.own].norm(dim=1).square().mean().sqrt()
    got = moved(model, **{name: 1.0})
    still_ones = (target.weights > 0) & (meant.norm(dim=1) == 0)
    spill = got[still_ones].norm(dim=1)
    error = (got - meant)[target.own].norm(dim=1).square().mean().sqrt()
    return error / size, spill.square().mean().sqrt() / size, spill.max() / size, (got * meant)[target.own].sum()


@pytest.mark.parametrize("name", SLIDERS)
def test_a_slider_moves_its_own_landmarks_as_intended_and_the_others_hardly(name):
    error, spill, most, _ = error_and_spill(builtin_head(), name)
    assert error < 0.3
    assert spill < 0.08
    assert most < 0.2


@pytest.mark.parametrize("name", SLIDERS)
def test_sliders_move_a_random_basis_in_the_right_direction(name):
    # Fifty random directions cover a quarter of 204 coordinates: the direction is right, but not the length.
    error, spill, most, along = error_and_spill(golden_model(), name)
    assert along > 0
    assert error < 0.95
    assert spill < 0.4
    assert most < 0.75


# The expected effects in eye distances, independent of the table of displacements.
EXPECTED = {
    "smile_left": lambda d: d[54, 1] > 0.08 and d[54, 0] > 0.05 and d[48].norm() < 0.02,
    "smile_right": lambda d: d[48, 1] > 0.08 and d[48, 0] < -0.05 and d[54].norm() < 0.02,
    "frown": lambda d: d[[48, 54], 1].max() < -0.07 and d[51].norm() < 0.03,
    "mouth_open": lambda d: (d[62] - d[66])[1] > 0.3 and d[8, 1] < -0.2 and d[27:36].norm(dim=1).max() < 0.03,
    "pucker": lambda d: (d[54] - d[48])[0] < -0.2 and d[[51, 57], 2].min() > 0.04,
    "brows_up_left": lambda d: d[22:27, 1].min() > 0.05 and d[17:22].norm(dim=1).max() < 0.02,
    "brows_up_right": lambda d: d[17:22, 1].min() > 0.05 and d[22:27].norm(dim=1).max() < 0.02,
    "brows_down": lambda d: d[[19, 20, 21, 22, 23, 24], 1].max() < -0.06,
    "sneer_left": lambda d: d[52, 1] > 0.04 and d[35, 1] > 0.02 and d[50].norm() < 0.03,
    "sneer_right": lambda d: d[50, 1] > 0.04 and d[31, 1] > 0.02 and d[52].norm() < 0.03,
    "cheeks": lambda d: d[LEFT_CHEEK, 0] > 0.05 and d[LEFT_CHEEK + 1, 0] < -0.05 and d[LEFT_CHEEK:, 2].min() > 0.05,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_slider_looks_like_its_name(name):
    assert EXPECTED[name](moved(builtin_head(), **{name: 1.0}))


@pytest.mark.parametrize(("name", "left_over"), [("eyes_closed", (0.0, 0.12)), ("squint", (0.4, 0.7))])
def test_lids_close_on_their_own_side(name, left_over):
    still = points(builtin_head(), HeadParams.neutral()) / eye_distance(points(builtin_head(), HeadParams.neutral()))
    for side, lids, others in (("left", (43, 44, 47, 46), (37, 38, 41, 40)), ("right", (37, 38, 41, 40), (43, 44, 47, 46))):
        now = still + moved(builtin_head(), **{f"{name}_{side}": 1.0})
        for (a, b, c, d), (least, most) in ((lids, left_over), (others, (0.95, 1.05))):
            gap = ((now[[a, b]] - now[[c, d]]) / (still[[a, b]] - still[[c, d]]))[:, 1]
            assert (gap > least - 0.05).all() and (gap < most).all(), (side, gap)


def test_left_and_right_are_mirror_images():
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    pairs = [(54, 48), (22, 21), (23, 20), (26, 17), (43, 38), (44, 37), (46, 41), (47, 40), (52, 50), (35, 31), (68, 69)]
    left, right = (torch.tensor(numbers) for numbers in zip(*pairs, strict=True))
    for name in SLIDERS:
        if name.endswith("_left"):
            one, other = moved(builtin_head(), **{name: 1.0}), moved(builtin_head(), **{name[:-4] + "right": 1.0})
            torch.testing.assert_close(one[left], other[right] * mirror, atol=4e-3, rtol=0)


def remixed(model):
    """The same head model with its expression components rotated into each other."""
    mix, _ = torch.linalg.qr(torch.randn(model.n_expression, model.n_expression, dtype=torch.float64))
    rig = model.rig
    turned = {
        name: torch.cat([basis[: model.n_shape], torch.einsum("ij,jvc->ivc", mix.float(), basis[model.n_shape :])])
        for name, basis in (("basis", rig.basis), ("joint_basis", rig.joint_basis))
    }
    return dataclasses.replace(model, rig=dataclasses.replace(rig, **turned), expression_names=())


def test_sliders_need_no_names_of_components():
    model = builtin_head()
    unnamed = remixed(model)
    for name in SLIDERS:
        torch.testing.assert_close(moved(unnamed, **{name: 1.0}), moved(model, **{name: 1.0}), atol=2e-4, rtol=0)


def test_amounts_add_up_and_each_head_may_have_its_own():
    model, head = builtin_head(), random_heads(2)
    directions = slider_directions(model)
    both = express(model, head, {"frown": 0.5, "mouth_open": torch.tensor([0.0, 1.0])})
    order = list(SLIDERS)
    frown, opened = order.index("frown"), order.index("mouth_open")
    expected = head.expression + 0.5 * directions.expression[frown]
    expected[1] += directions.expression[opened]
    torch.testing.assert_close(both.expression, expected)
    torch.testing.assert_close(both.jaw - head.jaw, torch.stack([torch.zeros(3), directions.jaw[opened]]))


def test_a_model_is_solved_once():
    assert slider_directions(builtin_head()) is slider_directions(builtin_head())


def test_no_expression_returns_the_same_head():
    head = random_heads(2)
    assert express(builtin_head(), head, {"smile_left": 0.0, "cheeks": torch.zeros(2)}) is head


def test_invalid_expressions_are_refused_with_a_message():
    with pytest.raises(BadInput, match=r"smile_left.*got grin"):
        express(builtin_head(), random_heads(2), {"grin": 1.0})
    with pytest.raises(BadInput, match="one number or 2"):
        express(builtin_head(), random_heads(2), {"frown": torch.ones(3)})


@pytest.mark.parametrize(
    "amounts",
    [
        {},
        {"smile_left": 0.9, "smile_right": 0.3},
        {"mouth_open": 0.7, "brows_up_left": 1.2, "brows_up_right": 1.2},
        {"brows_down": 1.0, "frown": 0.6, "sneer_left": 0.4},
        {"pucker": 0.5, "cheeks": 0.8, "brows_up_right": -0.5},
    ],
    ids=str,
)
def test_amounts_are_read_back_from_a_head(amounts):
    model = builtin_head()
    head = express(model, HeadParams.neutral(), amounts)
    read = amounts_of(model, head)
    assert read.keys() == SLIDERS.keys()
    assert read == pytest.approx(dict.fromkeys(SLIDERS, 0.0) | amounts, abs=0.12)
    again = express(model, HeadParams.neutral(), read)
    assert (points(model, again) - points(model, head)).norm(dim=1).max() < 0.02 * eye_distance(points(model, head))


def test_amounts_of_any_head_are_within_the_sliders_ranges():
    model = builtin_head()
    wild = HeadParams.neutral().replace(expression=3 * torch.randn(1, 50, generator=torch.Generator().manual_seed(2)))
    read = amounts_of(model, wild)
    assert all(SLIDERS[name].least <= amount <= SLIDERS[name].most for name, amount in read.items())
    assert max(map(abs, read.values())) > 0.3
