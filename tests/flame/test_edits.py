from typing import Any

import pytest
import torch

from capface.errors import BadInput
from capface.flame import HeadParams
from capface.flame.builtin import builtin_head
from capface.flame.editing.edits import angles_of, change_face, place_head, rotation_of, scale_shape, turn_head
from capface.flame.editing.placement import head_centre
from capface.flame.model.camera import project
from capface.flame.model.params import NEUTRAL_SCALE, SIZES
from capface.tests.flame.heads import golden_model, random_heads

LEFT_EYE, RIGHT_EYE, NOSE = 45, 36, 30


def seen(model, head):
    """Return the landmarks of one head in the frame, `[68, 2]`."""
    return project(model.landmarks(head), head.camera)[0, :, :2]


def skull_box(model, head):
    """Return the centre in the frame of the box around the vertices that the neck joint moves, `[B, 2]`."""
    points = project(model.vertices(head), head.camera)[:, model.rig.weights[:, 1:].sum(1) > 0.5, :2]
    return (points.amin(1) + points.amax(1)) / 2


def test_positive_angles_turn_right_look_up_and_tilt_clockwise():
    model, head = builtin_head(), HeadParams.neutral()
    still = seen(model, head)
    assert seen(model, turn_head(model, head, yaw=30))[NOSE, 0] > still[NOSE, 0] + 0.1
    assert seen(model, turn_head(model, head, pitch=30))[NOSE, 1] < still[NOSE, 1] - 0.1
    tilted = seen(model, turn_head(model, head, roll=30))
    across = tilted[LEFT_EYE] - tilted[RIGHT_EYE]  # to the picture's right, and down
    assert torch.atan2(across[1], across[0]).rad2deg().item() == pytest.approx(30, abs=0.1)
    for name, coordinate, sign in (("neck_yaw", 0, 1), ("neck_pitch", 1, -1)):
        angle: dict[str, Any] = {name: 30.0}
        moved = seen(model, turn_head(model, head, **angle)) - still
        assert sign * moved[NOSE, coordinate] > 0.1


def test_angles_and_rotations_convert_both_ways():
    angles = (torch.rand(200, 3, dtype=torch.float64) * 2 - 1) * torch.tensor([179.0, 89.0, 179.0])
    torch.testing.assert_close(angles_of(rotation_of(angles)), angles, atol=1e-4, rtol=0)
    # At a pitch of ±90°, yaw and roll are the same rotation, and the roll is set to 0.
    straight = rotation_of(torch.tensor([[40.0, 90.0, 15.0], [40.0, -90.0, 15.0]], dtype=torch.float64))
    torch.testing.assert_close(rotation_of(angles_of(straight)), straight, atol=1e-6, rtol=0)
    assert angles_of(straight)[:, 2].abs().max() == 0


