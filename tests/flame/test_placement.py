import math
from typing import Any

import pytest
import torch

from capface.errors import BadInput
from capface.flame import HeadParams, render_head
from capface.flame.builtin import builtin_head
from capface.flame.editing.edits import edit_head
from capface.flame.editing.placement import eye_centres, head_centre, move_centre, turn
from capface.flame.model.camera import project
from capface.flame.model.params import NEUTRAL_SCALE
from capface.flame.model.rotation import axis_angle_to_matrix
from capface.tests.flame.heads import golden_model, random_heads


@pytest.fixture(scope="module")
def model():
    return builtin_head()


def test_turning_keeps_the_centre_where_it_is(model):
    heads = random_heads(4)
    turned = turn(model, heads, torch.tensor([[0.0, 1.2, 0], [0.7, 0, 0], [0, 0, -2.5], [0.4, math.pi, 0.3]]))
    torch.testing.assert_close(head_centre(model, turned), head_centre(model, heads), atol=1e-5, rtol=0)
    assert torch.equal(turned.camera[:, 0], heads.camera[:, 0])


def test_a_turn_is_about_the_viewers_axes(model):
    heads = random_heads(2, scale=0.5)
    turned = turn(model, heads, torch.tensor([[0.0, 0.5, 0.0]]).expand(2, -1))
    yaw = axis_angle_to_matrix(torch.tensor([0.0, 0.5, 0.0]))
    torch.testing.assert_close(
        axis_angle_to_matrix(turned.rotation), yaw @ axis_angle_to_matrix(heads.rotation), atol=1e-5, rtol=0
    )


def test_turning_back_gives_the_head_back():
    model, heads = golden_model(), random_heads(3)
    there = torch.randn(3, 3)
    back = turn(model, turn(model, heads, there), -there)
    torch.testing.assert_close(back.rotation, heads.rotation, atol=1e-5, rtol=0)
    torch.testing.assert_close(back.camera, heads.camera, atol=1e-5, rtol=0)


def test_the_picture_turns_about_its_middle(model):
    # A head rotated by 180° about the viewing axis gives the picture rotated by 180° about the head's centre.
    head = move_centre(model, HeadParams.neutral(), torch.zeros(1, 2))
    upright, turned = (
        render_head(model, h, 64, 64).alpha[0, 0] for h in (head, turn(model, head, torch.tensor([[0.0, 0, math.pi]])))
    )
    assert (upright.flip(0, 1) != turned).float().mean() < 0.02


def test_expressions_do_not_move_the_centre(model):
    head = HeadParams.neutral()
    busy = head.replace(
        expression=torch.ones(1, 50), jaw=torch.tensor([[0.4, 0.0, 0.0]]), eyes=0.3 * torch.ones(1, 6), light=2 * head.light
    )
    torch.testing.assert_close(head_centre(model, busy), head_centre(model, head))


def test_the_centre_is_the_middle_between_the_ears(model):
    head = move_centre(model, HeadParams.neutral(), torch.zeros(1, 2))
    columns = render_head(model, head, 64, 64).alpha[0, 0].any(0).nonzero()
    assert abs((columns.min() + columns.max() + 1).item() / 2 - 32) <= 1


def test_the_wrong_number_of_turns_is_refused(model):
    with pytest.raises(BadInput, match=r"\[2, 3\].*2 heads.*\[1, 3\]"):
        turn(model, HeadParams.neutral(2), torch.zeros(1, 3))


def test_eyes_are_between_their_lids_whatever_the_pose_and_the_gaze(model):
    edits: list[dict[str, Any]] = [
        {},
        {"yaw": 35.0, "pitch": -10.0, "roll": 20.0},
        {"neck_yaw": -25.0, "size": 0.5, "position_x": 0.4},
        {"gaze_yaw": 30.0},
    ]
    for values in edits:
        head = edit_head(model, HeadParams.neutral(), **values)
        points = project(model.landmarks(head), head.camera)[0, :, :2].double()
        # The face points of the person's right and left eye, in the picture's left and right.
        lids = torch.stack([points[42:48].mean(0), points[36:42].mean(0)])
        size = head.camera[0, 0].item() / NEUTRAL_SCALE
        assert (eye_centres(model, head)[0] - lids).norm(dim=1).max() < 0.035 * size
