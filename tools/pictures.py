"""Draw the pictures of the documentation with the built-in head and the pack's own renderer:

    python -m capface.tools.pictures

The registry's icon and banner, and the overview of docs/workflows.md, are saved in docs/. The pictures of the nodes' pages are
saved in web/docs/<node>/, beside the screenshots that `tools/node_pictures.py` takes.
"""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from capface.flame.builtin import builtin_head
from capface.flame.control_images import control_image
from capface.flame.editing.animation import turntable
from capface.flame.editing.cropping import crop_head
from capface.flame.editing.edits import edit_head
from capface.flame.editing.transfers import transfer
from capface.flame.fitting.landmark_fit import fit_landmarks
from capface.flame.model.camera import pixels_to_frame
from capface.flame.model.params import HeadParams
from capface.flame.render.maps import landmark_pixels, render_head
from capface.flame.render.pictures import landmark_picture, normal_colors, overlay
from capface.host.identity.identity import GRID, token_order
from capface.miniature.networks import HELD_OUT
from capface.miniature.people import BACKGROUNDS, SHIRTS, Person, Setting, draw_people
from capface.models.faces.crops import facenet_face, ffhq_crop, transform_points

ROOT = Path(__file__).resolve().parent.parent
ICON, BANNER = (400, 400), (1260, 540)
"""Width and height in pixels, as the registry requires."""
TILE = 192
"""Pixels of a head in a page's picture."""
PAGE_BYTES = 60_000
"""Largest file size of a page's picture."""
TOP, BOTTOM = (0.13, 0.16, 0.24), (0.05, 0.06, 0.10)
"""Background."""
SOMEBODY, PAPER = (0.55, 0.60, 0.70), (0.20, 0.23, 0.31)
"""Colours of silhouettes and of their background."""
INK, ACCENT, TOP_INK = (200, 206, 218), (255, 157, 82), (24, 26, 34)
"""Colours of text, of the overview's band, and of text on the band."""
MODEL, HEAD = builtin_head(), HeadParams.neutral()
LAMP: dict[str, Any] = {"light": "custom", "ambient": 0.25, "key_intensity": 1.0}
"""Edit Head's widgets for the light of most pictures."""


def edited(**changes: float | str) -> HeadParams:
    """Return the average head, edited, under one lamp."""
    widgets: dict[str, Any] = LAMP | changes
    return edit_head(MODEL, HEAD, **widgets)


