"""Crop Head: regions from masks, numbers, segments, boxes and stitchers, and the head in them."""

import importlib.util
import os
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from capface.errors import BadInput
from capface.flame.builtin import builtin_head
from capface.flame.model.params import HeadParams
from capface.flame.render.maps import render_head

SEG = namedtuple("SEG", "cropped_image cropped_mask confidence crop_region bbox label control_net_wrapper")


def head(batch=1):
    camera = torch.tensor([[2.0, 0.45, -0.4]]).repeat(batch, 1)
    camera[:, 1] -= 0.05 * torch.arange(batch)
    return HeadParams.neutral(batch).replace(camera=camera)


def seg(x0, y0, x1, y1):
    """A segment as the Impact Pack makes it, possibly with numpy's numbers."""
    return SEG(None, None, 1.0, [np.int64(x0), y0, x1, y1], (x0, y0, x1, y1), "face", None)


@pytest.fixture(scope="module")
def crop(in_host):
    """Run the node with its defaults."""
    from capface.nodes.crop_head import CropHead

    defaults = {entry.id: entry.default for entry in CropHead.GET_SCHEMA().inputs if hasattr(entry, "default")}
    return lambda heads=None, **given: CropHead.execute(heads or head(), **(defaults | given)).result


def drawn(params, height, width):
    return render_head(builtin_head(), params, height, width).alpha[:, 0]


def shows_the_same(params, box, height, width, i=0):
    """Check that a head in a region is rendered where the picture of the whole head shows it."""
    x, y, w, h = box
    want, got = drawn(head(i + 1), height, width)[i, y : y + h, x : x + w], drawn(params, h, w)[i]
    return want.mean() > 0.05 and (want - got).abs().mean() < 2e-3


def test_numbers_are_used_unchanged(crop):
    params, *box, _ = crop(x=170, y=20, width=90, height=111, picture_width=300, picture_height=200)
    assert box == [170, 20, 90, 111]
    assert shows_the_same(params, box, 200, 300)


def test_a_masks_bounds_grow_by_factor_and_padding(crop):
    mask = torch.zeros(1, 200, 300)
    mask[:, 40:80, 180:230] = 0.01  # feathered masks start with small values
    assert crop(region=mask, crop_factor=1.0, square=False)[1:5] == (180, 40, 50, 40)
    assert crop(region=mask[0], crop_factor=1.0, square=False)[1:5] == (180, 40, 50, 40)
    assert crop(region=mask, crop_factor=1.0, square=False, padding=7)[1:5] == (173, 33, 64, 54)
    assert crop(region=mask, crop_factor=2.0, square=False)[1:5] == (155, 20, 100, 80)
    params, *box, _ = crop(region=mask, crop_factor=2.0)
    assert box == [155, 10, 100, 100]
    assert shows_the_same(params, box, 200, 300)
    assert crop(region=mask, crop_factor=3.6)[1:5] == (115, 0, 180, 180)  # moved into the picture
    assert crop(region=mask, crop_factor=20.0)[1:5] == (100, 0, 200, 200)
    assert crop(region=mask, crop_factor=20.0, square=False)[1:5] == (0, 0, 300, 200)


def test_segments_give_the_detailers_crop(crop):
    segs = ((200, 300), [seg(0, 0, 50, 60), seg(150, 5, 290, 131)])
    params, *box, _ = crop(region=segs, index=1, crop_factor=3.0)
    assert box == [150, 5, 140, 126]
    assert shows_the_same(params, box, 200, 300)
    each = crop(head(2), region=segs, index=-1)[0]
    torch.testing.assert_close(each.camera[1:], crop(head(2)[1], region=segs, index=1)[0].camera)


def test_boxes_of_comfyuis_detectors(crop):
    one = {"x": 179.4, "y": 29.6, "width": 60.2, "height": 80.0, "label": "face", "score": 0.9}
    given = {"picture_width": 300, "picture_height": 200, "crop_factor": 1.0, "square": False}
    for region in (one, [one], [[one]], [dict(one, x=0), one]):
        index = 1 if len(region) == 2 else 0
        assert crop(region=region, index=index, **given)[1:5] == (179, 29, 61, 81)
    frames = [[one], [dict(one, x=160)]]
    params = crop(head(2), region=frames, **given)[0]
    assert shows_the_same(params, (160, 29, 61, 81), 200, 300, i=1)


def test_a_stitchers_crop_may_reach_beyond_the_picture(crop):
    whole = {"canvas_to_orig_x": [30], "canvas_to_orig_y": [0], "canvas_to_orig_w": [300], "canvas_to_orig_h": [200]}
    part = {"cropped_to_canvas_x": [10], "cropped_to_canvas_y": [5], "cropped_to_canvas_w": [320], "cropped_to_canvas_h": [160]}
    params, *box, _ = crop(region=whole | part)
    assert box == [-20, 5, 320, 160]
    want = torch.nn.functional.pad(drawn(head(), 200, 300), (20, 0))[0, 5:165, :320]
    assert (want - drawn(params, 160, 320)[0]).abs().mean() < 2e-3


