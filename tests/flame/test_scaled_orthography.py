import math

import pytest
import torch

from capface.flame.fitting.scaled_orthography import scaled_orthography
from capface.flame.model.rotation import axis_angle_to_matrix


def views(points, rotation, scale, shift):
    """Scaled orthographic views `[B, N, 2]`, v down."""
    turned = points @ axis_angle_to_matrix(rotation).mT
    return scale[:, None, None] * turned[..., :2] * torch.tensor([1.0, -1.0], dtype=points.dtype) + shift[:, None]


def scene(batch=20, n=12, depth=1.0):
    points = torch.randn(1, n, 3, dtype=torch.float64) * torch.tensor([1.0, 1.2, depth], dtype=torch.float64)
    rotation = torch.randn(batch, 3, dtype=torch.float64)
    scale, shift = 0.5 + torch.rand(batch, dtype=torch.float64), torch.randn(batch, 2, dtype=torch.float64)
    return points.expand(batch, -1, -1), rotation, scale, shift


def test_one_of_the_two_poses_is_exact():
    points, rotation, scale, shift = scene()
    seen = views(points, rotation, scale, shift)
    found, scales = scaled_orthography(points, seen, torch.ones(seen.shape[:2], dtype=torch.float64))
    gap = (found - axis_angle_to_matrix(rotation)).abs().amax((2, 3)).amin(0)
    assert gap.max() < 1e-6
    torch.testing.assert_close(scales, scale, rtol=1e-6, atol=0)


def test_of_flat_points_both_poses_give_the_same_view():
    points, rotation, scale, shift = scene(depth=0.0)
    seen = views(points, rotation, scale, shift)
    found, scales = scaled_orthography(points, seen, torch.ones(seen.shape[:2], dtype=torch.float64))
    centred = seen - seen.mean(1, keepdim=True)
    for R in found:
        view = scales[:, None, None] * (points @ R.mT)[..., :2] * torch.tensor([1.0, -1.0], dtype=torch.float64)
        torch.testing.assert_close(view - view.mean(1, keepdim=True), centred, atol=1e-6, rtol=0)
    assert (found[0] - found[1]).abs().max() > 0.1


def test_points_with_weight_0_do_not_count():
    points, rotation, scale, shift = scene(batch=3)
    seen, weights = views(points, rotation, scale, shift), torch.ones(3, 12, dtype=torch.float64)
    expected = scaled_orthography(points[:, :8], seen[:, :8], weights[:, :8])
    weights[:, 8:] = 0
    seen[:, 8:] = 1e3
    for mine, theirs in zip(scaled_orthography(points, seen, weights), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("degrees", [0.0, 60.0, 180.0])
def test_poses_are_rotations(degrees):
    points, rotation, scale, shift = scene(batch=5)
    rotation = math.radians(degrees) * torch.nn.functional.normalize(rotation, dim=1)
    seen = views(points, rotation, scale, shift) + 0.1 * torch.randn(5, 12, 2, dtype=torch.float64)
    found, _ = scaled_orthography(points, seen, torch.rand(5, 12, dtype=torch.float64))
    torch.testing.assert_close(found @ found.mT, torch.eye(3, dtype=torch.float64).expand_as(found), atol=1e-9, rtol=0)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(2, 5, dtype=torch.float64))