def row(heads: HeadParams, width: int, height: int, zoom: float = 1.0) -> Tensor:
    """Draw heads side by side over the background, `[height, width, 3]` in 0..1.

    Args:
        heads: The heads, from left to right.
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
    together = HeadParams.cat(list(heads))
    return row(together, TILE * together.batch, TILE)


def maps_of(head: HeadParams) -> Tensor:
    """Draw the maps of Render Head: normal, albedo and Lambertian map, mask and landmarks."""
    maps = render_head(MODEL, head, TILE, TILE)
    landmarks = landmark_picture(landmark_pixels(MODEL, head, TILE, TILE), TILE, TILE)
    shown = (normal_colors(maps), maps.albedo, maps.lambertian, maps.alpha.expand(-1, 3, -1, -1), landmarks)
    return torch.cat([picture[0].movedim(0, -1) for picture in shown], dim=1)


def beside(*pictures: Tensor) -> Tensor:
    """Lay out pictures `[3, h, w]` as tiles of a row `[TILE, …, 3]`."""
    scaled = [F.interpolate(p[None], (TILE, TILE), mode="bilinear", antialias=True)[0] for p in pictures]
    return torch.cat([p.movedim(0, -1) for p in scaled], dim=1)


def people(count: int) -> Tensor:
    """Draw synthetic people in front of different backgrounds."""
    who = [Person.sample(HELD_OUT + i) for i in range(count)]
    settings = [Setting(list(SHIRTS)[i], BACKGROUNDS[i]) for i in range(count)]
    heads = [edited(yaw=15.0 * (i - count // 2)).replace(shape=person.shape_row()) for i, person in enumerate(who)]
    return beside(*draw_people(who, HeadParams.cat(heads), settings, TILE))


def photo_of(head: HeadParams, side: int) -> Tensor:
    """Draw a head that stands in for a photo, `[3, side, side]`."""
    return row(head, side, side).movedim(-1, 0)


def fitted(head: HeadParams) -> Tensor:
    """Draw the steps of Fit Head: photo, 68 landmarks, the fitted head, and the head over the photo."""
    side = 2 * TILE
    photo, points = photo_of(head, side), landmark_pixels(MODEL, head, side, side)
    found = fit_landmarks(MODEL, pixels_to_frame(points, side, side)).params
    dots = landmark_picture(points, side, side)[0]
    over = overlay(photo[None], render_head(MODEL, found, side, side), opacity=0.6)[0]
    return beside(photo, torch.maximum(0.6 * photo, dots), photo_of(found, side), over)


def read(head: HeadParams, side: int = 1024) -> Tensor:
    """Draw the steps of Encode Identity: photo, aligned portrait, CLIP's input and FaceNet's input."""
    photo, points = photo_of(head, side), landmark_pixels(MODEL, head, side, side)[0]
    portrait, transform = ffhq_crop(photo, points)
    points = transform_points(transform, points)
    # the face's outline: the jaw line, closed above the brows by half an ellipse between the jaw's ends
    middle, across, up = (points[0] + points[16]) / 2, (points[16] - points[0]) / 2, 1.1 * (points[17:27].mean(0) - points[30])
    turn = torch.linspace(0, math.pi, 16)[1:-1, None]
    outline = torch.cat([points[:17], middle + across * turn.cos() + up * turn.sin()])
    face = Image.new("L", (portrait.shape[2], portrait.shape[1]))
    ImageDraw.Draw(face).polygon([tuple(point) for point in outline.tolist()], fill=1)
    inside = torch.frombuffer(bytearray(face.tobytes()), dtype=torch.uint8).view(1, *portrait.shape[1:])
    crop = facenet_face(portrait, torch.cat([outline.amin(0), outline.amax(0)]))
    return beside(photo, portrait, torch.where(inside > 0, portrait, 1.0), (crop * 128 + 127.5) / 255)


def token_sets(head: HeadParams) -> Tensor:
    """Draw the CLIP patches that Identity Parts keeps: all, and 128, 64, 32 and 16 tokens; the first token covers the image."""
    portrait = ffhq_crop(photo_of(head, 512), landmark_pixels(MODEL, head, 512, 512)[0])[0]
    shown = []
    for tokens in (len(token_order()), 128, 64, 32, 16):
        kept = torch.zeros(GRID * GRID)
        kept[torch.tensor(token_order()[1:tokens]) - 1] = 1
        shown.append(portrait * kept.view(1, GRID, 1, GRID, 1).expand(1, -1, 32, -1, 32).reshape(1, 512, 512))
    return beside(*shown)


def controls_of(head: HeadParams) -> Tensor:
    """Show a head as control images, five of them in a row."""
    kinds = ("depth", "normal BAE", "soft edge", "face mesh", "five points")
    return torch.cat([control_image(kind, MODEL, head, TILE, TILE).picture[0].movedim(0, -1) for kind in kinds], dim=1)


def cropped(head: HeadParams, side: int = 512) -> Tensor:
    """Draw the use of Crop Head: a picture with a region, the region enlarged, and the head in it without and with the node."""
    who, setting = Person.sample(HELD_OUT + 1), Setting("green", "beach")
    region = torch.tensor([[0.5, 0.1, 0.375, 0.375]]) * side
    x, y, w, h = region[0].int().tolist()
    inside = crop_head(head, region, side, side).replace(shape=who.shape_row())
    whole = head.replace(shape=who.shape_row())
    picture = draw_people([who], whole, [setting], side)[0]
    framed = picture.clone()
    for thick in range(6):
        for line in (framed[:, y + thick, x : x + w], framed[:, y + h - 1 - thick, x : x + w]):
            line.copy_(torch.tensor(ACCENT)[:, None] / 255)
        for line in (framed[:, y : y + h, x + thick], framed[:, y : y + h, x + w - 1 - thick]):
            line.copy_(torch.tensor(ACCENT)[:, None] / 255)
    shown = [normal_colors(render_head(MODEL, each, TILE, TILE))[0] for each in (whole, inside)]
    return beside(framed, draw_people([who], inside, [setting], TILE)[0], *shown)


def silhouette(head: HeadParams, side: int) -> Tensor:
    """Draw a silhouette in place of a generated person, `[side, side, 3]`."""
    alpha = F.avg_pool2d(render_head(MODEL, head, 3 * side, 3 * side).alpha, 3)[0].movedim(0, -1)
    return alpha * torch.tensor(SOMEBODY) + (1 - alpha) * torch.tensor(PAPER)


def overview() -> Tensor:
    """Draw the overview of the pack: a photo, posed and lit heads, and prompts become portraits."""
    width, height, side, gap, left, top = 1280, 556, 180, 16, 276, 56
    prompts = ("in a garden", "at sea", "as a comic", "on stage", "in marble")
    lit = {"ambient": 0.15, "key_intensity": 1.1}
    heads = [
        edited(size=1.2),
        edited(size=1.2, yaw=50.0),
        edited(size=1.2, smile_left=1.0, smile_right=1.0, mouth_open=0.3),
        edited(size=1.2, yaw=-25.0, key_azimuth=80.0, key_color="#ff9d52", **lit),
        edited(size=0.9, pitch=12.0, roll=14.0, position_x=0.2, key_elevation=-50.0, **lit),
    ]
    sheet = Image.fromarray((torch.tensor(TOP).expand(height, width, 3) * 255).byte().numpy())
    pen, font, bold = ImageDraw.Draw(sheet), ImageFont.load_default(19), ImageFont.load_default(24)

    def place(picture: Tensor, x: int, y: int):
        sheet.paste(Image.fromarray((picture.clamp(0, 1) * 255).byte().numpy()), (x, y))

    right, band = left + 5 * side + 4 * gap, (top + side + 22, top + side + 72)
    below = band[1] + 22
    pen.text(((left + right) // 2, 30), "a head that you turn, light and make smile", INK, font, "mm")
    for i, (head, prompt) in enumerate(zip(heads, prompts, strict=True)):
        x = left + i * (side + gap)
        middle = x + side // 2
        place(row(head, side, side), x, top)
        place(silhouette(head, side), x, below)
        pen.text((middle, below + side + 24), f"“… {prompt}”", INK, font, "mm")
        for start in (top + side, band[1]):
            arrow(pen, (middle, start + 4), (middle, start + 18))
    pen.rounded_rectangle((left, band[0], right, band[1]), 12, ACCENT)
    pen.text(((left + right) // 2, sum(band) // 2), "CapFace, in ComfyUI’s own sampler", TOP_INK, bold, "mm")
    middle = sum(band) // 2
    place(silhouette(edited(size=1.3, yaw=-15.0), side), 40, middle - side // 2)
    pen.text((40 + side // 2, middle - side // 2 - 24), "one photo: who", INK, font, "mm")
    arrow(pen, (40 + side + 8, middle), (left - 8, middle))
    pen.text((40 + side // 2, below + side + 24), "portraits by prompt", INK, font, "mm")
    return torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8).view(height, width, 3) / 255


def arrow(pen: ImageDraw.ImageDraw, start: tuple[int, int], end: tuple[int, int]):
    """Draw an arrow to the right or downwards."""
    (x, y), down = end, start[0] == end[0]
    pen.line((start, end), INK, 3)
    pen.polygon([(x, y), (x - 7, y - 9), (x + 7, y - 9)] if down else [(x, y), (x - 9, y - 7), (x - 9, y + 7)], INK)


def save(picture: Tensor, *path: str, most: int | None = None):
    """Write a picture to a path relative to the repository, reduced to 256 colours if it would exceed `most` bytes."""
    image, file = Image.fromarray((picture.clamp(0, 1) * 255).round().byte().numpy()), ROOT.joinpath(*path)
    image.save(file, optimize=True)
    if most is not None and file.stat().st_size > most:
        image.quantize().save(file, optimize=True)


def main():
    """Draw all of them."""
    turns = [-60.0, -30.0, 0.0, 30.0, 60.0]
    several = [edited(yaw=turn, key_azimuth=-1.5 * turn, smile_left=0.4, smile_right=0.4) for turn in turns]
    save(row(edited(yaw=-28.0, pitch=6.0), *ICON), "docs", "icon.png")
    save(row(HeadParams.cat(several), *BANNER, zoom=2.0), "docs", "banner.png")

    save(overview(), "docs", "overview.png", most=100_000)

    smile = {"smile_left": 1.0, "smile_right": 1.0, "mouth_open": 0.3}
    plain, turned = edited(), edited(yaw=40.0, pitch=10.0, roll=-10.0, key_azimuth=-60.0, **smile)
    light = edited(key_azimuth=-80.0, key_color="#ff9d52", ambient=0.1)
    pages = {
        "LoadHeadModel": tiles(plain),
        "EncodeIdentity": read(edited(yaw=15.0, roll=-25.0, size=0.6, position_x=0.25, position_y=0.1, **smile)),
        "IdentityParts": token_sets(edited(yaw=15.0, **smile)),
        "FitHead": fitted(edited(yaw=30.0, pitch=8.0, roll=8.0, **smile)),
        "EditHead": tiles(plain, edited(yaw=40.0, pitch=10.0), edited(**smile), light, edited(size=0.6, position_x=0.3)),
        "HeadPreset": tiles(
            plain, edited(yaw=-40.0), edited(yaw=15.0, roll=18.0), edited(**smile), edited(key_azimuth=-90.0, ambient=0.1)
        ),
        "TransferHead": tiles(
            plain, turned, transfer(plain, turned, ["position", "pose"]), transfer(plain, turned, ["lighting"])
        ),
        "AnimateHead": tiles(turntable(MODEL, plain, 6, math.radians(-75), math.radians(75))),
        "CropHead": cropped(edited(size=0.4, position_x=0.375, position_y=-0.425, yaw=-15.0, **smile)),
        "RenderHead": maps_of(edited(yaw=25.0)),
        "ControlImage": controls_of(edited(yaw=25.0, size=1.2)),
        "SyntheticPerson": people(5),
    }
    for name, picture in pages.items():
        save(picture, "web", "docs", f"CapFace{name}", "picture.png", most=PAGE_BYTES)


if __name__ == "__main__":
    main()
