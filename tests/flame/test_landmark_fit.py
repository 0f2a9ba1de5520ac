import math

import pytest
import torch

from capface.errors import BadInput
from capface.flame import HeadParams, fit_landmarks
from capface.flame.builtin import builtin_head
from capface.flame.model.camera import project
from capface.flame.model.landmarks import five_point_weights
from capface.flame.model.rotation import axis_angle_to_matrix, matrix_to_axis_angle

YAWS = (-75, -50, -25, 0, 25, 50, 75)


@pytest.fixture(scope="module")
def model():
    return builtin_head()


def turned(yaw, pitch, roll):
    """Return axis-angle vectors of angles in degrees: pitch first, then yaw, then roll."""
    about = [torch.eye(3)[axis] * torch.deg2rad(angle)[:, None] for axis, angle in ((1, yaw), (0, pitch), (2, roll))]
    Y, P, R = (axis_angle_to_matrix(vector) for vector in about)
    return matrix_to_axis_angle(R @ Y @ P)


def known_heads(model, yaws=YAWS, deviation=0.5):
    """Random heads of known yaw, anywhere in the frame."""
    B = len(yaws)
    rotation = turned(torch.tensor(yaws, dtype=torch.float32), 15 * (2 * torch.rand(B) - 1), 25 * (2 * torch.rand(B) - 1))
    head = HeadParams.neutral(B)
    return head.replace(
        rotation=rotation,
        shape=deviation * torch.randn_like(head.shape),
        expression=deviation * torch.randn_like(head.expression),
        jaw=torch.rand(B, 1) * torch.tensor([0.2, 0.0, 0.0]),
        camera=torch.cat([2 + 4 * torch.rand(B, 1), 0.3 * torch.randn(B, 2)], 1),
    )


def seen_points(model, heads):
    """The 68 landmarks in frame units, `[B, 68, 2]`."""
    return project(model.landmarks(heads), heads.camera)[..., :2]


def face_size(model, heads):
    """The face's size in frame units, `[B]`: the height of the 68 landmarks at rest, as the camera scales it."""
    y = model.landmarks(HeadParams.neutral())[0, :, 1]
    return heads.camera[:, 0] * (y.max() - y.min())


def degrees_between(a, b):
    """The angle between rotations, `[B]`."""
    relative = axis_angle_to_matrix(a).mT @ axis_angle_to_matrix(b)
    return matrix_to_axis_angle(relative).norm(dim=1).rad2deg()


def errors(model, fit, heads):
    """Return rotation errors in degrees, and mean distances of the 68 landmarks as fractions of the face's size, `[B]` each."""
    distance = (seen_points(model, fit.params) - seen_points(model, heads)).norm(dim=-1).mean(1)
    return degrees_between(fit.params.rotation, heads.rotation), distance / face_size(model, heads)


def test_exact_points_recover_the_head(model):
    heads = known_heads(model)
    rotation, landmarks = errors(model, fit_landmarks(model, seen_points(model, heads)), heads)
    assert rotation.max() < 1.0 and landmarks.max() < 0.01, f"{rotation.tolist()} {landmarks.tolist()}"


def test_noisy_points_with_a_third_missing_nearly_recover_the_head(model):
    heads = known_heads(model)
    points = seen_points(model, heads)
    points = points + 0.02 * face_size(model, heads)[:, None, None] * torch.randn_like(points)
    weights = (torch.rand(points.shape[:2]) > 1 / 3).float()
    rotation, landmarks = errors(model, fit_landmarks(model, points, weights), heads)
    assert rotation.max() < 4.0 and landmarks.max() < 0.03, f"{rotation.tolist()} {landmarks.tolist()}"


def test_the_average_head_is_found_exactly(model):
    heads = known_heads(model, deviation=0.0)
    fit = fit_landmarks(model, seen_points(model, heads))
    rotation, landmarks = errors(model, fit, heads)
    assert rotation.max() < 0.3 and landmarks.max() < 1e-3
    torch.testing.assert_close(fit.params.jaw[:, 0], heads.jaw[:, 0], atol=0.02, rtol=0)


def test_five_points_give_the_average_heads_pose(model):
    heads = known_heads(model, deviation=0.0)
    heads = heads.replace(jaw=torch.zeros_like(heads.jaw))
    fit = fit_landmarks(model, five_point_weights() @ seen_points(model, heads))
    rotation, landmarks = errors(model, fit, heads)
    assert rotation.max() < 8.0 and landmarks.max() < 0.06, f"{rotation.tolist()} {landmarks.tolist()}"
    for name in ("shape", "expression", "jaw"):
        assert getattr(fit.params, name).count_nonzero() == 0


