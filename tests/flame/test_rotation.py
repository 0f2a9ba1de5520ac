import math

import pytest
import torch

from capface.errors import BadInput
from capface.flame.rotation import axis_angle_to_matrix, matrix_to_axis_angle, yaw_of


def test_matrices_are_rotations():
    R = axis_angle_to_matrix(3 * torch.randn(200, 3, dtype=torch.float64))
    torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=torch.float64).expand_as(R))
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(200, dtype=torch.float64))


def test_matrices_agree_with_the_matrix_exponential():
    r = torch.randn(50, 3, dtype=torch.float64)
    x, y, z = r.unbind(1)
    zero = torch.zeros_like(x)
    K = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    torch.testing.assert_close(axis_angle_to_matrix(r), torch.linalg.matrix_exp(K), atol=1e-6, rtol=0)


def test_no_rotation_is_the_identity():
    torch.testing.assert_close(axis_angle_to_matrix(torch.zeros(1, 3)), torch.eye(3)[None], atol=1e-7, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 1.0, 3.0, math.pi - 1e-7])
def test_axis_angle_survives_the_round_trip(angle):
    axis = torch.nn.functional.normalize(torch.randn(100, 3, dtype=torch.float64), dim=1)
    back = matrix_to_axis_angle(axis_angle_to_matrix(angle * axis))
    torch.testing.assert_close(back, angle * axis, atol=1e-6, rtol=0)


def test_half_turns_about_every_axis_come_back():
    half = math.pi * torch.eye(3, dtype=torch.float64)
    back = matrix_to_axis_angle(axis_angle_to_matrix(half))
    torch.testing.assert_close(axis_angle_to_matrix(back), axis_angle_to_matrix(half), atol=1e-6, rtol=0)


@pytest.mark.parametrize("degrees", [-75.0, -39.4, 0.0, 10.0, 89.0])
def test_yaw_is_the_turn_about_y(degrees):
    yaw = math.radians(degrees)
    pitched = axis_angle_to_matrix(torch.tensor([0.0, yaw, 0.0])) @ axis_angle_to_matrix(torch.tensor([0.3, 0.0, 0.0]))
    assert yaw_of(pitched).item() == pytest.approx(yaw, abs=1e-5)


def test_wrong_shapes_are_refused():
    with pytest.raises(BadInput, match=r"\[2, 4\]"):
        axis_angle_to_matrix(torch.zeros(2, 4))
    with pytest.raises(BadInput, match=r"\[3, 2\]"):
        matrix_to_axis_angle(torch.zeros(3, 2))