def test_inpaint_crops_own_stitcher_gives_its_crop(crop):
    roots = [Path(p) for p in os.environ.get("PACKS", "").split(os.pathsep) if p] or [Path.home() / "comfy" / "packs"]
    files = [root / "ComfyUI-Inpaint-CropAndStitch" / "inpaint_cropandstitch.py" for root in roots]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        pytest.skip("no ComfyUI-Inpaint-CropAndStitch: put it into ~/comfy/packs, or name the folder with the packs in PACKS")
    pytest.importorskip("scipy", reason="Inpaint Crop and Stitch needs the package scipy")
    spec = importlib.util.spec_from_file_location("inpaint_cropandstitch", file)
    assert spec is not None and spec.loader is not None
    pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    node = pack.InpaintCropImproved()
    given = {name: entry for group in node.INPUT_TYPES().values() for name, entry in group.items() if len(entry) > 1}
    given = {name: options["default"] for name, (_, options) in given.items() if "default" in options}
    given["device_mode"] = "cpu (compatible)"
    mask = drawn(head(), 200, 300)
    for target in ((256, 256), (512, 256)):
        given["output_target_width"], given["output_target_height"] = target
        stitcher, cut, _ = node.inpaint_crop(image=mask[..., None].expand(-1, -1, -1, 3), mask=mask, **given)[:3]
        params = crop(region=stitcher)[0]
        got = drawn(params, *cut.shape[1:3])
        assert got.mean() > 0.05 and (cut[..., 0] - got).abs().mean() < 0.015, target


def test_the_picture_is_cropped_with_the_head(crop):
    image = drawn(head(), 200, 300)[..., None].expand(-1, -1, -1, 3).contiguous()
    mask = drawn(head(), 200, 300)
    params, _, _, w, h, cut = crop(region=mask, image=image)
    assert w == h and cut.shape == (1, 512, 512, 3)
    assert (cut[0, ..., 0] - drawn(params, 512, 512)[0]).abs().mean() < 0.01
    assert crop(image=image, x=10, y=20, width=100, height=50, size=256)[5].shape == (1, 256, 512, 3)
    assert torch.equal(crop(image=image, x=10, y=20, width=100, height=51, size=0)[5], image[:, 20:71, 10:110])


def test_each_frame_has_its_own_region(crop):
    masks = drawn(head(3), 200, 300)
    params, *_, cut = crop(head(3), region=masks, image=masks[..., None].expand(-1, -1, -1, 3), size=128)
    assert cut.shape == (3, 128, 128, 3)
    assert ((cut[..., 0] - drawn(params, 128, 128)).abs().mean((1, 2)) < 0.02).all()
    shared = crop(head(3), region=masks[:1])[0]
    torch.testing.assert_close(shared.camera[:, 0], shared.camera[:1, 0].expand(3))


def test_a_saved_head_is_cropped_alike(crop):
    from capface.flame.io.heads_json import heads_from_json, heads_to_json

    again = heads_from_json(heads_to_json(head()).encode(), "kept").params
    torch.testing.assert_close(crop(again, x=9, width=200)[0].camera, crop(x=9, width=200)[0].camera)


def test_without_a_picture_only_its_output_is_an_error(crop):
    blocked = crop()[5]
    assert "only if the whole picture is connected" in blocked.message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": 300}, r"512 × 512 at \(300, 0\) reaches beyond the picture of 512 × 512"),
        ({"region": torch.zeros(1, 64, 64)}, "the mask is empty"),
        ({"region": torch.stack([torch.ones(8, 8), torch.zeros(8, 8)])}, "mask 2 of 2 is empty"),
        ({"region": torch.zeros(1, 64, 64, 3)}, "Convert Image to Mask"),
        ({"region": ((200, 300), [])}, "Expected SEGS with segments, got none"),
        ({"region": ((200, 300), [seg(0, 0, 9, 9)]), "index": 1}, "index below 1, the number of segments"),
        ({"region": ((200, 300), [{}])}, "Expected SEGS as the Impact Pack makes them"),
        ({"region": []}, "Expected BOUNDING_BOX with boxes, got none"),
        ({"region": [[{"x": 0, "y": 0, "width": 9, "height": 9}], []]}, "frame 2 of 2, with boxes, got none"),
        ({"region": {"x": 400, "y": 0, "width": 200, "height": 9}, "crop_factor": 1.0, "square": False, "index": 0}, None),
        ({"region": {"x": 600, "y": 0, "width": 200, "height": 9}}, r"200 × 9 at \(600, 0\) reaches beyond the picture"),
        ({"region": "face"}, "Expected a MASK, SEGS of the Impact Pack, a BOUNDING_BOX or a STITCHER, got str"),
        ({"region": {"left": 3}}, "got dict"),
        ({"region": torch.ones(1, 64, 64), "image": torch.zeros(1, 128, 64, 3)}, "64 × 64, but the image is 64 × 128"),
        ({"region": torch.ones(3, 64, 64), "heads": head(2)}, "one region for all 2 heads, or one for each; got 3"),
        ({"region": torch.ones(3, 64, 64), "image": torch.zeros(2, 64, 64, 3)}, "one region for all 2 pictures"),
    ],
)
def test_invalid_regions_give_a_message(crop, given, message):
    if message is None:  # a detector's box that reaches beyond the border is clipped
        assert crop(**given)[1:5] == (312, 0, 200, 9)
        return
    with pytest.raises(BadInput, match=message):
        crop(**given)
