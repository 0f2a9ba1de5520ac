"""Draw the pictures that the pack comes with, all of the built-in head and by the pack's own renderer:

    python tools/run.py tools/pictures.py

The registry's icon and banner go to docs/, those of the nodes' pages to web/docs/<node>/.
"""

import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from capface.flame.animate import turntable
from capface.flame.builtin import builtin_head
from capface.flame.edits import edit_head
from capface.flame.params import HeadParams
from capface.flame.preview import landmark_picture, normal_colors
from capface.flame.render import landmark_pixels, render_head
from capface.flame.transfer import transfer

ROOT = Path(__file__).resolve().parent.parent
ICON, BANNER = (400, 400), (1260, 540)
"""Width and height in pixels, as the registry wants them."""
TILE = 192
"""Pixels of a head in a page's picture."""
TOP, BOTTOM = (0.13, 0.16, 0.24), (0.05, 0.06, 0.10)
"""Background."""
MODEL, HEAD = builtin_head(), HeadParams.neutral()


def edited(**changes: float) -> HeadParams:
    """The average head, edited, under one lamp."""
    return edit_head(MODEL, HEAD, **({"light": "custom", "ambient": 0.25, "key_intensity": 1.0} | changes))


def row(heads: HeadParams, width: int, height: int, zoom: float = 1.0) -> Tensor:
    """Heads side by side over the background, `[height, width, 3]` in 0..1.

    Args:
        heads: What to draw, from left to right.
        width: Pixels.
        height: Pixels.
        zoom: Side of each head's frame, in columns.
    """
    column = width // heads.batch
    side = min(height, math.ceil(column * zoom))
    down = torch.linspace(0, 1, height)[:, None, None]
    canvas = (torch.tensor(TOP) * (1 - down) + torch.tensor(BOTTOM) * down).expand(height, width, 3).clone()
    for i in range(heads.batch):
        maps = render_head(MODEL, heads[i], side, side)
        face, alpha = maps.lambertian[0].movedim(0, -1), maps.alpha[0].movedim(0, -1)
        top, left = (height - side) // 2, i * column + (column - side) // 2
        first, last = max(left, 0), min(left + side, width)
        part = slice(first - left, last - left)
        place = canvas[top : top + side, first:last]
        place.copy_(torch.where(alpha[:, part] > 0, face[:, part], place))
    return canvas


def tiles(*heads: HeadParams) -> Tensor:
    """A row for a page."""
    heads = HeadParams.cat(list(heads))
    return row(heads, TILE * heads.batch, TILE)


def maps_of(head: HeadParams) -> Tensor:
    """What Render Head shows: normal, albedo and Lambertian map, mask and landmarks."""
    maps = render_head(MODEL, head, TILE, TILE)
    landmarks = landmark_picture(landmark_pixels(MODEL, head, TILE, TILE), TILE, TILE)
    shown = (normal_colors(maps), maps.albedo, maps.lambertian, maps.alpha.expand(-1, 3, -1, -1), landmarks)
    return torch.cat([picture[0].movedim(0, -1) for picture in shown], dim=1)


def save(picture: Tensor, *path: str):
    """Write a picture to a path from the repository's root."""
    Image.fromarray((picture.clamp(0, 1) * 255).round().byte().numpy()).save(ROOT.joinpath(*path), optimize=True)


def main():
    """Draw all of them."""
    turns = [-60.0, -30.0, 0.0, 30.0, 60.0]
    several = [edited(yaw=turn, key_azimuth=-1.5 * turn, smile_left=0.4, smile_right=0.4) for turn in turns]
    save(row(edited(yaw=-28.0, pitch=6.0), *ICON), "docs", "icon.png")
    save(row(HeadParams.cat(several), *BANNER, zoom=2.0), "docs", "banner.png")

    smile = {"smile_left": 1.0, "smile_right": 1.0, "mouth_open": 0.3}
    plain, turned = edited(), edited(yaw=40.0, pitch=10.0, roll=-10.0, key_azimuth=-60.0, **smile)
    light = edited(key_azimuth=-80.0, key_color="#ff9d52", ambient=0.1)
    pages = {
        "LoadHeadModel": tiles(plain),
        "EditHead": tiles(plain, edited(yaw=40.0, pitch=10.0), edited(**smile), light, edited(size=0.6, position_x=0.3)),
        "TransferHead": tiles(
            plain, turned, transfer(plain, turned, ["position", "pose"]), transfer(plain, turned, ["lighting"])
        ),
        "AnimateHead": tiles(turntable(MODEL, plain, 6, math.radians(-75), math.radians(75))),
        "RenderHead": maps_of(edited(yaw=25.0)),
    }
    for name, picture in pages.items():
        save(picture, "web", "docs", f"CapFace{name}", "picture.png")


if __name__ == "__main__":
    main()
