import math

import pytest
import torch

from capface.errors import BadInput
from capface.flame import HeadParams
from capface.flame.builtin import builtin_head
from capface.flame.editing.animation import EASINGS, animate_keys, follow, interpolate, turntable
from capface.flame.editing.placement import head_centre, turn
from capface.flame.model.params import SIZES
from capface.flame.model.rotation import axis_angle_to_matrix, yaw_of
from capface.tests.flame.heads import random_heads


@pytest.fixture(scope="module")
def model():
    return builtin_head()


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in SIZES)


def near(a, b, tolerance=1e-5):
    """Check that heads are equal, also if different axis-angle vectors describe the same rotation."""
    for name in SIZES:
        x, y = getattr(a, name), getattr(b, name)
        if name in ("rotation", "neck", "jaw", "eyes"):
            x, y = (axis_angle_to_matrix(r.unflatten(1, (-1, 3))) for r in (x, y))
        torch.testing.assert_close(x, y, atol=tolerance, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def yaws(heads):
    """Return the yaw in degrees of heads that turned only about the vertical axis."""
    R = axis_angle_to_matrix(heads.rotation)
    return torch.rad2deg(torch.atan2(R[:, 0, 2], R[:, 2, 2]))


@pytest.mark.parametrize("easing", EASINGS)
def test_easings_keep_both_ends_and_never_go_back(easing):
    eased = EASINGS[easing](torch.linspace(0, 1, 101))
    assert eased[0] == 0 and eased[-1] == 1 and (eased.diff() >= 0).all()


def test_easings_match_their_names():
    early, late = torch.tensor(0.1), torch.tensor(0.9)
    assert EASINGS["ease in"](early) < 0.1 and EASINGS["ease in"](late) < 0.9
    assert EASINGS["ease out"](early) > 0.1 and EASINGS["ease out"](late) > 0.9
    assert EASINGS["ease in-out"](early) < 0.1 and EASINGS["ease in-out"](late) > 0.9
    assert EASINGS["hold"](late) == 0


@pytest.mark.parametrize("easing", EASINGS)
@pytest.mark.parametrize(("keys", "frames"), [(2, 2), (3, 7), (4, 22), (5, 5)])
def test_keys_are_hit_exactly_and_evenly(model, keys, frames, easing):
    heads = random_heads(keys)
    sequence = animate_keys(model, heads, frames, easing)
    assert sequence.batch == frames and same(sequence[:: (frames - 1) // (keys - 1)], heads)


def test_a_loop_leads_back_to_the_first_key(model):
    heads = random_heads(3)
    sequence = animate_keys(model, heads, 12, loop=True)
    assert same(sequence[::4], heads)
    near(sequence[8:], interpolate(model, heads[[2] * 4], heads[[0] * 4], torch.arange(4) / 4))


def test_one_key_stands_still(model):
    head = random_heads(1)
    for loop in (False, True):
        assert same(animate_keys(model, head, 3, "ease in-out", loop), head.expand(3))


def test_one_frame_is_the_first_key(model):
    heads = random_heads(3)
    assert same(animate_keys(model, heads, 1), heads[0])


def test_hold_changes_only_at_the_keys(model):
    heads = random_heads(3)
    assert same(animate_keys(model, heads, 7, "hold"), heads[[0, 0, 0, 1, 1, 1, 2]])


def test_sizes_change_by_equal_factors_and_the_centre_moves_straight(model):
    keys = random_heads(2).replace(camera=torch.tensor([[1.0, -0.5, 0.2], [16.0, 0.7, -0.3]]))
    sequence = animate_keys(model, keys, 5)
    torch.testing.assert_close(sequence.camera[:, 0], torch.tensor([1.0, 2, 4, 8, 16]), rtol=1e-5, atol=0)
    centres = head_centre(model, sequence)
    torch.testing.assert_close(centres.diff(dim=0), (centres[-1] - centres[0]).expand(4, 2) / 4, atol=1e-4, rtol=0)


def test_coefficients_and_light_change_by_equal_amounts(model):
    keys = random_heads(2)
    sequence = animate_keys(model, keys, 3)
    for name in ("shape", "expression", "texture", "light"):
        torch.testing.assert_close(getattr(sequence, name)[1], getattr(keys, name).mean(0))


def test_between_two_yaws_the_head_takes_the_short_way(model):
    keys = HeadParams.neutral(2).replace(rotation=torch.tensor([[0.0, math.radians(150), 0], [0.0, math.radians(-150), 0]]))
    turned = yaws(animate_keys(model, keys, 5)) % 360
    torch.testing.assert_close(turned, torch.tensor([150.0, 165, 180, 195, 210]), atol=1e-2, rtol=0)


def test_a_turntable_shows_the_head_from_every_side(model):
    head = HeadParams.neutral()
    sequence = turntable(model, head, 8, loop=True)
    torch.testing.assert_close(yaws(sequence) % 360, torch.arange(8) * 45.0, atol=1e-2, rtol=0)
    torch.testing.assert_close(head_centre(model, sequence), head_centre(model, head).expand(8, -1), atol=1e-5, rtol=0)


def test_part_of_a_turn_has_the_given_start_and_end(model):
    sequence = turntable(model, HeadParams.neutral(), 5, math.radians(-60), math.radians(60))
    torch.testing.assert_close(yaws(sequence), torch.tensor([-60.0, -30, 0, 30, 60]), atol=1e-3, rtol=0)


def test_a_loop_over_part_of_a_turn_swings_back(model):
    sequence = turntable(model, HeadParams.neutral(), 4, 0.0, math.radians(80), loop=True)
    torch.testing.assert_close(yaws(sequence), torch.tensor([0.0, 40, 80, 40]), atol=1e-3, rtol=0)


def test_a_turntable_changes_only_rotation_and_position(model):
    head = random_heads(1)
    sequence = turntable(model, head, 3, 0.1, 0.3)
    assert same(sequence.replace(rotation=head.rotation.expand(3, -1), camera=head.camera.expand(3, -1)), head.expand(3))
    near(sequence[1], turn(model, head, torch.tensor([[0.0, 0.2, 0.0]])))


def test_a_sequence_can_be_turned_but_not_one_of_another_length(model):
    heads = random_heads(3)
    near(turntable(model, heads, 3, 0, 0), heads)
    with pytest.raises(BadInput, match=r"4 frames.*got 3"):
        turntable(model, heads, 4)


def test_a_head_that_follows_starts_as_it_is(model):
    head, driving = random_heads(1), random_heads(4)
    followed = follow(model, head, driving)
    near(followed[0], head)
    assert torch.equal(followed.shape, head.shape.expand(4, -1)) and torch.equal(followed.light, head.light.expand(4, -1, -1))


def test_a_head_that_follows_itself_is_the_sequence(model):
    driving = random_heads(4)
    driving = driving.replace(shape=driving.shape[[0] * 4], texture=driving.texture[[0] * 4], light=driving.light[[0] * 4])
    near(follow(model, driving[0], driving), driving)


def test_relative_motion_is_added_in_the_heads_own_size(model):
    head = HeadParams.neutral().replace(camera=torch.tensor([[10.0, 0.3, 0.0]]), rotation=torch.tensor([[0.0, 0.5, 0.0]]))
    driving = HeadParams.neutral(2).replace(
        camera=torch.tensor([[5.0, 0, 0], [6.0, 0.1, 0]]), rotation=torch.tensor([[0.0, -0.2, 0], [0.0, 0.1, 0]])
    )
    followed = follow(model, head, driving)
    assert torch.rad2deg(yaw_of(axis_angle_to_matrix(followed.rotation)))[1] == pytest.approx(math.degrees(0.8), abs=1e-3)
    assert followed.camera[1, 0] == pytest.approx(12.0)
    moved, theirs = (head_centre(model, h).diff(dim=0) for h in (followed, driving))
    torch.testing.assert_close(moved, 2 * theirs, atol=1e-5, rtol=0)


def test_absolute_motion_is_the_driving_sequences_own(model):
    head, driving = random_heads(1), random_heads(3)
    followed = follow(model, head, driving, relative=False)
    for name in ("rotation", "neck", "jaw", "eyes", "expression", "camera"):
        assert torch.equal(getattr(followed, name), getattr(driving, name))
    assert torch.equal(followed.shape, head.shape.expand(3, -1)) and torch.equal(followed.light, head.light.expand(3, -1, -1))


def test_invalid_animations_are_refused_with_a_message(model):
    heads = random_heads(2)
    with pytest.raises(BadInput, match="at least one frame, got 0"):
        animate_keys(model, heads, 0)
    with pytest.raises(BadInput, match=r"linear, ease in.*'bounce'"):
        animate_keys(model, heads, 4, "bounce")
    with pytest.raises(BadInput, match=r"one length.*2 and 3"):
        follow(model, heads, random_heads(3))
