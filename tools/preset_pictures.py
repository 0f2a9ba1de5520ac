"""Draw the thumbnails of Edit Head's presets, a row for each section, with the built-in head:

    python -m capface.tools.preset_pictures

They are saved in web/presets/<section>.jpg. Run it after changing web/presets.json, the renderer or the built-in head.
"""

import json
from typing import Any

from PIL import Image

from capface.flame.editing.edits import edit_head
from capface.flame.model.params import HeadParams
from capface.miniature.networks import HELD_OUT
from capface.miniature.people import Person
from capface.tools.pictures import LAMP, MODEL, ROOT, row

PRESETS = ROOT / "web" / "presets.json"
FOLDER = ROOT / "web" / "presets"
TILE = 112
"""Pixels of a thumbnail: enough for twice its size in a node."""
SMOOTHING = 3
"""Pixels along a side that are averaged to one."""
QUALITY = 84
CLOSE = {"Expression": 1.9, "Gaze": 2.6, "Pose": 1.3, "Light": 1.6, "Shape": 1.5}
"""How much larger the head is in a section's thumbnails than in the frame."""
LOWERED = {"Expression": 0.12, "Gaze": 0.25, "Light": 0.1}
"""How far a section's thumbnails move down, in halves of the frame, so that the face is in the middle."""


SHAPED = HeadParams.neutral().replace(shape=Person.sample(HELD_OUT + 3).shape_row())
"""The head of the thumbnails that show its shape."""


def values_of(group: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
    """Return the widget values that a preset sets, without those that it resets to their defaults."""
    return {**group["values"], **preset["values"]}


def thumbnails(group: dict[str, Any]) -> Image.Image:
    """Draw a section's presets side by side."""
    section, heads = group["section"], []
    for preset in group["presets"]:
        values = values_of(group, preset)
        if section != "Position":
            values |= {"size": CLOSE[section], "position_y": LOWERED.get(section, 0.0), "position_mode": "absolute"}
        if section != "Light":
            values = LAMP | values
        heads.append(edit_head(MODEL, SHAPED if section == "Shape" else HeadParams.neutral(), **values))
    side = SMOOTHING * TILE
    picture = Image.fromarray((row(HeadParams.cat(heads), side * len(heads), side).clamp(0, 1) * 255).round().byte().numpy())
    return picture.reduce(SMOOTHING)


def main() -> None:
    """Draw all of them."""
    FOLDER.mkdir(exist_ok=True)
    for group in json.loads(PRESETS.read_text(encoding="utf-8")):
        if group["presets"]:
            path = FOLDER / f"{group['section'].lower()}.jpg"
            thumbnails(group).save(path, quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main()
