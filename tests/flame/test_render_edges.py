"""Heads and frames at the limits: a clear error or a sensible picture."""

import pytest
import torch

from capface.errors import BadInput
from capface.flame import HeadParams, render_head
from capface.flame.builtin import builtin_head
from capface.tests.flame.heads import golden_model, random_heads


@pytest.fixture(scope="module")
def model():
    return builtin_head()


def seen_at(camera):
    return HeadParams.neutral().replace(camera=torch.tensor([camera]))


@pytest.mark.parametrize("camera", [[5.0, 40.0, 0.0], [5.0, -40.0, 3.0], [5.0, 0.0, 1e6], [1e-6, 0.0, -2.0]])
def test_a_head_outside_the_frame_leaves_it_empty(model, camera):
    maps = render_head(model, seen_at(camera), 48, 64)
    assert maps.hint().count_nonzero() == 0 and maps.alpha.count_nonzero() == 0


def test_a_head_at_the_border_is_cut_off_there(model):
    # A head moved right by half a frame shows what the left half of a wider view shows.
    middle = render_head(model, seen_at([5.0, 0.0, 0.0]), 64, 64)
    moved = render_head(model, seen_at([5.0, 1.0, 0.0]), 64, 64)
    torch.testing.assert_close(moved.hint()[..., 32:], middle.hint()[..., :32], atol=2e-3, rtol=0)
    assert 0 < moved.alpha.sum() < middle.alpha.sum()


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e12])
def test_a_huge_head_fills_the_frame(model, scale):
    maps = render_head(model, seen_at([scale, 0.0, 0.0]), 32, 48)
    assert maps.alpha.all() and torch.isfinite(maps.hint()).all()


def test_a_tiny_head_is_at_most_a_dot(model):
    maps = render_head(model, seen_at([1e-3, 0.0, 0.0]), 33, 33)
    assert maps.alpha.sum() <= 1 and torch.isfinite(maps.hint()).all()


@pytest.mark.parametrize("scale", [0.0, -5.0])
def test_a_camera_that_sees_nothing_or_from_behind_is_refused(scale):
    with pytest.raises(BadInput, match="scales above 0"):
        seen_at([scale, 0.0, 0.0])


def test_a_head_between_the_viewer_and_the_camera_plane_is_still_visible(model):
    # The camera is orthographic: the head's distance has no effect.
    far = render_head(model, HeadParams.neutral(), 48, 48)
    near = render_head(model_shifted(model, 100.0), HeadParams.neutral(), 48, 48)
    assert ((far.alpha != near.alpha).float().mean()) < 0.01


def model_shifted(model, towards):
    from dataclasses import replace

    rig = replace(model.rig, template=model.rig.template + torch.tensor([0.0, 0.0, towards]),
                  joints=model.rig.joints + torch.tensor([0.0, 0.0, towards]))  # fmt: skip
    return replace(model, rig=rig)


def test_extreme_coefficients_give_numbers(model):
    head = HeadParams.neutral(2).replace(shape=torch.full((2, 100), 50.0), expression=-40 * torch.ones(2, 50))
    maps = render_head(model, head, 64, 64)
    assert torch.isfinite(maps.hint()).all() and maps.normal.abs().max() <= 1 + 1e-5


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("shape", 1e30, r"too large.*values: shape 1e\+30\."),
        ("expression", 1e32, r"too large.*values: expression 1e\+32\."),
        ("rotation", 1e20, r"too large.*angles.*values: rotation 1e\+20\."),
        ("neck", 1e20, r"too large.*values: neck 1e\+20\."),
        ("jaw", 1e20, r"too large.*values: jaw 1e\+20\."),
        ("eyes", 1e20, r"too large.*values: eyes 1e\+20\."),
        ("camera", 3e38, r"camera: expected numbers from -1e\+18 to 1e\+18, got 3e\+38\."),
    ],
)
def test_numbers_beyond_all_bounds_are_refused(model, field, value, words):
    head = HeadParams.neutral()
    with pytest.raises(BadInput, match=words):
        render_head(model, head.replace(**{field: torch.full_like(getattr(head, field), value)}), 16, 16)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 16), (8, 64), (4096, 512), (512, 4096)])
def test_frames_of_any_size_are_drawn(model, height, width):
    maps = render_head(model, HeadParams.neutral(), height, width)
    assert maps.hint().shape == (1, 9, height, width) and maps.alpha.any() and torch.isfinite(maps.hint()).all()


def test_every_rotation_of_a_head_is_visible(model):
    heads = HeadParams.neutral(8).replace(rotation=torch.randn(8, 3) * 3)
    assert (render_head(model, heads, 40, 40).alpha.mean((1, 2, 3)) > 0.1).all()


def test_a_frame_without_a_pixel_is_refused():
    with pytest.raises(BadInput, match="at least 1"):
        render_head(golden_model(), random_heads(1), 0, 64)


@pytest.mark.parametrize("field", ["rotation", "neck", "jaw", "eyes", "camera"])
@pytest.mark.parametrize("value", [1e3, 1e6, 1e10, 1e20, 3e38])
def test_huge_numbers_are_drawn_or_refused(model, field, value):
    head = HeadParams.neutral()
    try:
        maps = render_head(model, head.replace(**{field: torch.full_like(getattr(head, field), value)}), 16, 16)
    except BadInput as error:
        assert field in str(error) and f"{value:.3g}" in str(error)
    else:
        assert torch.isfinite(maps.hint()).all()


def test_a_frame_beyond_all_memory_is_refused_at_once(model):
    for height, width in ((1 << 20, 1 << 20), (1 << 40, 1)):
        with pytest.raises(BadInput, match="at most 268,435,456 pixels"):
            render_head(model, HeadParams.neutral(), height, width)


def test_heads_without_numbers_are_refused():
    head = HeadParams.neutral()
    for shape in (head.shape.to_sparse(), head.shape.to("meta")):
        with pytest.raises(BadInput, match="sparse or meta"):
            head.replace(shape=shape)
    for batch in (0, -1):
        with pytest.raises(BadInput, match="at least one head"):
            HeadParams.neutral(batch)
