"""The presets of Edit Head by name: named poses, framings, expressions, gazes and lights."""

import functools
import json
from pathlib import Path
from typing import Any

PRESETS = Path(__file__).resolve().parent.parent / "web" / "presets.json"
KEEP = "as it is"
SECTIONS = {"pose": "Pose", "framing": "Position", "expression": "Expression", "gaze": "Gaze", "light": "Light"}
"""What can be chosen -> the section of Edit Head's presets."""


@functools.cache
def _presets() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the values of `edit_head` by what can be chosen and by the preset's name."""
    groups = {group["section"]: group for group in json.loads(PRESETS.read_text(encoding="utf-8"))}
    return {
        kind: {preset["name"]: {**groups[section]["values"], **preset["values"]} for preset in groups[section]["presets"]}
        for kind, section in SECTIONS.items()
    }


def choices(kind: str) -> list[str]:
    """Return the presets of a kind, the first of which changes nothing."""
    return [KEEP, *_presets()[kind]]


def values_of(**chosen: str) -> dict[str, Any]:
    """Return the arguments of `edit_head` for chosen presets.

    Args:
        **chosen: Names of presets by their kind. `KEEP` changes nothing.
    """
    values: dict[str, Any] = {}
    for kind, name in chosen.items():
        if name != KEEP:
            values |= _presets()[kind][name]
    return values
