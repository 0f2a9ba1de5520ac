"""Saved states of a run are read as data, and a broken one is named."""

import pytest
import torch

from capface.errors import BadFile, BadInput
from capface.training.state import load_state, save_state, steps_done

SETTINGS = {"seed": 0, "rate": 0.1, "folder": "a"}
OPTIMIZER = {"state": {0: {"mean": torch.ones(2, 3)}}, "groups": [{"lr": 0.1, "b": (0.9, 0.99)}]}
STATE = {"step": 3, "settings": SETTINGS, "optimizer": OPTIMIZER}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_a_state_is_restored_as_it_was(tmp_path):
    assert load_state(tmp_path, SETTINGS) is None
    save_state(tmp_path, STATE)
    assert steps_done(tmp_path) == 3
    again = load_state(tmp_path, SETTINGS)
    assert again is not None and same(again, STATE)
    (tmp_path / "state-00000003.pt").write_bytes(b"")  # the tensors are copies
    assert again["optimizer"]["state"][0]["mean"].sum() == 6


def test_other_settings_are_named(tmp_path):
    save_state(tmp_path, STATE)
    with pytest.raises(BadInput, match=r"rate was 0\.1, is 0\.2"):
        load_state(tmp_path, SETTINGS | {"rate": 0.2})


@pytest.mark.parametrize("settings", [None, [1], {(("a",),): 1, "seed": 0}, {3: 1, "seed": 0}])
def test_a_state_without_settings_is_refused(tmp_path, settings):
    save_state(tmp_path, {**STATE, "settings": settings})
    with pytest.raises(BadFile, match=r"state-00000003\.pt.*state of a training run"):
        load_state(tmp_path, SETTINGS)


def test_a_broken_state_is_refused(tmp_path):
    save_state(tmp_path, STATE)
    path = tmp_path / "state-00000003.pt"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BadFile, match="cannot be read"):
        load_state(tmp_path, SETTINGS)
