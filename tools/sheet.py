"""The demo's contact sheet: the photo, the fitted head over it, and the head's condition maps at several poses."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..flame import HeadModel, HeadParams, landmark_pixels, render_head
from ..flame.render.pictures import normal_colors, overlay
from ..photos.pictures import read_picture

TILE, PHOTO, GAP, CAPTION = 208, 496, 8, 22
ZOOM = 1.35
"""Magnification of the posed heads relative to the neutral camera."""
BACKGROUND, INK = (24, 26, 30), (214, 216, 220)
POSES = (
    ("as in the photo", None, 0),
    ("yaw -75°", -75, 0),
    ("yaw -35°", -35, 0),
    ("front", 0, 0),
    ("yaw 35°", 35, 0),
    ("yaw 75°", 75, 0),
    ("mouth open", 20, 18),
)
"""Caption, yaw in degrees (positive turns the face to its left; None keeps the photo's pose), jaw in degrees."""


def posed(fitted: HeadParams) -> HeadParams:
    """Return a batch: the fitted head in each of POSES, at the frame's centre."""
    camera = HeadParams.neutral(device=fitted.device).camera * fitted.camera.new_tensor([ZOOM, 1, 1])
    heads = []
    for _, yaw, jaw in POSES:
        head = fitted.replace(camera=camera)
        if yaw is not None:
            turn = [math.radians(yaw) * axis for axis in (0, 1, 0)]
            head = head.replace(
                rotation=fitted.rotation.new_tensor([turn]),
                neck=torch.zeros_like(fitted.neck),
                jaw=fitted.jaw.new_tensor([[math.radians(jaw), 0, 0]]),
            )
        heads.append(head)
    return HeadParams.cat(heads)


def to_picture(pixels: Tensor) -> Image.Image:
    """Convert `[3, H, W]` in 0..1 to a picture; values outside the range are clamped."""
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def over_background(colour: Tensor, alpha: Tensor) -> Tensor:
    """Blend colours `[3, H, W]` with the sheet's background by `alpha` `[1, H, W]`."""
    behind = torch.tensor(BACKGROUND, dtype=colour.dtype)[:, None, None] / 255
    return colour * alpha + behind * (1 - alpha)


def close_up(photo: Tensor, model: HeadModel, fitted: HeadParams) -> Image.Image:
    """Cut the face out of a photo `[3, H, W]`, `PHOTO` pixels high, and draw the fitted head's landmarks on it."""
    points = landmark_pixels(model, fitted, *photo.shape[1:])[0]
    low, high = points.amin(0), points.amax(0)
    half = 0.7 * (high - low).max()
    left, top = ((low + high) / 2 - half).tolist()
    zoom = PHOTO / (2 * half.item())
    box = (left, top, left + PHOTO / zoom, top + PHOTO / zoom)
    picture = to_picture(photo).transform((PHOTO, PHOTO), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for x, y in ((points - points.new_tensor([left, top])) * zoom).tolist():
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(90, 255, 120))
    return picture


def contact_sheet(photo: Tensor, model: HeadModel, fitted: HeadParams) -> Image.Image:
    """Lay out the sheet.

    Args:
        photo: `[3, H, W]` in 0..1.
        model: The head model.
        fitted: One head, fitted to the photo.
    """
    columns = len(POSES)
    width = columns * TILE + (columns + 1) * GAP + CAPTION * 4
    rows_top = PHOTO + 2 * GAP + 2 * CAPTION
    sheet = Image.new("RGB", (width, rows_top + 3 * (TILE + GAP) + GAP), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)

    left = CAPTION * 4 + GAP
    with_head = overlay(photo[None], render_head(model, fitted, photo.shape[1], photo.shape[2]))[0]
    for caption, picture in (
        ("photo", to_picture(photo)),
        ("fitted head", to_picture(with_head)),
        ("its landmarks", close_up(photo, model, fitted)),
    ):
        picture.thumbnail((PHOTO, PHOTO), Image.Resampling.LANCZOS)
        draw.text((left, GAP // 2), caption, INK, font)
        sheet.paste(picture, (left, CAPTION + GAP // 2))
        left += picture.width + GAP

    maps = render_head(model, posed(fitted), TILE, TILE)
    for row, (caption, images) in enumerate(
        (("normal", normal_colors(maps)), ("albedo", maps.albedo), ("Lambertian", maps.lambertian))
    ):
        top = rows_top + row * (TILE + GAP)
        draw.text((GAP, top + TILE // 2), caption, INK, font)
        for column, (pose, _, _) in enumerate(POSES):
            left = CAPTION * 4 + GAP + column * (TILE + GAP)
            if row == 0:
                draw.text((left, top - CAPTION), pose, INK, font)
            sheet.paste(to_picture(over_background(images[column], maps.alpha[column])), (left, top))
    return sheet


def load_photo(path, longest_side: int = 1024) -> Tensor:
    """Load a photo, upright and no larger than `longest_side`; without a path, scikit-image's astronaut.

    Returns:
        `[3, H, W]` in 0..1.
    """
    if path is None:
        import skimage.data

        picture = Image.fromarray(skimage.data.astronaut())
    else:
        picture = to_picture(read_picture(Path(path)))
    picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
