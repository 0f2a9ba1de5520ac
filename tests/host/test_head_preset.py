"""Head Preset: the presets of Edit Head by name."""

import pytest
import torch

from capface.flame.builtin import builtin_head
from capface.flame.editing.edits import angles_of
from capface.flame.model.params import HeadParams

KINDS = ("pose", "framing", "expression", "gaze", "light")


@pytest.fixture
def preset(in_host):
    """`preset(head, **chosen)` runs the node, with 'as it is' for what is not chosen."""
    from capface.host.head_presets import KEEP
    from capface.nodes.head_preset import HeadPreset

    def made(head, **chosen):
        return HeadPreset.execute(head, builtin_head(), **(dict.fromkeys(KINDS, KEEP) | chosen)).result[0]

    return made


@pytest.fixture
def head():
    noise = torch.randn(2, 100, generator=torch.Generator().manual_seed(3))
    return HeadParams.neutral(2).replace(shape=noise, rotation=noise[:, :3] / 10, jaw=noise[:, 3:6].abs() / 20)


def same(a, b, *names):
    return all(torch.allclose(getattr(a, name), getattr(b, name), atol=1e-5) for name in names)


def test_nothing_chosen_changes_nothing(preset, head):
    made = preset(head)
    assert same(made, head, "shape", "expression", "texture", "rotation", "neck", "jaw", "eyes", "camera", "light")


def test_each_kind_changes_its_own_group(preset, head):
    turned = preset(head, pose="three-quarter left")
    assert same(turned, head, "shape", "expression", "jaw", "light") and not same(turned, head, "rotation")
    yaw, _, _ = angles_of(turned.rotation).unbind(-1)
    assert yaw.sub(-40).abs().max() < 0.1
    lit = preset(head, light="Rembrandt")
    assert same(lit, head, "rotation", "expression", "jaw") and not same(lit, head, "light")
    smiling = preset(head, expression="smile", pose="front")
    assert not same(smiling, head, "expression")


def test_every_choice_works_and_differs(in_host, preset, head):
    from capface.host.head_presets import KEEP, choices

    for kind in KINDS:
        names = choices(kind)
        assert names[0] == KEEP and len(names) > 4
        made = [preset(head, **{kind: name}) for name in names[1:]]
        states = [torch.cat([m.rotation, m.camera, m.expression, m.jaw, m.eyes, m.light.flatten(1)], dim=1) for m in made]
        assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(states) for b in states[:i]), kind
