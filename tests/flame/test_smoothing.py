import math

import pytest
import torch

from capface.errors import BadInput
from capface.flame import HeadParams
from capface.flame.fitting.smoothing import smooth
from capface.flame.model.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from capface.tests.flame.heads import random_heads


def turning(frames, step, start=0.0):
    """Heads that turn by `step` radians per frame about the vertical axis."""
    angle = start + step * torch.arange(frames)
    return HeadParams.neutral(frames).replace(rotation=matrix_to_axis_angle(axis_angle_to_matrix(about_y(angle))))


def about_y(angle):
    return angle[:, None] * torch.eye(3)[1]


def apart(a, b):
    """Return the angles between rotations in radians."""
    return matrix_to_axis_angle(axis_angle_to_matrix(a).mT @ axis_angle_to_matrix(b)).norm(dim=1)


def test_nothing_changes_at_0_and_in_one_frame():
    heads = random_heads(4)
    assert smooth(heads, 0.0) is heads
    assert smooth(heads[0], 1.0).rotation.equal(heads[0].rotation)


def test_a_still_head_stays_as_it_is():
    head = random_heads(1, scale=0.7)
    calm = smooth(head.expand(9), 0.8)
    for name, value in vars(head).items():
        torch.testing.assert_close(getattr(calm, name), value.expand_as(getattr(calm, name)), atol=1e-5, rtol=1e-5)


def test_a_steady_motion_keeps_its_pace_and_does_not_lag():
    heads = turning(60, 0.05)
    calm = smooth(heads, 0.6)
    assert apart(calm.rotation[15:45], heads.rotation[15:45]).max() < 1e-3


def test_higher_amounts_reduce_shaking_more():
    still = HeadParams.neutral(80)
    shaken = still.replace(
        rotation=0.1 * torch.randn(80, 3),
        expression=torch.randn(80, 50),
        camera=still.camera * (0.1 * torch.randn(80, 3)).exp(),
    )
    left = [smooth(shaken, amount) for amount in (0.1, 0.4, 1.0)]
    for measure in (
        lambda h: h.rotation.norm(dim=1).mean(),
        lambda h: h.expression.std(),
        lambda h: h.camera[:, 0].log().std(),
    ):
        before, *after = (measure(h).item() for h in (shaken, *left))
        assert before > after[0] > after[1] > after[2]
        assert after[2] < 0.4 * before


def test_rotations_near_half_a_turn_do_not_cancel():
    """On either side of half a turn, axis-angle vectors point in opposite directions, so their mean would not be a turn."""
    heads = turning(20, 0.0, start=math.pi).replace(rotation=about_y((math.pi - 0.02) * torch.tensor([1.0, -1.0]).repeat(10)))
    assert smooth(heads, 0.5).rotation.norm(dim=1).min() > math.pi - 0.05


def test_sizes_are_averaged_by_factors():
    heads = HeadParams.neutral(2)
    heads.camera[:, 0] = torch.tensor([1.0, 4.0])
    calm = smooth(heads, 1.0).camera[:, 0]
    torch.testing.assert_close(calm.prod(), torch.tensor(4.0))
    assert 1.0 < calm[0] < 2.0 < calm[1] < 4.0


def test_frames_are_weighted_by_their_times():
    """A frame after a long gap has little weight."""
    heads = HeadParams.neutral(3).replace(expression=torch.tensor([0.0, 0.0, 1.0])[:, None].expand(3, 50))
    near, far = smooth(heads, 0.4), smooth(heads, 0.4, torch.tensor([0, 1, 50]))
    assert near.expression[1, 0] > 0.1 and far.expression[1, 0] < 1e-6
    assert far.expression[2, 0] == pytest.approx(1)


@pytest.mark.parametrize("amount", [-0.1, 1.5, math.nan])
def test_other_amounts_are_refused(amount):
    with pytest.raises(BadInput, match="0 to 1"):
        smooth(HeadParams.neutral(2), amount)
    with pytest.raises(BadInput, match="each of 2 heads"):
        smooth(HeadParams.neutral(2), 0.5, torch.arange(3))
