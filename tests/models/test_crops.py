import numpy as np
import pytest
import torch
from PIL import Image

from capface.errors import BadInput
from capface.models.faces.crops import (
    deca_crop,
    deca_square,
    deca_square_from_box,
    deca_transform,
    facenet_face,
    ffhq_crop,
    ffhq_transform,
    move_box,
    transform_points,
    warp,
)

FACE = torch.tensor([[200.0, 240.0], [300.0, 236.0], [252.0, 290.0], [214.0, 330.0], [290.0, 328.0]])


@pytest.fixture(scope="module")
def photo(golden):
    with np.load(golden / "crops.npz") as file:
        numbers = {name: torch.from_numpy(file[name]) for name in file.files}
    return numbers | {"image": numbers["image"].permute(2, 0, 1).float() / 255}


def ramp(height, width):
    """An image whose colours are its own pixel coordinates (x / 1000, y / 1000, 0)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x / 1000, y / 1000, torch.zeros_like(x)]).float()


def photograph(height, width):
    return torch.from_numpy(np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8))


# FaceNet's face


def test_facenet_face_equals_the_released_code(photo):
    face = facenet_face(photo["image"], photo["facenet_box"])
    assert (face - photo["facenet_face"].float()).abs().max() == 0


@pytest.mark.parametrize("box", [(10.0, 20.0, 330.9, 390.2), (3.7, 5.2, 40.1, 90.0), (100.0, 0.0, 260.0, 160.0)])
def test_facenet_face_equals_pillows_resize_up_and_down(box):
    pixels = photograph(400, 360)
    left, top, right, bottom = (int(v) for v in box)
    resized = Image.fromarray(pixels.numpy()).crop((left, top, right, bottom)).resize((160, 160), Image.Resampling.BILINEAR)
    face = facenet_face(pixels.permute(2, 0, 1) / 255, torch.tensor(box))
    levels = (face * 128 + 127.5).permute(1, 2, 0) - torch.from_numpy(np.array(resized)).float()
    assert levels.abs().max() <= 1  # Pillow's filter weights have 22 bits: occasionally a half is rounded the other way
    assert levels.abs().mean() < 5e-3


def test_facenet_face_uses_the_inside_part_of_a_box_that_leaves_the_image(photo):
    outside = facenet_face(photo["image"], torch.tensor([-30.0, -8.5, 90.0, 100.0]))
    assert torch.equal(outside, facenet_face(photo["image"], torch.tensor([0.0, 0.0, 90.0, 100.0])))


def test_facenet_faces_of_a_batch_equal_those_one_by_one(photo):
    images = torch.stack([photo["image"], photo["image"].flip(-1)])
    boxes = torch.tensor([[52.3, 60.7, 148.9, 181.2], [10.0, 20.0, 90.0, 120.0]])
    batch = facenet_face(images, boxes)
    assert batch.shape == (2, 3, 160, 160)
    assert torch.equal(batch[1], facenet_face(images[1], boxes[1]))


@pytest.mark.parametrize("box", [(250.0, 10.0, 300.0, 60.0), (20.0, 20.0, 20.4, 60.0), (80.0, 50.0, 40.0, 90.0)])
def test_facenet_face_refuses_a_box_without_pixels(photo, box):
    with pytest.raises(BadInput, match=r"no pixel in the 200 × 240 image"):
        facenet_face(photo["image"], torch.tensor(box))


# DECA's crop


def test_deca_transform_equals_the_released_code(photo):
    transform = deca_transform(*deca_square(photo["landmarks68"]))
    assert torch.allclose(transform, photo["deca_tform"].float(), atol=1e-5)


def test_deca_crop_equals_the_released_code(photo):
    crop = deca_crop(photo["image"], photo["deca_tform"].float())
    assert (crop - photo["deca_crop"].float()).abs().mean() < 1e-3
    assert (crop - photo["deca_crop"].float()).abs().max() < 1e-2


def test_deca_square_around_a_box_follows_the_released_rule():
    centre, side = deca_square_from_box(torch.tensor([100.0, 50.0, 180.0, 151.0]))
    assert side == 113  # floor(1.25 · (80 + 101) / 2) = floor(113.125)
    assert centre.tolist() == pytest.approx([140.0, 100.5 + 0.12 * 90.5])


def test_deca_transform_takes_the_squares_corners_to_the_crops():
    centre, side = torch.tensor([100.0, 80.0]), torch.tensor(60.0)
    corners = torch.tensor([[70.0, 50.0], [70.0, 110.0], [130.0, 50.0]])
    expected = torch.tensor([[0.0, 0.0], [0.0, 223.0], [223.0, 0.0]])
    assert torch.allclose(transform_points(deca_transform(centre, side), corners), expected, atol=1e-4)


def test_deca_transforms_of_a_batch_equal_those_one_by_one(photo):
    points = torch.stack([photo["landmarks68"], photo["landmarks68"] * 0.5 + 20])
    batch = deca_transform(*deca_square(points))
    assert torch.equal(batch[1], deca_transform(*deca_square(points[1])))
    crops = deca_crop(photo["image"].expand(2, -1, -1, -1), batch)
    assert torch.allclose(crops[1], deca_crop(photo["image"], batch[1]), atol=1e-6)


def test_deca_transform_refuses_landmarks_on_one_point():
    with pytest.raises(BadInput, match="no extent"):
        deca_transform(*deca_square(torch.ones(68, 2)))


# Aligned portraits


def test_ffhq_transform_is_a_similarity_that_levels_the_eyes():
    transform = ffhq_transform(torch.tensor([[100.0, 150.0], [140.0, 110.0], [150, 160], [140.0, 190.0], [180.0, 150.0]]))
    a, b, c, d = transform[:2, :2].flatten().tolist()
    assert (a, b) == pytest.approx((d, -c))
    eyes = transform_points(transform, torch.tensor([[100.0, 150.0], [140.0, 110.0]]))
    assert eyes[0, 1] == pytest.approx(eyes[1, 1].item(), abs=1e-3)
    assert eyes[0, 0] < eyes[1, 0]


def test_ffhq_frame_puts_an_upright_face_where_the_recipe_says():
    # eyes 100 apart, mouth 80 below: side = max(4 · 100, 3.6 · 80) = 400, centre 8 under the eyes
    points = torch.tensor([[450.0, 500.0], [550.0, 500.0], [500.0, 540.0], [470.0, 580.0], [530.0, 580.0]])
    transform = ffhq_transform(points, 512)
    assert transform[0, 0].item() == pytest.approx(512 / 400)
    assert transform_points(transform, torch.tensor([[500.0, 508.0]]))[0].tolist() == pytest.approx([255.5, 255.5], abs=1e-3)
    # the frame's left edge, 200 pixels from the centre, is the crop's (-0.5)
    assert transform_points(transform, torch.tensor([[300.0, 308.0]]))[0].tolist() == pytest.approx([-0.5, -0.5], abs=1e-3)


def test_ffhq_frame_of_a_profile_is_set_by_the_distance_to_the_mouth():
    points = torch.tensor([[500.0, 500.0], [510.0, 500.0], [520.0, 540.0], [500.0, 600.0], [510.0, 600.0]])
    assert ffhq_transform(points, 512)[0, 0].item() == pytest.approx(512 / 360)


def test_ffhq_alignment_is_the_same_from_5_and_from_68_points():
    landmarks = torch.zeros(68, 2)
    landmarks[36:42], landmarks[42:48], landmarks[48], landmarks[54] = FACE[0], FACE[1], FACE[3], FACE[4]
    assert torch.allclose(ffhq_transform(landmarks), ffhq_transform(FACE), atol=1e-4)


@pytest.mark.parametrize("size", [64, 512, 700])  # coarser than the image, about equal, finer
def test_ffhq_crop_shows_each_point_where_its_transform_says(size):
    image = ramp(600, 500)
    crop, transform = ffhq_crop(image, FACE, size)
    at = transform_points(transform, FACE).round().long()
    seen = torch.stack([crop[:2, y, x] for x, y in at]) * 1000
    back = transform_points(torch.linalg.inv(transform), at.float())
    assert (seen - back).abs().max() < 0.5


def test_ffhq_crop_of_a_large_photo_averages_instead_of_skipping():
    stripes = torch.zeros(3, 2400, 2000)
    stripes[:, :, ::2] = 1
    crop, _ = ffhq_crop(stripes, FACE * 4, 128)
    assert (crop[:, 40:-40, 40:-40] - 0.5).abs().max() < 0.1


@pytest.mark.parametrize(("outside", "value"), [("border", 0.25), ("black", 0.0), ("white", 1.0)])
def test_a_frame_that_leaves_the_image_is_padded_and_not_squashed(outside, value):
    image = torch.full((3, 300, 300), 0.25)
    near_edge = FACE - torch.tensor([190.0, 225.0])
    crop, transform = ffhq_crop(image, near_edge, 256, outside)
    assert crop[:, 0, 0].tolist() == [value] * 3
    assert torch.equal(transform, ffhq_transform(near_edge, 256))


@pytest.mark.parametrize("count", [3, 106])
def test_ffhq_refuses_another_number_of_points(count):
    with pytest.raises(BadInput, match=rf"5 or 68 points.*\[{count}, 2\]"):
        ffhq_transform(torch.rand(count, 2))


def test_ffhq_refuses_points_on_one_spot():
    with pytest.raises(BadInput, match="one point"):
        ffhq_transform(torch.ones(5, 2))


# Warp


def test_warp_by_the_identity_is_the_image():
    image = torch.rand(2, 3, 20, 30)
    assert torch.allclose(warp(image, torch.eye(3), 20, 30), image, atol=1e-5)


def test_warp_moves_pixels_as_the_transform_says():
    image = torch.rand(3, 20, 30)
    shift = torch.tensor([[1.0, 0, -4], [0, 1, -2], [0, 0, 1]])
    assert torch.allclose(warp(image, shift, 10, 12), image[:, 2:12, 4:16], atol=1e-5)


def test_warp_refuses_an_unknown_outside():
    with pytest.raises(BadInput, match="border, black, white"):
        warp(torch.rand(3, 4, 4), torch.eye(3), 4, 4, outside="reflect")


def test_a_moved_box_follows_the_similarity_and_stays_upright():
    angle = torch.tensor(0.5)
    rotation = 2 * torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    transform = torch.eye(3)
    transform[:2, :2], transform[:2, 2] = rotation, torch.tensor([5.0, -3.0])
    box = move_box(transform, torch.tensor([10.0, 20.0, 30.0, 60.0]))
    assert torch.allclose(box[2:] - box[:2], torch.tensor([40.0, 80.0]), atol=1e-4)
    assert torch.allclose((box[:2] + box[2:]) / 2, rotation @ torch.tensor([20.0, 40.0]) + torch.tensor([5.0, -3.0]), atol=1e-4)
