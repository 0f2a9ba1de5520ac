import pytest
import torch

from capface.errors import BadInput
from capface.flame.editing.transfers import TRANSFER_GROUPS, transfer
from capface.flame.model.params import SIZES
from capface.tests.flame.heads import random_heads

TAKEN = {
    "position": {"camera"},
    "pose": {"rotation", "neck"},
    "expression": {"expression", "jaw", "eyes"},
    "lighting": {"light"},
    "shape": {"shape", "texture"},
}


@pytest.mark.parametrize("group", TAKEN)
def test_a_group_transfers_only_its_fields(group):
    a, b = random_heads(2), random_heads(2)
    mixed = transfer(a, b, [group])
    for name in SIZES:
        assert torch.equal(getattr(mixed, name), getattr(b if name in TAKEN[group] else a, name)), name


def test_all_groups_give_the_other_head_and_none_the_first():
    a, b = random_heads(1), random_heads(1)
    for groups, whose in ((TRANSFER_GROUPS, b), ((), a)):
        mixed = transfer(a, b, groups)
        assert all(torch.equal(getattr(mixed, name), getattr(whose, name)) for name in SIZES)


@pytest.mark.parametrize(("of_a", "of_b"), [(3, 1), (1, 3), (3, 3)])
def test_a_single_head_serves_a_whole_sequence(of_a, of_b):
    a, b = random_heads(of_a), random_heads(of_b)
    mixed = transfer(a, b, ["pose"])
    assert torch.equal(mixed.rotation, b.rotation.expand(3, -1)) and torch.equal(mixed.jaw, a.jaw.expand(3, -1))


def test_sequences_of_different_lengths_are_refused():
    with pytest.raises(BadInput, match=r"one length.*got 2 and 3.*Animate Head"):
        transfer(random_heads(2), random_heads(3), ["pose"])


def test_an_unknown_group_is_refused():
    with pytest.raises(BadInput, match=r"position, pose.*got camera"):
        transfer(random_heads(1), random_heads(1), ["camera"])
