"""Draw the pictures that the workflows load, as examples: two people who do not exist, a pose and a depth picture:

    python -m capface.tools.example_pictures

They are saved in workflows/pictures. ComfyUI gets a copy of those that its input folder lacks (`host/example_pictures.py`).
"""

from pathlib import Path

from PIL import Image

from capface.miniature.networks import HELD_OUT
from capface.miniature.people import Person, Setting, draw_people
from capface.tools.standins import receding_floor, skeleton

FOLDER = Path(__file__).resolve().parent.parent / "workflows" / "pictures"
SIDE = 512
PEOPLE = {
    "photo.png": (HELD_OUT + 3, {"yaw": 8.0, "pitch": 2.0, "light": "front"}, Setting("blue", "white studio")),
    "photo2.png": (HELD_OUT + 1, {"yaw": -14.0, "pitch": -3.0, "light": "front"}, Setting("green", "white studio")),
}
"""Person, pose and setting of each photo."""


def person(seed: int, pose: dict, setting: Setting) -> Image.Image:
    """Draw a photo of a synthetic person."""
    who = Person.sample(seed)
    pixels = draw_people([who], who.head(**pose), [setting], SIDE)[0].movedim(0, -1)
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().numpy())


def main() -> None:
    """Draw them."""
    FOLDER.mkdir(exist_ok=True)
    for name, given in PEOPLE.items():
        person(*given).quantize(256, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB").save(FOLDER / name, optimize=True)
    skeleton().save(FOLDER / "openpose.png", optimize=True)
    receding_floor(SIDE).save(FOLDER / "depth.png", optimize=True)


if __name__ == "__main__":
    main()
