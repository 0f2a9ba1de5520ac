import dataclasses

import pytest
import torch

from capface.errors import BadInput
from capface.flame import HeadParams
from capface.flame.model.params import SIZES
from capface.tests.flame.heads import random_heads


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in SIZES)


def test_fields_are_those_of_the_design():
    assert [field.name for field in dataclasses.fields(HeadParams)] == [
        "shape", "expression", "texture", "rotation", "neck", "jaw", "eyes", "camera", "light",
    ]  # fmt: skip


def test_neutral_is_at_rest_and_in_the_middle():
    head = HeadParams.neutral(2)
    for name in ("shape", "expression", "texture", "rotation", "neck", "jaw", "eyes"):
        assert getattr(head, name).count_nonzero() == 0
    assert head.camera[:, 1:].count_nonzero() == 0 and (head.camera[:, 0] > 0).all()
    assert head.batch == len(head) == 2


def test_indexing_keeps_the_batch_dimension():
    heads = random_heads(4)
    assert same(heads[2], heads[[2]]) and same(heads[-1], heads[3:]) and same(heads[torch.tensor([0, 1])], heads[:2])
    assert [len(head) for head in heads] == [1, 1, 1, 1]
    with pytest.raises(IndexError):
        heads[4]


def test_cat_undoes_indexing():
    heads = random_heads(3)
    assert same(HeadParams.cat([heads[0], heads[1:]]), heads)
    with pytest.raises(BadInput):
        HeadParams.cat([])


@pytest.mark.parametrize(("batch", "order"), [(5, [0, 1, 2, 0, 1]), (2, [0, 1]), (3, [0, 1, 2])])
def test_expand_repeats_from_the_first_or_cuts(batch, order):
    heads = random_heads(3)
    assert same(heads.expand(batch), heads[order])


def test_replace_changes_only_one_field():
    head, turned = HeadParams.neutral(), torch.tensor([[0.1, 0.2, 0.3]])
    changed = head.replace(rotation=turned)
    assert torch.equal(changed.rotation, turned) and same(changed.replace(rotation=head.rotation), head)
    with pytest.raises(BadInput, match="pose"):
        head.replace(pose=turned)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("shape", torch.zeros(1, 99), r"shape.*\[B, 100\].*\[1, 99\]"),
        ("light", torch.zeros(1, 27), r"light.*\[B, 9, 3\].*\[1, 27\]"),
        ("jaw", torch.zeros(1, 3, dtype=torch.float64), "jaw.*float32.*float64"),
        ("jaw", [0.0, 0.0, 0.0], "jaw.*float32.*list"),
        ("neck", torch.zeros(2, 3), "neck.*batch of 1.*got 2"),
        ("rotation", torch.full((1, 3), float("nan")), "rotation.*NaN"),
        ("camera", torch.tensor([[0.0, 0, 0]]), "camera.*above 0"),
        ("eyes", torch.zeros(1, 6, device="meta"), "eyes.*meta"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_invalid_fields_are_refused_with_a_message(name, value, words):
    with pytest.raises(BadInput, match=words):
        HeadParams.neutral().replace(**{name: value})


def test_an_empty_batch_is_refused():
    with pytest.raises(BadInput, match="batch of 0"):
        HeadParams.neutral(0)


@pytest.mark.parametrize(("name", "limit"), [("camera", 1e18), ("light", 1e4), ("texture", 1e4)])
def test_numbers_beyond_the_stated_ranges_are_refused(name, limit):
    value = getattr(HeadParams.neutral(), name)
    HeadParams.neutral().replace(**{name: torch.full_like(value, limit)})
    with pytest.raises(BadInput, match=rf"{name}: expected numbers from -{limit:g} to {limit:g}".replace("+", r"\+")):
        HeadParams.neutral().replace(**{name: torch.full_like(value, 3e38)})
