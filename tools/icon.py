"""Draw the pack's icon and banner for the registry with its own renderer, from the repository's root:

    python tools/run.py tools/icon.py

Both show the built-in head, in several poses and lights on the banner.
"""

import math
from pathlib import Path

import torch
from PIL import Image

from capface.flame.builtin import builtin_head
from capface.flame.edits import edit_head
from capface.flame.params import HeadParams
from capface.flame.render import render_head

ICON, BANNER = (400, 400), (1260, 540)
"""Width and height in pixels, as the registry wants them."""
TOP, BOTTOM = (0.13, 0.16, 0.24), (0.05, 0.06, 0.10)
"""Background."""


def icon() -> Image.Image:
    """One head, turned a little."""
    return _picture(ICON, [{"yaw": -28.0, "pitch": 6.0}])


def banner() -> Image.Image:
    """A row of heads that turn and change their light."""
    turns = [-60.0, -30.0, 0.0, 30.0, 60.0]
    lights = [{"yaw": turn, "key_azimuth": -1.5 * turn, "smile_left": 0.4, "smile_right": 0.4} for turn in turns]
    return _picture(BANNER, lights)


def _picture(size, edits):
    width, height = size
    model, column = builtin_head(), width // len(edits)
    across = torch.linspace(0, 1, height)[:, None, None]
    canvas = (torch.tensor(TOP) * (1 - across) + torch.tensor(BOTTOM) * across).expand(height, width, 3).clone()
    for i, edit in enumerate(edits):
        head = edit_head(model, HeadParams.neutral(), light="custom", ambient=0.25, key_intensity=1.0, **edit)
        side = min(height, math.ceil(column * 2))
        maps = render_head(model, head, side, side)
        face, alpha = maps.lambertian[0].movedim(0, -1), maps.alpha[0].movedim(0, -1)
        top, left = (height - side) // 2, i * column + (column - side) // 2
        first, last = max(left, 0), min(left + side, width)
        part = slice(first - left, last - left)
        place = canvas[top : top + side, first:last]
        place.copy_(torch.where(alpha[:, part] > 0, face[:, part], place))
    return Image.fromarray((canvas.clamp(0, 1) * 255).round().byte().numpy())


if __name__ == "__main__":
    docs = Path(__file__).resolve().parent.parent / "docs"
    icon().save(docs / "icon.png", optimize=True)
    banner().save(docs / "banner.png", optimize=True)