def test_the_true_pose_of_a_mirrored_pair_is_found(model):
    heads = HeadParams.neutral(4).replace(
        rotation=turned(torch.tensor([30.0, -30.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 20.0, -20.0]), torch.zeros(4))
    )
    fit = fit_landmarks(model, five_point_weights() @ seen_points(model, heads))
    assert degrees_between(fit.params.rotation, heads.rotation).max() < 8.0


def test_moving_and_scaling_the_photo_moves_and_scales_the_camera(model):
    heads = known_heads(model, yaws=(20,))
    points = seen_points(model, heads)
    shift = torch.tensor([0.4, -0.3])
    plain, moved = fit_landmarks(model, points), fit_landmarks(model, 0.25 * points + shift)
    expected = 0.25 * plain.params.camera + torch.tensor([0.0, 0.4, -0.3])
    torch.testing.assert_close(moved.params.camera, expected, atol=2e-4, rtol=1e-3)
    assert degrees_between(moved.params.rotation, plain.params.rotation).item() < 0.1


def test_a_mirrored_photo_gives_the_mirrored_pose(model):
    heads = known_heads(model, yaws=(35,), deviation=0.0)
    five = five_point_weights() @ seen_points(model, heads)
    mirrored = five[:, [1, 0, 2, 4, 3]] * torch.tensor([-1.0, 1.0])
    plain, flipped = fit_landmarks(model, five), fit_landmarks(model, mirrored)
    expected = plain.params.rotation * torch.tensor([1.0, -1.0, -1.0])
    assert degrees_between(flipped.params.rotation, expected).item() < 1.0


def test_a_missing_point_may_be_anywhere(model):
    points = seen_points(model, known_heads(model, yaws=(10,)))
    weights = torch.ones(1, 68)
    weights[:, 20:30] = 0
    there = points.clone()
    there[:, 20:30] = float("nan")
    a, b = fit_landmarks(model, points, weights), fit_landmarks(model, there, weights)
    assert torch.equal(a.params.rotation, b.params.rotation) and torch.equal(a.error, b.error)


def test_a_batch_equals_its_faces_one_by_one(model):
    points = seen_points(model, known_heads(model, yaws=(-60, 0, 30)))
    together = fit_landmarks(model, points)
    for i in range(3):
        alone = fit_landmarks(model, points[i : i + 1])
        assert torch.equal(alone.params.rotation, together.params.rotation[i : i + 1])
        assert torch.equal(alone.error, together.error[i : i + 1])


def test_the_error_is_the_remaining_distance(model):
    points = seen_points(model, known_heads(model, yaws=(0, 40))) + 0.02 * torch.randn(2, 68, 2)
    fit = fit_landmarks(model, points)
    gap = seen_points(model, fit.params) - points
    torch.testing.assert_close(fit.error, gap.square().sum(-1).mean(1).sqrt(), atol=1e-5, rtol=1e-3)


def test_upside_down_photos_are_fitted_too(model):
    heads = HeadParams.neutral(2).replace(
        rotation=turned(torch.tensor([0.0, 20.0]), torch.zeros(2), torch.tensor([180.0, 90.0]))
    )
    rotation, _ = errors(model, fit_landmarks(model, seen_points(model, heads)), heads)
    assert rotation.max() < 1.0


def test_fitting_works_without_gradients_and_leaves_torch_as_it_was(model):
    points = seen_points(model, known_heads(model, yaws=(15,)))
    before = torch.get_rng_state(), torch.get_num_threads()
    with torch.inference_mode():
        inside = fit_landmarks(model, points)
    assert torch.equal(torch.get_rng_state(), before[0]) and torch.get_num_threads() == before[1]
    assert torch.equal(inside.params.rotation, fit_landmarks(model, points).params.rotation)


@pytest.mark.parametrize(
    ("points", "weights", "words"),
    [
        (torch.zeros(1, 7, 2), None, r"\[B, 68, 2\] or \[B, 5, 2\].*\[1, 7, 2\]"),
        (torch.full((1, 5, 2), math.nan), None, "NaN"),
        (torch.rand(1, 5, 2), torch.tensor([[1.0, 1, 0, 0, 0]]), "at least 3 points.*got 2 of face 0"),
        (torch.rand(1, 5, 2), torch.tensor([[1.0, 1, 1, 1, -1]]), "not negative"),
        (torch.full((1, 5, 2), 0.3), None, "one place"),
    ],
)
def test_invalid_points_are_refused_with_a_message(model, points, weights, words):
    with pytest.raises(BadInput, match=words):
        fit_landmarks(model, points, weights)
