import pytest
import torch

from capface.errors import BadInput
from capface.flame.model.camera import deca_camera, frame_to_ndc, frame_to_pixels, pixels_to_frame, project
from capface.tests.flame.heads import forward_numbers, golden_heads, golden_model, render_numbers
from capface.tests.synthetic import relative_error


def golden_camera():
    numbers = render_numbers()
    height, width = numbers["image_hw"].tolist()
    return deca_camera(torch.from_numpy(numbers["cam"]), torch.from_numpy(numbers["tform"]), height, width), height, width


def test_projection_equals_the_published_code():
    numbers = render_numbers()
    camera, height, width = golden_camera()
    seen = frame_to_ndc(project(torch.from_numpy(forward_numbers()["out_vertices"]), camera), height, width)
    assert relative_error(seen[..., :2], numbers["projected"][..., :2]) < 1e-5
    # Depths have another scale: only their order matters.
    for mine, theirs in zip(seen[..., 2], torch.from_numpy(numbers["projected"][..., 2]), strict=True):
        assert torch.corrcoef(torch.stack([mine, theirs]))[0, 1] > 1 - 1e-6
    heads = golden_heads().replace(camera=camera)
    landmarks = frame_to_ndc(project(golden_model().landmarks(heads), camera), height, width)
    assert relative_error(landmarks[..., :2], numbers["landmarks2d"]) < 1e-5


def test_axes_and_units():
    points = torch.tensor([[[0.1, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.1]]])
    seen = project(points, torch.tensor([[5.0, 0.25, -0.5]]))[0]
    expected = [[0.75, -0.5, 0.0], [0.25, -1.0, 0.0], [0.25, -0.5, -0.5]]  # right; up is -v; nearer is less deep
    torch.testing.assert_close(seen, torch.tensor(expected))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 64), (64, 160)])
def test_a_unit_is_half_the_short_side(height, width):
    middle, corner = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert frame_to_pixels(middle, height, width).tolist() == [width / 2, height / 2]
    short = min(height, width) / 2
    assert frame_to_pixels(corner, height, width).tolist() == [width / 2 + short, height / 2 + short]
    points = torch.randn(7, 2)
    torch.testing.assert_close(pixels_to_frame(frame_to_pixels(points, height, width), height, width), points)
    in_pixels = (frame_to_ndc(points, height, width) + 1) / 2 * torch.tensor([width, height])
    torch.testing.assert_close(in_pixels, frame_to_pixels(points, height, width))


@pytest.mark.parametrize(("height", "width"), [(300, 200), (200, 300)])
def test_decas_camera_in_a_frame_that_is_not_square(height, width):
    camera, crop = torch.tensor([[8.0, 0.01, -0.02]]), torch.tensor([[[1.5, 0, -40.0], [0, 1.5, -70.0], [0, 0, 1]]])
    x, y = 0.03, 0.05
    # Straight from the definition: crop NDC, crop pixel, image pixel.
    crop_pixel = torch.tensor([112 * 8 * (x + 0.01) + 112, -112 * 8 * (y - 0.02) + 112])
    image_pixel = (crop_pixel - torch.tensor([-40.0, -70.0])) / 1.5
    seen = project(torch.tensor([[[x, y, 0.0]]]), deca_camera(camera, crop, height, width))[0, 0, :2]
    torch.testing.assert_close(frame_to_pixels(seen, height, width), image_pixel)


@pytest.mark.parametrize("linear", [[[1.0, 0.2], [-0.2, 1.0]], [[1.0, 0.0], [0.0, 1.1]], [[-1.0, 0.0], [0.0, -1.0]]])
def test_crops_that_no_camera_can_express_are_refused(linear):
    crop = torch.eye(3)[None].clone()
    crop[0, :2, :2] = torch.tensor(linear)
    with pytest.raises(BadInput, match="upright square"):
        deca_camera(torch.tensor([[8.0, 0, 0]]), crop, 100, 100)
