"""The part of a picture that belongs to a person."""

import pytest
import torch

from capface.errors import BadInput
from capface.tests.host import pipeline
from capface.tests.host.pipeline import walk
from capface.tests.synthetic import noise, relative_error


def head(x, y, width=12, height=16, size=(96, 144)):
    """Draw a head as a rectangle around (x, y): MASK `[1, H, W]`."""
    mask = torch.zeros(1, *size)
    mask[:, y - height // 2 : y + height // 2, x - width // 2 : x + width // 2] = 1
    return mask


@pytest.fixture
def area(in_host):
    """`area(mask, *others, **settings)` runs the node."""
    from capface.nodes.person_mask import PersonMask

    def made(mask, *others, **settings):
        names = dict(zip(("other", "other_2", "other_3"), others, strict=False))
        return PersonMask.execute(mask, **settings, **names).result[0]

    return made


LEFT, RIGHT = head(40, 30), head(100, 30)


def test_sides_meet_in_the_middle_and_cover_the_picture(area):
    left, right = (area(a, b, area="side", feather=0.0) for a, b in ((LEFT, RIGHT), (RIGHT, LEFT)))
    assert left[0, :, :69].min() == 1 and left[0, :, 71:].max() == 0
    assert (left + right).min() >= 1 and (left * right).mean() < 0.02
    assert area(LEFT, area="side").min() == 1


def test_a_soft_border_is_shared(area):
    left, right = (area(a, b, area="side", feather=2.0) for a, b in ((LEFT, RIGHT), (RIGHT, LEFT)))
    assert torch.allclose(left + right, torch.ones_like(left), atol=1e-5)
    assert 0 < left[0, 30, 68] < 1


def test_a_person_is_the_head_and_the_body_below(area):
    person, only = (area(LEFT, RIGHT, area=name, feather=0.0) for name in ("person", "head"))
    assert torch.all(person >= only) and torch.all(only >= LEFT)
    assert person[0, -1, 40] == 1 and only[0, -1, 40] == 0
    assert person[0, 0].max() == 0, "nothing far above the head"
    assert person[0, -1].sum() == pytest.approx(2 * 1.6 * 12, abs=3)
    assert only[0].any(0).sum() == pytest.approx(12 + 2 * 0.25 * 12, abs=2)
    wider = area(LEFT, area="head", grow=1.0, feather=0.0)
    assert wider[0].any(0).sum() == pytest.approx(12 + 2 * 12, abs=2)


def test_bodies_that_meet_are_divided(area):
    near = head(60, 30)
    left, right = (area(a, b, feather=0.0) for a, b in ((LEFT, near), (near, LEFT)))
    assert (left * right).mean() < 0.01 and left[0, -1, 45] == 1 and right[0, -1, 45] == 0
    assert area(LEFT, feather=0.0)[0, -1, 55] == 1, "alone, the body is whole"


def test_three_people_and_frames_of_a_batch(area):
    middle = head(70, 30)
    assert area(LEFT, RIGHT, middle, area="side", feather=0.0)[0, 30, 60] == 0
    moving = torch.cat([LEFT, middle, torch.zeros_like(LEFT)])
    made = area(moving, RIGHT, area="side", feather=0.0)
    assert made.shape == moving.shape
    assert made[0, 30, 75] == 0 and made[1, 30, 75] == 1 and made[2].max() == 0


def test_sizes_of_masks_may_differ(area):
    large = torch.nn.functional.interpolate(RIGHT[None], scale_factor=4)[0]
    assert torch.equal(area(LEFT, large), area(LEFT, RIGHT))


def test_a_large_picture_has_the_same_areas(area):
    large = [torch.nn.functional.interpolate(mask[None], scale_factor=8)[0] for mask in (LEFT, RIGHT)]
    small = torch.nn.functional.interpolate(area(*large)[None], size=LEFT.shape[-2:], mode="area")[0]
    assert (small - area(LEFT, RIGHT)).abs().mean() < 0.02


def test_wrong_numbers_of_frames_and_areas_are_refused(area):
    with pytest.raises(BadInput, match="1 or 2 frames, got 3"):
        area(LEFT.expand(2, -1, -1), RIGHT.expand(3, -1, -1))
    with pytest.raises(BadInput, match="expected an area of person, head, side"):
        area(LEFT, area="hat")


def test_words_act_only_where_their_person_is(in_host, denoiser, capface, someone, area):
    """Conditioning Set Mask with this mask: other words change the picture there, and not elsewhere."""
    condition, identity, text = someone
    masks = [area(a, b, area="side", feather=0.0) for a, b in ((LEFT, RIGHT), (RIGHT, LEFT))]
    set_mask, combine = in_host.nodes.ConditioningSetMask(), in_host.nodes.ConditioningCombine()
    shape = (1, 4, 8, 12)

    def sampled(words):
        people = [set_mask.append([[w, {}]], m, "default", 1.0)[0] for w, m in zip(words, masks, strict=True)]
        positive = combine.combine(*people)[0]
        conds = pipeline.apply(text, capface, condition, identity, previous=(positive, [[text, {}]]))
        return pipeline.sample(denoiser, *conds, walk(shape=shape), shape=shape)

    first, second = (sampled([noise(seed, text.shape), text]) for seed in (1, 2))
    inside = torch.nn.functional.interpolate(masks[0][None], size=shape[-2:], mode="bilinear")[0, 0] > 0.99
    outside = torch.nn.functional.interpolate(masks[1][None], size=shape[-2:], mode="bilinear")[0, 0] > 0.99
    assert relative_error(first[..., inside], second[..., inside]) > 1e-3
    assert torch.equal(first[..., outside], second[..., outside])
