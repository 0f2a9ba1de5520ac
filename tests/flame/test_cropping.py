import pytest
import torch

from capface.errors import BadInput
from capface.flame.builtin import builtin_head
from capface.flame.editing.cropping import crop_head
from capface.flame.model.camera import frame_to_pixels, project
from capface.flame.model.params import SIZES, HeadParams
from capface.flame.render.condition import HeadCondition
from capface.tests.flame.heads import random_heads

FRAMES = [(256, 256), (320, 192), (192, 320), (211, 307)]


def placed(s=2.2, x=0.35, y=-0.3):
    """A small head away from the centre, as detailers find it."""
    return HeadParams.neutral(1).replace(camera=torch.tensor([[s, x, y]]), rotation=torch.tensor([[0.1, 0.4, -0.1]]))


def region(*box):
    return torch.tensor([box], dtype=torch.float64)


@pytest.mark.parametrize(("height", "width"), FRAMES)
@pytest.mark.parametrize(
    "box", [(0.4, 0.1, 0.5, 0.5), (0.55, 0.2, 0.2, 0.31), (0.0, 0.0, 0.97, 0.43), (0.31, 0.07, 0.37, 0.61)]
)
def test_the_crops_hint_is_the_hints_crop(height, width, box):
    x, y, w, h = round(box[0] * width), round(box[1] * height), round(box[2] * width), round(box[3] * height)
    model, head = builtin_head(), placed()
    want = HeadCondition(model, head).hint(height, width)[..., y : y + h, x : x + w]
    got = HeadCondition(model, crop_head(head, region(x, y, w, h), height, width)).hint(h, w)
    inside = want.abs().sum(1) > 0
    assert inside.float().mean() > 0.02
    # In float32, pixels whose centre is on an edge may fall on either side of it.
    assert ((want - got).abs().amax(1) > 1e-3).float().mean() < 1e-3


@pytest.mark.parametrize("times", [2, 4])
def test_an_enlarged_crop_is_a_crop_of_the_enlarged_whole(times):
    model, head = builtin_head(), placed()
    x, y, w, h = 100, 20, 88, 72
    whole = HeadCondition(model, head).hint(160 * times, 224 * times)
    want = whole[..., y * times : (y + h) * times, x * times : (x + w) * times]
    got = HeadCondition(model, crop_head(head, region(x, y, w, h), 160, 224)).hint(h * times, w * times)
    assert ((want - got).abs().amax(1) > 1e-3).float().mean() < 1e-3


@pytest.mark.parametrize(("height", "width"), FRAMES)
def test_points_keep_their_pixels(height, width):
    heads, points = random_heads(3), torch.randn(1, 20, 3).expand(3, -1, -1) * 0.1
    boxes = torch.tensor([[3.0, 5.0, 40.0, 60.0], [-10.0, 2.5, 77.0, 31.0], [width - 20.0, height - 33.0, 20.0, 33.0]])
    cropped = crop_head(heads, boxes, height, width)
    for i, (x, y, w, h) in enumerate(boxes.tolist()):
        whole = frame_to_pixels(project(points, heads.camera)[i, :, :2], height, width)
        part = frame_to_pixels(project(points, cropped.camera)[i, :, :2], h, w)
        torch.testing.assert_close(part + torch.tensor([x, y]), whole, rtol=1e-5, atol=1e-3)


def test_cropping_to_the_whole_picture_changes_nothing_and_other_crops_only_the_camera():
    heads = random_heads(2)
    same = crop_head(heads, region(0, 0, 123, 77), 77, 123)
    cropped = crop_head(heads, region(5, 6, 40, 30), 77, 123)
    torch.testing.assert_close(same.camera, heads.camera)
    for name in set(SIZES) - {"camera"}:
        assert torch.equal(getattr(cropped, name), getattr(heads, name)), name


def test_cropping_back_restores_the_head():
    head, (x, y, w, h) = random_heads(2), (33, 12, 70, 51)
    there = crop_head(head, region(x, y, w, h), 200, 150)
    back = crop_head(there, region(-x, -y, 150, 200), h, w)
    torch.testing.assert_close(back.camera, head.camera, rtol=1e-5, atol=1e-5)


def test_a_crop_of_a_crop_is_one_crop():
    head = random_heads(1)
    twice = crop_head(crop_head(head, region(20, 30, 100, 90), 160, 240), region(7, 11, 50, 60), 90, 100)
    once = crop_head(head, region(27, 41, 50, 60), 160, 240)
    torch.testing.assert_close(twice.camera, once.camera, rtol=1e-5, atol=1e-5)


def test_only_the_proportions_of_the_picture_matter():
    head = random_heads(1)
    small, large = crop_head(head, region(2, 3, 10, 8), 30, 40), crop_head(head, region(20, 30, 100, 80), 300, 400)
    torch.testing.assert_close(small.camera, large.camera)


def test_one_region_for_all_heads_one_for_each_and_several_for_one():
    heads, boxes = random_heads(3), torch.tensor([[0.0, 0.0, 20.0, 20.0], [10.0, 5.0, 20.0, 20.0], [4.0, 4.0, 30.0, 10.0]])
    each = crop_head(heads, boxes, 64, 64).camera
    for i in range(3):
        torch.testing.assert_close(each[i : i + 1], crop_head(heads[i], boxes[i : i + 1], 64, 64).camera)
    assert crop_head(heads, boxes[:1], 64, 64).batch == 3
    of_one = crop_head(heads[1], boxes, 64, 64)
    assert of_one.batch == 3
    torch.testing.assert_close(of_one.camera[1], each[1])
    with pytest.raises(BadInput, match="one region for all 3 heads, or one for each; got 2"):
        crop_head(heads, boxes[:2], 64, 64)


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (0, 0, 5, -1)])
def test_a_region_without_pixels_is_refused(box):
    with pytest.raises(BadInput, match="at least a pixel"):
        crop_head(random_heads(1), region(*box), 64, 64)
