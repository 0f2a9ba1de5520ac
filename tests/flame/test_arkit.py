import pytest
import torch

from capface.errors import BadInput
from capface.flame.builtin import builtin_head
from capface.flame.editing import ARKIT, arkit_of_heads, express, heads_from_arkit
from capface.flame.editing.arkit import SHOWN
from capface.flame.model import HeadParams
from capface.models.faces.face_landmarker import BLENDSHAPES
from capface.tests.flame.heads import random_heads

AMBIGUOUS = ("eyeSquint", "mouthUpperUp", "mouthFunnel", "mouthFrown", "browDown", "browInnerUp", "browOuterUp")
"""Blendshapes that heads show as they show others."""


@pytest.fixture(scope="module")
def model():
    return builtin_head()


def of(**values):
    return {name: torch.tensor([value]) for name, value in values.items()}


def made(model, **values):
    return heads_from_arkit(model, of(**values), HeadParams.neutral())


def test_the_names_are_arkits_52():
    assert len(set(ARKIT)) == 52
    assert {*BLENDSHAPES, "tongueOut"} - {"_neutral"} == set(ARKIT)
    assert set(SHOWN) < set(ARKIT)


def test_blendshapes_move_the_face_as_named(model):
    rest = model.landmarks(HeadParams.neutral())[0]

    def moved(**values):
        return model.landmarks(made(model, **values))[0] - rest

    left = moved(mouthSmileLeft=1.0)
    assert left[54, 1] > 0.003 and left[54, 0] > 0.002  # the person's left corner, x > 0
    assert left[48].norm() < 0.002
    assert moved(jawOpen=1.0)[57, 1] < -0.01
    blink = moved(eyeBlinkRight=1.0)
    assert blink[37, 1] < -0.003 and blink[43].norm() < 0.002
    assert moved(browInnerUp=1.0)[20:24, 1].min() > 0.002
    aside = moved(jawLeft=1.0)
    assert aside[57, 0] > 0.003


def test_eyes_look_where_the_names_say(model):
    left = made(model, eyeLookOutLeft=1.0, eyeLookInRight=1.0).eyes.view(2, 3)
    assert torch.allclose(left[:, 1], torch.full((2,), torch.pi / 6))
    assert torch.allclose(made(model, eyeLookOutRight=0.5).eyes.view(2, 3)[1], torch.tensor([0.0, -torch.pi / 12, 0.0]))
    up = made(model, eyeLookUpLeft=1.0, eyeLookUpRight=1.0).eyes.view(2, 3)
    assert torch.allclose(up[:, 0], torch.full((2,), -torch.pi / 6))


def test_everything_else_of_the_base_stays(model):
    base = random_heads(3)
    heads = heads_from_arkit(model, {"jawOpen": torch.tensor([0.0, 0.5, 1.0])}, base)
    for name in ("shape", "texture", "rotation", "neck", "camera", "light"):
        assert torch.equal(getattr(heads, name), getattr(base, name))
    assert not heads.expression[0].any() and not heads.jaw[0].any() and not heads.eyes.any()
    assert heads.jaw[2, 0] > heads.jaw[1, 0] > 0


@pytest.mark.parametrize("name", [name for name in SHOWN if not name.startswith(AMBIGUOUS)])
def test_a_blendshape_is_found_again_alone(model, name):
    found = arkit_of_heads(model, made(model, **{name: 0.6}))
    assert list(found) == list(ARKIT)
    assert abs(found.pop(name).item() - 0.6) < 0.03
    assert max(value.item() for value in found.values()) < 0.08


def test_the_blendshapes_of_a_head_show_its_expression_again(model):
    random = torch.Generator().manual_seed(0)
    wanted = {name: torch.rand(8, generator=random) * (torch.rand(8, generator=random) < 0.4) for name in SHOWN}
    base = HeadParams.neutral(8)
    heads = heads_from_arkit(model, wanted, base)
    again = heads_from_arkit(model, arkit_of_heads(model, heads), base)
    difference = (model.landmarks(heads) - model.landmarks(again)).norm(dim=-1)
    moved = (model.landmarks(heads) - model.landmarks(base)).norm(dim=-1)
    assert difference.mean() < 0.1 * moved.mean()
    assert torch.allclose(heads.eyes, again.eyes, atol=1e-5)


def test_the_expression_of_sliders_becomes_blendshapes(model):
    head = express(model, HeadParams.neutral(), {"smile_left": 1.0, "smile_right": 0.5, "mouth_open": 0.75})
    found = arkit_of_heads(model, head)
    assert abs(found["mouthSmileLeft"].item() - 1.0) < 0.05
    assert abs(found["mouthSmileRight"].item() - 0.5) < 0.05
    assert abs(found["jawOpen"].item() - 0.5) < 0.05


def test_values_are_clamped_and_unknown_names_refused(model):
    assert torch.equal(made(model, jawOpen=7.0).jaw, made(model, jawOpen=1.0).jaw)
    assert torch.equal(made(model, tongueOut=1.0).expression, HeadParams.neutral().expression)
    with pytest.raises(BadInput, match="eyeBlinkLeft; got jawopen"):
        made(model, jawopen=1.0)
