"""Edit Head's presets: their values fit the node's widgets, and their pictures are up to date."""

import json

import numpy as np
import pytest
from PIL import Image

from capface.tests.conftest import ROOT
from capface.tools.preset_pictures import FOLDER, PRESETS, thumbnails, values_of

GROUPS = {group["section"]: group for group in json.loads(PRESETS.read_text(encoding="utf-8"))}
LANGUAGES = {path.name for path in (ROOT / "locales").iterdir()}


@pytest.fixture(scope="module")
def widgets(in_host):
    """Edit Head's widgets by name."""
    from capface.nodes.edit_head import EditHead

    return {widget.id: widget for widget in EditHead.define_schema().inputs}


def test_presets_are_values_that_edit_head_accepts(widgets):
    from capface.host.editor.route import _fits

    for group in GROUPS.values():
        for name, value in group["values"].items():
            assert _fits(widgets[name], value), name
        for preset in group["presets"]:
            values = values_of(group, preset)
            assert values.keys() <= {*group["resets"], *group["values"]}, preset["name"]
            for name, value in values.items():
                assert _fits(widgets[name], value), (preset["name"], name)


def test_the_asked_for_presets_exist_once_and_in_four_languages():
    names = {section: [preset["name"] for preset in group["presets"]] for section, group in GROUPS.items()}
    assert {"Rembrandt", "butterfly", "split", "rim", "loop", "flat"} == set(names["Light"])
    assert {"front", "three-quarter left", "three-quarter right", "up", "down", "tilt"} < set(names["Pose"])
    assert len(names["Expression"]) == 8
    for group in GROUPS.values():
        seen = [json.dumps(values_of(group, preset), sort_keys=True) for preset in group["presets"]]
        assert len(set(seen)) == len(seen)
        for language in LANGUAGES:
            titles = [preset["titles"][language] for preset in group["presets"]]
            assert all(titles) and len(set(titles)) == len(titles), language
        assert all(preset["titles"].keys() == LANGUAGES for preset in group["presets"])


@pytest.mark.parametrize("section", ["Pose", "Light"])
def test_thumbnails_are_those_that_the_command_draws(section):
    """If this fails: python -m capface.tools.preset_pictures"""
    shipped = Image.open(FOLDER / f"{section.lower()}.jpg")
    drawn = thumbnails(GROUPS[section])
    assert shipped.size == drawn.size
    assert np.abs(np.asarray(shipped).astype(float) - np.asarray(drawn)).mean() < 4
