"""Refining heads of another method by landmarks."""

import pytest
import torch

from capface.errors import BadInput
from capface.flame import HeadParams, fit_landmarks
from capface.flame.builtin import builtin_head
from capface.flame.fitting.landmark_fit import landmark_error
from capface.flame.model.camera import project
from capface.flame.model.landmarks import five_point_weights
from capface.tests.flame.test_landmark_fit import degrees_between, errors, known_heads, seen_points, turned

YAWS = (-60, 0, 45)


@pytest.fixture(scope="module")
def model():
    return builtin_head()


def estimated(heads, degrees=6.0, coefficients=0.3):
    """Heads as a network might estimate them, with a small error in every value."""
    B = heads.batch
    tilt = turned(*(degrees * torch.randn(3, B) / 3**0.5))
    off = {
        name: getattr(heads, name) + coefficients * torch.randn_like(getattr(heads, name)) for name in ("shape", "expression")
    }
    camera = heads.camera * torch.tensor([1.05, 1, 1]) + torch.tensor([0, 0.03, -0.02])
    return heads.replace(rotation=heads.rotation + tilt, camera=camera, texture=torch.randn(B, 50), **off)


def mesh_error(model, a, b):
    """The mean distance of the vertices at rest, `[B]`."""
    rest = {"rotation": torch.zeros_like(a.rotation), "jaw": torch.zeros_like(a.jaw)}
    return (model.vertices(a.replace(**rest)) - model.vertices(b.replace(**rest))).norm(dim=-1).mean(1)


def test_refining_meets_the_points_and_keeps_the_shape(model):
    heads = known_heads(model, YAWS, deviation=1.0)
    start = estimated(heads)
    points = seen_points(model, heads)
    refined, alone = fit_landmarks(model, points, start=start), fit_landmarks(model, points)
    rotation, landmarks = errors(model, refined, heads)
    assert rotation.max() < 1.0 and landmarks.max() < 0.01, f"{rotation.tolist()} {landmarks.tolist()}"
    assert (refined.error < 0.2 * landmark_error(model, start, points)).all()
    assert (mesh_error(model, refined.params, heads) < mesh_error(model, alone.params, heads)).all()


def test_values_that_the_points_do_not_determine_stay(model):
    start = estimated(known_heads(model, (10,)))
    fit = fit_landmarks(model, seen_points(model, start) + 0.01 * torch.randn(1, 68, 2), start=start, n_shape=5, n_expression=4)
    for name in ("texture", "light", "neck", "eyes"):
        assert torch.equal(getattr(fit.params, name), getattr(start, name))
    assert torch.equal(fit.params.shape[:, 5:], start.shape[:, 5:])
    assert torch.equal(fit.params.expression[:, 4:], start.expression[:, 4:])
    assert not torch.equal(fit.params.shape[:, :5], start.shape[:, :5])


def test_a_head_that_fits_already_stays(model):
    start = known_heads(model, YAWS)
    start = start.replace(neck=0.1 * torch.randn(3, 3))
    fit = fit_landmarks(model, seen_points(model, start), start=start)
    assert fit.error.max() < 2e-3
    assert degrees_between(fit.params.rotation, start.rotation).max() < 0.1
    torch.testing.assert_close(fit.params.shape, start.shape, atol=0.05, rtol=0)


def test_a_start_that_faces_the_other_way_is_ignored(model):
    heads = known_heads(model, (60,))
    start = estimated(heads).replace(rotation=turned(torch.tensor([-60.0]), torch.zeros(1), torch.zeros(1)))
    rotation, _ = errors(model, fit_landmarks(model, seen_points(model, heads), start=start), heads)
    assert rotation.max() < 1.0


def test_five_points_place_the_head_and_keep_its_rotation(model):
    heads = known_heads(model, YAWS)
    start = estimated(heads, degrees=2.0)
    five = five_point_weights() @ seen_points(model, heads)
    fit = fit_landmarks(model, five, start=start)
    assert degrees_between(fit.params.rotation, start.rotation).max() < 8.0
    rotation, landmarks = errors(model, fit, heads)
    assert rotation.max() < 8.0 and landmarks.max() < 0.04, f"{rotation.tolist()} {landmarks.tolist()}"
    for name in ("shape", "expression", "jaw"):
        assert torch.equal(getattr(fit.params, name), getattr(start, name))


def test_the_error_is_the_distance_to_the_points(model):
    heads = known_heads(model, (0, 30))
    points = seen_points(model, heads) + torch.tensor([0.03, -0.04])
    torch.testing.assert_close(landmark_error(model, heads, points), torch.full((2,), 0.05), atol=1e-5, rtol=0)
    five = five_point_weights() @ points
    torch.testing.assert_close(landmark_error(model, heads, five), torch.full((2,), 0.05), atol=1e-5, rtol=0)


def test_there_is_a_start_for_each_face(model):
    heads = HeadParams.neutral(2)
    points = project(model.landmarks(heads), heads.camera)[..., :2]
    with pytest.raises(BadInput, match="as many heads to start from as faces, 2, got 1"):
        fit_landmarks(model, points, start=heads[0])
