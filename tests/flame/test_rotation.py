import math

import pytest
import torch

from capface.errors import BadInput
from capface.flame.model.rotation import axis_angle_to_matrix, matrix_to_axis_angle, slerp, yaw_of


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


@pytest.mark.usefixtures("without_type_checks")
def test_wrong_shapes_are_refused():
    with pytest.raises(BadInput, match=r"\[2, 4\]"):
        axis_angle_to_matrix(torch.zeros(2, 4))
    with pytest.raises(BadInput, match=r"\[3, 2\]"):
        matrix_to_axis_angle(torch.zeros(3, 2))


def angle(matrix):
    return matrix_to_axis_angle(matrix).norm(dim=-1)


def test_slerp_goes_the_shortest_way_at_an_even_pace():
    a, b = 2 * torch.randn(100, 3, dtype=torch.float64), 2 * torch.randn(100, 3, dtype=torch.float64)
    start, end = axis_angle_to_matrix(a), axis_angle_to_matrix(b)
    whole = angle(end @ start.mT)
    for share in (0.0, 0.25, 0.5, 1.0):
        between = axis_angle_to_matrix(slerp(a, b, torch.full((100,), share, dtype=torch.float64)))
        torch.testing.assert_close(angle(between @ start.mT), share * whole, atol=1e-5, rtol=0)
        torch.testing.assert_close(angle(end @ between.mT), (1 - share) * whole, atol=1e-5, rtol=0)


def test_slerp_between_yaws_is_a_yaw_across_the_back_of_the_head():
    a, b = (torch.tensor([[0.0, math.radians(yaw), 0.0]]) for yaw in (170.0, -170.0))
    middle = slerp(a, b, torch.tensor([0.5]))
    torch.testing.assert_close(middle.abs(), torch.tensor([[0.0, math.pi, 0.0]]), atol=1e-3, rtol=0)


def test_slerp_over_half_a_turn_stays_on_one_great_circle():
    a = torch.tensor([[0.2, -0.4, 0.1]], dtype=torch.float64).expand(5, -1)
    half = axis_angle_to_matrix(torch.tensor([0.0, math.pi, 0.0], dtype=torch.float64))
    b = matrix_to_axis_angle(half @ axis_angle_to_matrix(a))
    shares = torch.linspace(0, 1, 5, dtype=torch.float64)
    turned = matrix_to_axis_angle(axis_angle_to_matrix(slerp(a, b, shares)) @ axis_angle_to_matrix(a).mT)
    torch.testing.assert_close(turned.norm(dim=1), shares * math.pi, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned[1:].abs() @ turned.new_tensor([1.0, 0, 1]), turned.new_zeros(4), atol=1e-5, rtol=0)


def test_slerp_of_a_rotation_with_itself_is_that_rotation():
    a = torch.cat([torch.zeros(1, 3), torch.randn(20, 3), torch.tensor([[math.pi, 0.0, 0.0]])])
    same = slerp(a, a, torch.rand(22))
    torch.testing.assert_close(axis_angle_to_matrix(same), axis_angle_to_matrix(a), atol=1e-5, rtol=0)
