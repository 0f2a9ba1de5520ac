import pytest
import torch

from capface.errors import BadInput
from capface.flame.model.spherical_harmonics import directional_light, frontal_light, sh_basis, shade

DIRECTIONS = torch.nn.functional.normalize(torch.randn(3, 20000, generator=torch.Generator().manual_seed(1)), dim=0)


def test_ambient_light_is_even():
    shading = shade(DIRECTIONS, directional_light(diffuse=0.0, ambient=(0.2, 0.5, 1.0)))
    torch.testing.assert_close(shading, torch.tensor([[0.2], [0.5], [1.0]]).expand_as(shading))


@pytest.mark.parametrize("direction", [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (-1.0, 2.0, 0.5)])
def test_a_lamp_is_the_clamped_cosine_up_to_order_2(direction):
    towards = torch.nn.functional.normalize(torch.tensor(direction), dim=0)
    cosine = (towards @ DIRECTIONS).clamp(min=0)
    error = shade(DIRECTIONS, directional_light(direction))[0] - cosine
    # Truncated at order 2, the clamped cosine is off by 1/16 at the pole, and by at most 3/32, at the edge.
    assert error.abs().max() < 3 / 32 + 1e-4
    # The truncation is a projection: the remainder is orthogonal to the nine functions.
    assert (sh_basis(DIRECTIONS) @ error / error.numel()).abs().max() < 3e-3
    assert shade(towards[:, None], directional_light(direction))[0].item() == pytest.approx(17 / 16, abs=1e-5)


def test_the_default_light_keeps_a_frontal_face_near_its_albedo():
    facing = shade(torch.tensor([[0.0], [0.0], [1.0]]), frontal_light())
    assert facing.shape == (3, 1) and facing.min() > 0.9 and facing.max() < 1.05
    above, below = (shade(torch.tensor([[0.0], [y], [0.8]]), frontal_light())[0].item() for y in (0.6, -0.6))
    assert above > below > 0


def test_a_direction_of_no_length_is_refused():
    with pytest.raises(BadInput, match="direction"):
        directional_light((0.0, 0.0, 0.0))
