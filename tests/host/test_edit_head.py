"""Edit Head in the host: its widgets and their effects."""

import inspect

import pytest
import torch

from capface.errors import BadInput
from capface.flame import HeadParams, render_head
from capface.flame.builtin import builtin_head
from capface.flame.editing.edits import edit_head
from capface.flame.editing.expressions import SLIDERS
from capface.flame.editing.lighting import PRESETS
from capface.flame.model.params import SIZES
from capface.tests.flame.heads import random_heads


@pytest.fixture(scope="module")
def node(in_host):
    """The node's class, as the host calls it."""
    from capface.nodes.edit_head import EditHead

    return EditHead.PREPARE_CLASS_CLONE(None)


@pytest.fixture(scope="module")
def widgets(node):
    """Type and options of each widget by its name."""
    return node.INPUT_TYPES()["optional"]


def edit(node, head, **values):
    """The edited head and the preview."""
    output = node.execute(head=head, head_model=builtin_head(), **values)
    return output.args


def test_every_widget_has_the_default_of_edit_head(widgets):
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(edit_head).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    } | dict.fromkeys(SLIDERS, 0.0)
    assert (defaults.pop("photo"), defaults.pop("photo_light")) == (None, None)
    assert {name: options["default"] for name, (_, options) in widgets.items() if name != "photo"} == defaults


def test_every_widget_has_a_tooltip_and_a_default_in_range(widgets):
    for name, (kind, options) in widgets.items():
        assert options["tooltip"], name
        if kind == "FLOAT":
            assert options["min"] <= options["default"] <= options["max"], name
            steps = (options["default"] - options["min"]) / options["step"]
            assert steps == pytest.approx(round(steps), abs=1e-6), name


def test_the_defaults_change_nothing(node, widgets):
    head = random_heads(2)
    defaults = {name: options["default"] for name, (_, options) in widgets.items() if name != "photo"}
    for values in ({}, defaults):
        edited, preview = edit(node, head, **values)
        for name in SIZES:
            assert torch.equal(getattr(edited, name), getattr(head, name))
        assert preview.shape == (2, 384, 384, 3)
        assert 0 <= preview.min() < 0.01 and 0.2 < preview.max() <= 1


# The fields that each widget may change, and the other values that it needs.
CHANGES = {
    "rotation camera": dict.fromkeys(("yaw", "pitch", "roll"), 10.0),
    "neck camera": dict.fromkeys(("neck_yaw", "neck_pitch", "neck_roll"), 10.0),
    "camera": {"position_x": 0.2, "position_y": -0.2, "size": 1.5},
    "jaw": {"jaw_open": 10.0, "jaw_side": 5.0},
    "eyes": {"gaze_yaw": 10.0, "gaze_pitch": -10.0},
    "expression": dict.fromkeys(SLIDERS, 0.5),
    "light": {"light": "studio", "light_strength": 0.5},
    "shape camera": {"shape_strength": 0.5},
}
CUSTOM = {
    "ambient": 0.9, "key_azimuth": -60.0, "key_elevation": 60.0, "key_intensity": 1.2, "key_softness": 1.0, "key_color": "#f00",
}  # fmt: skip


def test_every_widget_changes_only_its_own_part(node, widgets):
    head = random_heads(1)
    seen = set()
    for group, values in CHANGES.items():
        for widget, value in values.items():
            edited, _ = edit(node, head, **{widget: value})
            changed = {name for name in SIZES if not torch.equal(getattr(edited, name), getattr(head, name))}
            allowed = {*group.split(), *({"jaw"} if widget == "mouth_open" else ())}
            assert changed and changed <= allowed, widget
            seen.add(widget)
    plain, _ = edit(node, head, light="custom")
    for widget, value in CUSTOM.items():
        edited, _ = edit(node, head, light="custom", **{widget: value})
        assert (edited.light - plain.light).abs().max() > 0.05, widget
        seen.add(widget)
    for mode, reset in (("pose_mode", "rotation"), ("position_mode", "camera"), ("expression_mode", "expression")):
        edited, _ = edit(node, head, **{mode: "absolute"})
        assert not torch.equal(getattr(edited, reset), getattr(head, reset))
        seen.add(mode)
    assert seen == set(widgets) - {"photo"}


def test_light_comes_from_the_photo_of_the_head_before_it_was_turned(node):
    truth = PRESETS["Rembrandt"].coefficients()
    fitted = HeadParams.neutral()
    photo = render_head(builtin_head(), fitted.replace(light=truth[None]), 192, 256).lambertian.clamp(0, 1)
    edited, _ = edit(node, fitted, light="from photo", photo=photo.movedim(1, -1), yaw=60.0)
    assert (edited.light[0] - truth).norm() / truth.norm() < 0.15
    with pytest.raises(BadInput, match="photo"):
        edit(node, fitted, light="from photo")


def test_an_empty_photo_is_refused(node):
    for shape in ((0, 64, 64, 3), (1, 0, 64, 3), (1, 64, 0, 3)):
        with pytest.raises(BadInput, match="at least one pixel, got an empty one"):
            edit(node, HeadParams.neutral(), photo=torch.zeros(shape), light="from photo")


def test_pictures_that_do_not_fit_into_memory_are_refused_before_anything_is_drawn(node, monkeypatch):
    import comfy.model_management as mm

    from capface.nodes.render_head import RenderHead

    def allocate(*_, **__):
        raise AssertionError("allocated")

    monkeypatch.setattr(mm, "get_free_memory", lambda *_, **__: 9e9)
    monkeypatch.setattr("capface.nodes.render_head.render_head", allocate)
    monkeypatch.setattr("capface.nodes.edit_head.edit_head", allocate)
    with pytest.raises(BadInput, match=r"1 heads of 8192 × 8192 pixels need about 9\.4 GB of memory, but 9\.0 GB are free"):
        RenderHead.execute(HeadParams.neutral(), builtin_head(), 8192, 8192)
    with pytest.raises(BadInput, match=r"300 heads of 512 × 512 pixels need about"):
        RenderHead.execute(HeadParams.neutral(300), builtin_head(), 512, 512)
    with pytest.raises(BadInput, match=r"2000 heads of 384 × 384 pixels"):
        edit(node, HeadParams.neutral(2000))
    with pytest.raises(AssertionError, match="allocated"):
        RenderHead.execute(HeadParams.neutral(), builtin_head(), 4096, 4096)
