"""Draw the effect of each slider of Edit Head on the built-in head, as one picture.

    python tasks.py bench edit_sheet [--only pose|expression|light] [picture.png]

Writes output/edit_sheet.png by default.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from capface.flame import HeadModel, HeadParams, render_head
from capface.flame.builtin import builtin_head
from capface.flame.editing.edits import change_face, place_head, scale_shape, turn_head
from capface.flame.editing.expressions import SLIDERS
from capface.flame.editing.lighting import CUSTOM, NEUTRAL, PRESETS, Lamp, Lighting, relight
from capface.tools.sheet import BACKGROUND, INK, over_background, to_picture

ROOT = Path(__file__).resolve().parent.parent
TILE, GAP, CAPTION, COLUMNS = 232, 8, 20, 8
ZOOM, FACE_ZOOM, FACE_SHIFT = 1.18, 2.0, -0.36
"""Size of the head that shows it whole, size that shows its face, and the latter's offset downwards, in frame units."""


def face_of(model: HeadModel, head: HeadParams) -> HeadParams:
    """Move the head so near that its face fills the frame."""
    return place_head(model, head, y=FACE_SHIFT, size=FACE_ZOOM, mode="absolute")


def _only(name: str, value: float) -> dict[str, Any]:
    """One argument by its name."""
    return {name: value}


def poses(model: HeadModel, head: HeadParams) -> list[tuple[str, HeadParams]]:
    """Return the head under rotation, placement, jaw, gaze and shape edits."""
    tiles = [("as it is", head)]
    for name, ends in (
        ("yaw", (-80, -40, 40, 80)), ("pitch", (-40, 40)), ("roll", (-40, 40)), ("neck_yaw", (-40, 40)),
        ("neck_pitch", (-30, 30)), ("neck_roll", (-30, 30)),
    ):  # fmt: skip
        tiles += [(f"{name} {end:+d}°", turn_head(model, head, **_only(name, end))) for end in ends]
    for name, ends in (("x", (-0.4, 0.4)), ("y", (-0.3, 0.3)), ("size", (0.5, 1.5))):
        tiles += [(f"{name} {end:{'+' * (name != 'size')}g}", place_head(model, head, **_only(name, end))) for end in ends]
    for name, ends in (("jaw_open", (10, 25)), ("jaw_side", (-8, 8)), ("gaze_yaw", (-30, 30)), ("gaze_pitch", (-20, 20))):
        tiles += [(f"{name} {end:+d}°", change_face(model, face_of(model, head), {}, **_only(name, end))) for end in ends]
    somebody = head.replace(shape=1.5 * torch.randn(head.shape.shape, generator=torch.Generator().manual_seed(5)))
    tiles += [(f"shape_strength {strength:g}", scale_shape(model, somebody, strength)) for strength in (0, 1, 1.5)]
    return tiles


def expressions(model: HeadModel, head: HeadParams) -> list[tuple[str, HeadParams]]:
    """Return every expression slider at its ends and at 1, then a few combinations."""
    head = face_of(model, head)
    tiles = [("as it is", head)]
    for name, slider in SLIDERS.items():
        ends = sorted({slider.least, 1.0})
        tiles += [(f"{name} {end:+g}", change_face(model, head, {name: end})) for end in ends]
    both = {stem: (f"{stem}_left", f"{stem}_right") for stem in ("smile", "eyes_closed", "brows_up", "squint", "sneer")}
    for title, amounts in (
        ("smile", {"smile": 1}), ("smile 0.5", {"smile": 0.5}), ("laugh", {"smile": 1.3, "squint": 0.6, "mouth_open": 0.5}),
        ("eyes closed", {"eyes_closed": 1}), ("eyes half closed", {"eyes_closed": 0.5}), ("wink", {"eyes_closed_left": 1}),
        ("squint", {"squint": 1}), ("surprise", {"brows_up": 1, "mouth_open": 1, "eyes_closed": -0.4}),
        ("brows up", {"brows_up": 1}), ("angry", {"brows_down": 1, "squint": 0.5, "sneer": 0.6, "frown": 0.4}),
        ("sad", {"frown": 1, "brows_up": 0.3, "eyes_closed": 0.25}), ("sneer", {"sneer": 1}),
    ):  # fmt: skip
        spread = {side: amount for name, amount in amounts.items() for side in both.get(name, (name,))}
        tiles.append((title, change_face(model, head, spread)))
    for title, yaw, amounts in (("smile", 50, "smile"), ("eyes closed", 50, "eyes_closed")):
        face = change_face(model, head, dict.fromkeys(both[amounts], 1.0))
        tiles.append((f"{title} from the side", turn_head(model, face, yaw=yaw)))
    for title, amounts in (("cheeks", {"cheeks": 1}), ("pucker", {"pucker": 1})):
        tiles.append((f"{title} from the side", turn_head(model, change_face(model, head, amounts), yaw=50)))
    return tiles


def lights(model: HeadModel, head: HeadParams) -> list[tuple[str, HeadParams]]:
    """Return every light preset, then one lamp from several directions."""
    tiles = [(name, relight(model, head, name)) for name in (NEUTRAL, *PRESETS)]
    for lamp in (Lamp(-90), Lamp(-45), Lamp(45), Lamp(90), Lamp(150), Lamp(0, 80), Lamp(0, -80), Lamp(60, 20, softness=1.0),
                 Lamp(60, 20, color="#4080ff")):  # fmt: skip
        title = f"{lamp.azimuth:+g}°, {lamp.elevation:+g}° {lamp.color}" + " soft" * (lamp.softness > 0)
        tiles.append((title, relight(model, head, CUSTOM, custom=Lighting((lamp,), 0.15))))
    return tiles


def draw(model: HeadModel, sections: list[list[tuple[str, HeadParams]]]) -> Image.Image:
    """Draw the sections below each other, each starting a new row."""
    rows = [section[i : i + COLUMNS] for section in sections for i in range(0, len(section), COLUMNS)]
    size = (GAP + COLUMNS * (TILE + GAP), GAP + len(rows) * (TILE + CAPTION + GAP))
    sheet, font = Image.new("RGB", size, BACKGROUND), ImageFont.load_default(13)
    pen = ImageDraw.Draw(sheet)
    for row, tiles in enumerate(rows):
        for column, (title, head) in enumerate(tiles):
            maps = render_head(model, head, 2 * TILE, 2 * TILE)
            picture = to_picture(over_background(maps.lambertian[0], maps.alpha[0]))
            x, y = GAP + column * (TILE + GAP), GAP + row * (TILE + CAPTION + GAP)
            sheet.paste(picture.resize((TILE, TILE), Image.Resampling.BOX), (x, y + CAPTION))
            pen.text((x + 2, y + 2), title, fill=INK, font=font)
    return sheet


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("picture", nargs="?", type=Path, default=ROOT / "output" / "edit_sheet.png")
    sections = {"pose": poses, "expression": expressions, "light": lights}
    parser.add_argument("--only", choices=sections, help="draw one section alone")
    wanted = parser.parse_args()
    model = builtin_head()
    head = place_head(model, HeadParams.neutral(), size=ZOOM, mode="absolute")
    start = time.perf_counter()
    sheet = draw(model, [make(model, head) for name, make in sections.items() if wanted.only in (None, name)])
    wanted.picture.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(wanted.picture)
    print(f"{wanted.picture}: {sheet.width} × {sheet.height}, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