def test_adding_adds_angles_and_absolute_replaces_them():
    model, head = golden_model(), random_heads(3, scale=0.4)
    before = angles_of(head.rotation.double())
    added = turn_head(model, head, yaw=10, pitch=-5, roll=3)
    torch.testing.assert_close(angles_of(added.rotation.double()), before + torch.tensor([10.0, -5.0, 3.0]), atol=1e-4, rtol=0)
    assert torch.equal(added.neck, head.neck)
    placed = turn_head(model, head, yaw=10, pitch=-5, roll=3, neck_yaw=7, mode="absolute")
    torch.testing.assert_close(angles_of(placed.rotation), torch.tensor([10.0, -5.0, 3.0]).expand(3, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(angles_of(placed.neck), torch.tensor([7.0, 0, 0]).expand(3, 3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("model", [builtin_head, golden_model])
@pytest.mark.parametrize("mode", ["add", "absolute"])
def test_turning_keeps_the_centre_where_it_is(model, mode):
    model, head = model(), random_heads(5, scale=0.5)
    turned = turn_head(
        model, head, yaw=70, pitch=torch.linspace(-60, 60, 5), roll=-25, neck_yaw=20, neck_pitch=-15, neck_roll=9, mode=mode
    )
    assert (turned.rotation - head.rotation).norm(dim=1).min() > 0.3
    torch.testing.assert_close(head_centre(model, turned), head_centre(model, head), atol=1e-6, rtol=0)


@pytest.mark.parametrize("half_turn", [{"yaw": 180}, {"pitch": 180}, {"roll": 180}])
def test_a_half_turn_puts_the_head_where_it_was(half_turn):
    model = builtin_head()
    head = HeadParams.neutral().replace(camera=torch.tensor([[4.0, 0.3, -0.2]]))
    torch.testing.assert_close(skull_box(model, turn_head(model, head, **half_turn)), skull_box(model, head), atol=1e-5, rtol=0)


def test_a_head_scales_about_its_centre_and_moves_as_specified():
    model, head = builtin_head(), random_heads(3)
    bigger = place_head(model, head, size=1.5)
    torch.testing.assert_close(bigger.camera[:, 0], 1.5 * head.camera[:, 0])
    torch.testing.assert_close(head_centre(model, bigger), head_centre(model, head), atol=1e-6, rtol=0)
    moved = place_head(model, head, x=0.25, y=-0.5)
    shift = (head_centre(model, moved) - head_centre(model, head)).float()
    torch.testing.assert_close(shift, torch.tensor([0.25, -0.5]).expand(3, 2), atol=1e-6, rtol=0)
    placed = place_head(model, head, x=0.25, y=-0.5, size=0.8, mode="absolute")
    torch.testing.assert_close(head_centre(model, placed).float(), torch.tensor([0.25, -0.5]).expand(3, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(placed.camera[:, 0], torch.full((3,), 0.8 * NEUTRAL_SCALE))


def test_shape_strength_leads_to_the_average_and_keeps_the_centre():
    model, head = builtin_head(), random_heads(2, scale=1.0)
    assert (scale_shape(model, head, 0.0).shape == 0).all()
    half = scale_shape(model, head, 0.5)
    torch.testing.assert_close(half.shape, head.shape / 2)
    torch.testing.assert_close(head_centre(model, half), head_centre(model, head), atol=1e-6, rtol=0)


def test_adding_nothing_returns_the_same_head():
    model, head = builtin_head(), random_heads(2)
    assert turn_head(model, head) is head
    assert place_head(model, head) is head
    assert change_face(model, head, {"smile_left": 0.0}) is head
    assert scale_shape(model, head) is head


def test_absolute_at_rest_resets_only_its_group():
    model, head = builtin_head(), random_heads(2)
    reset = {
        "rotation neck camera": turn_head(model, head, mode="absolute"),
        "expression jaw eyes": change_face(model, head, {}, mode="absolute"),
        "camera": place_head(model, head, mode="absolute"),
        "shape camera": scale_shape(model, head, 0.0),
    }
    for group, edited in reset.items():
        for name in SIZES:
            if name not in group.split():
                assert torch.equal(getattr(edited, name), getattr(head, name)), name
            elif name != "camera":
                assert (getattr(edited, name) == 0).all(), name


def test_the_jaw_opens_in_degrees_and_does_not_close_beyond_closed():
    model, head = builtin_head(), HeadParams.neutral(3)
    head = head.replace(jaw=torch.tensor([[0.2, 0.0, 0.0], [0.0, 0.0, 0.0], [-0.05, 0.01, 0.0]]))
    opened = change_face(model, head, {}, jaw_open=10, jaw_side=5)
    degrees = (opened.jaw - head.jaw).rad2deg()
    torch.testing.assert_close(degrees, torch.tensor([10.0, 5.0, 0.0]).expand(3, 3), atol=1e-4, rtol=0)
    shut = change_face(model, head, {"mouth_open": -1.0}, jaw_open=-30)
    torch.testing.assert_close(shut.jaw[:, 0], torch.tensor([0.0, 0.0, -0.05]))


def test_both_eyes_follow_the_gaze():
    model, head = builtin_head(), random_heads(2)
    looking = change_face(model, head, {}, gaze_yaw=20, gaze_pitch=10)
    for eye in (slice(0, 3), slice(3, 6)):
        turned = angles_of(looking.eyes[:, eye]) - angles_of(head.eyes[:, eye])
        torch.testing.assert_close(turned, torch.tensor([20.0, 10.0, 0.0]).expand(2, 3), atol=1e-3, rtol=0)
    ahead = change_face(model, HeadParams.neutral(), {}, gaze_yaw=20, gaze_pitch=10, mode="absolute")
    pupil = model.rig.weights[:, 3].bool().nonzero()[:, 0]
    pupil = pupil[model.vertices(HeadParams.neutral())[0, pupil, 2].argmax()]
    x, y, _ = (model.vertices(ahead) - model.vertices(HeadParams.neutral()))[0, pupil]
    assert x > 0.002 and y > 0.001


def test_a_batch_of_values_edits_each_head_by_its_own_value():
    model, head = builtin_head(), random_heads(3)
    yaw, x = torch.tensor([-20.0, 0.0, 40.0]), torch.tensor([0.1, 0.2, 0.3])
    smile, strength = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 0.5, 0.0])
    together = scale_shape(model, head, strength)
    together = change_face(model, together, {"smile_left": smile}, jaw_open=yaw.abs())
    together = place_head(model, turn_head(model, together, yaw=yaw), x=x)
    for i in range(3):
        alone = scale_shape(model, head[i], strength[i])
        alone = change_face(model, alone, {"smile_left": smile[i]}, jaw_open=yaw[i].abs())
        alone = place_head(model, turn_head(model, alone, yaw=yaw[i]), x=x[i])
        for name in SIZES:
            torch.testing.assert_close(getattr(together, name)[i], getattr(alone, name)[0], atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda model, head: turn_head(model, head, yaw=10, mode="plus"), "add or absolute.*plus"),
        (lambda model, head: place_head(model, head, size=0.0), "above 0"),
        (lambda model, head: turn_head(model, head, yaw=torch.zeros(3)), "2, one a head"),
        (lambda model, head: change_face(model, head, {}, jaw_open=float("nan")), "finite"),
    ],
)
def test_invalid_values_are_refused_with_a_message(edit, words):
    with pytest.raises(BadInput, match=words):
        edit(builtin_head(), random_heads(2))
