import math

import pytest
import torch

from capface.flame import HeadParams
from capface.flame.builtin import builtin_head
from capface.flame.fitting.metrics import ERROR_GROUPS, face_size, head_difference, head_rmse
from capface.flame.model.camera import project
from capface.flame.model.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from capface.tests.flame.heads import random_heads


def seen(head):
    """The head's 68 landmarks in the frame."""
    return project(builtin_head().landmarks(head), head.camera)[..., :2]


def test_an_exactly_matched_head_measures_zero():
    heads = random_heads(3)
    difference = head_difference(builtin_head(), heads, heads)
    assert all(getattr(difference, name).abs().max() < 0.05 for name in ("rotation", "position", "size"))
    assert all(error.abs().max() == 0 for error in head_rmse(heads, heads).values())


def test_a_face_is_as_large_as_its_landmarks_reach():
    head = HeadParams.neutral(2)
    heights = seen(head)[:, :, 1].amax(1) - seen(head)[:, :, 1].amin(1)
    assert torch.allclose(face_size(builtin_head(), head), heights, rtol=1e-4)
    turned = random_heads(2)
    doubled = turned.replace(camera=turned.camera * 2)
    assert torch.allclose(face_size(builtin_head(), doubled), 2 * face_size(builtin_head(), turned))


def test_rotation_shift_and_size_are_separate():
    head = HeadParams.neutral()
    turned = head.replace(rotation=torch.tensor([[0.0, math.radians(20), 0.0]]))
    assert head_difference(builtin_head(), head, turned).rotation.item() == pytest.approx(20, abs=1e-3)

    shift = 0.25 * face_size(builtin_head(), head).item()
    moved = head.replace(camera=head.camera + torch.tensor([[0.0, shift, 0.0]]))
    difference = head_difference(builtin_head(), head, moved)
    assert difference.position.item() == pytest.approx(0.25, abs=1e-5)
    assert (difference.rotation.item(), difference.size.item()) == pytest.approx((0, 0), abs=1e-3)

    larger = head.replace(camera=head.camera * torch.tensor([1.2, 1, 1]))
    assert head_difference(builtin_head(), head, larger).size.item() == pytest.approx(0.2, abs=1e-5)


def test_a_head_that_nods_with_its_neck_is_turned_like_one_that_turns():
    angle = torch.tensor([[0.3, -0.2, 0.1]])
    neck, root = HeadParams.neutral().replace(neck=angle), HeadParams.neutral().replace(rotation=angle)
    assert head_difference(builtin_head(), neck, root).rotation.item() < 0.05
    assert head_rmse(neck, root)["pose"].item() < 1e-4
    both = HeadParams.neutral().replace(neck=angle, rotation=angle)
    double = matrix_to_axis_angle(axis_angle_to_matrix(angle) @ axis_angle_to_matrix(angle))
    assert head_rmse(both, HeadParams.neutral().replace(rotation=double))["pose"].item() < 1e-4


def test_each_group_uses_its_own_values():
    """Computed by hand: one of n values off by d gives d / sqrt n; all off by d give d."""
    head = HeadParams.neutral()

    def changed(name, *at, by):
        value = getattr(head, name).clone()
        value[(0, *at)] += by
        return head_rmse(head, head.replace(**{name: value}))

    expected = {
        ("shape", 7): ("shape", 3 / 10),  # sqrt 100
        ("expression", 49): ("expression", 3 / math.sqrt(50)),
        ("rotation", 1): ("pose", 3 / math.sqrt(6)),
        ("jaw", 0): ("pose", 3 / math.sqrt(6)),
        ("light", 8, 2): ("light", 3 / math.sqrt(27)),
        ("texture", 0): (None, 0),
        ("camera", 1): (None, 0),
        ("eyes", 1): (None, 0),
    }
    for (name, *at), (group, error) in expected.items():
        found = changed(name, *at, by=3.0)
        assert set(found) == set(ERROR_GROUPS)
        for other, value in found.items():
            assert value.item() == pytest.approx(error if other == group else 0, abs=1e-6), (name, other)
    assert changed("shape", slice(None), by=0.25)["shape"].item() == pytest.approx(0.25)


def test_the_fit_of_a_heads_own_landmarks_measures_nearly_nothing():
    from capface.flame.fitting.landmark_fit import fit_landmarks

    head = random_heads(1)
    fitted = fit_landmarks(builtin_head(), seen(head)).params
    difference = head_difference(builtin_head(), head, fitted)
    assert difference.rotation.item() < 3
    assert difference.position.item() < 0.02
    assert abs(difference.size.item()) < 0.03
