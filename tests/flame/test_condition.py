import pytest
import torch

from capface.flame.builtin import builtin_head
from capface.flame.model.params import HeadParams
from capface.flame.render.condition import HeadCondition
from capface.flame.render.maps import render_head


@pytest.fixture(scope="module")
def condition():
    return HeadCondition(builtin_head(), HeadParams.neutral(2))


def test_the_hint_is_rendered_at_any_size(condition):
    for height, width in ((64, 64), (96, 64), (64, 128)):
        hint = condition.hint(height, width)
        assert hint.shape == (2, 9, height, width)
        assert torch.equal(hint, render_head(condition.model, condition.params, height, width).hint())


def test_only_the_last_hint_is_cached(condition):
    first = condition.hint(64, 64)
    assert condition.hint(64, 64) is first
    condition.hint(96, 64)
    assert condition.hint(64, 64) is not first


def test_twice_the_size_is_a_sharper_picture_of_the_same_head(condition):
    small, large = condition.hint(64, 64)[:, 3:6], condition.hint(128, 128)[:, 3:6]
    shrunk = torch.nn.functional.interpolate(large, size=(64, 64), mode="area")
    assert (small - shrunk).abs().mean() < 0.02
    enlarged = torch.nn.functional.interpolate(small, size=(128, 128), mode="bilinear")
    assert (large - enlarged).abs().max() > 0.2


def test_a_large_hint_is_not_kept(monkeypatch):
    from capface.flame.render import condition as module

    condition = HeadCondition(builtin_head(), HeadParams.neutral())
    first = condition.hint(32, 32)
    assert condition.hint(32, 32) is first
    monkeypatch.setattr(module, "MAX_HINT_BYTES", first.numel() * 4 - 1)
    condition.hint(16, 16)
    assert torch.equal(condition.hint(32, 32), first) and not condition._last
