"""Pictures from files and from ComfyUI's tensors as RGB.

Conventions: RGB float32 `[3, H, W]` in 0..1. Transparent pixels are laid on white, as around the faces that CLIP was shown in
training.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import BadFile, BadInput, quote
from ..files.boundary import reading

WHITE = 1.0
_FLOATS = 2.0
"""Float values up to this are taken for 0..1 with some overshoot, larger ones for 0..255."""
_BLANK, _LEVEL = 0.98, 0.02
"""A picture is blank if this share of its pixels is within this distance of white or of black."""


def read_picture(path: Path) -> Tensor:
    """Read a picture upright, as viewers show it: the first frame, by its EXIF orientation.

    Args:
        path: A file in any format and mode that Pillow reads: 8 and 16-bit grey, RGB, CMYK, palettes, with or without alpha.

    Returns:
        RGB `[3, H, W]` in 0..1.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file cannot be read, or the picture is larger than Pillow's limit for untrusted files.
    """
    with reading(path, "a picture", "Save it again as PNG or JPEG."), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata does not matter here
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as opened:
            _check_data(opened, path.name)
            return _pixels(ImageOps.exif_transpose(opened))


def _check_data(picture: Image.Image, name: str) -> None:
    """Check that a picture has data for all the pixels that it states; Pillow would take memory for them and show black.

    Raises:
        BadFile: It has not.
    """
    ends = [tile[1][2:] for tile in getattr(picture, "tile", ()) if tile[1] is not None]
    reached = [max(end) for end in zip(*ends, strict=True)]
    if ends and picture.format != "GIF" and any(end < side for end, side in zip(reached, picture.size, strict=True)):
        stated, got = (" × ".join(map(str, size)) for size in (picture.size, reached))
        raise BadFile(f"{quote(name)} states {stated} pixels, but has {got}. Save it again as PNG or JPEG.")


def _pixels(picture: Image.Image) -> Tensor:
    if picture.mode.startswith(("I", "F")):  # 16-bit grey or floats; convert("RGB") would clip them
        grey = np.nan_to_num(np.array(picture, dtype=np.float32))
        most = 65535.0 if picture.mode.startswith("I") else 255.0 if grey.max(initial=0) > _FLOATS else 1.0
        clear = picture.info.get("transparency")
        shade = torch.from_numpy(np.where(grey == clear, most, grey) / most if isinstance(clear, int) else grey / most)
        return shade.float().clamp(0, 1).expand(3, -1, -1).contiguous()
    if "A" in picture.getbands() or "transparency" in picture.info:
        rgba = torch.from_numpy(np.array(picture.convert("RGBA"))).movedim(-1, 0).float().div_(255)
        return on_white(rgba[:3], rgba[3:])
    return torch.from_numpy(np.array(picture.convert("RGB"))).movedim(-1, 0).float().div_(255)


def on_white(color: Tensor, alpha: Tensor) -> Tensor:
    """Lay a picture on white.

    Args:
        color: `[..., 3, H, W]` or `[..., 1, H, W]` in 0..1, not premultiplied.
        alpha: `[..., 1, H, W]` in 0..1.
    """
    return alpha * color + (1 - alpha) * WHITE


def rgb_of(image: Tensor) -> Tensor:
    """Convert pictures with 1 to 4 channels to RGB.

    Args:
        image: `[B, C, H, W]` in 0..1: grey, grey and alpha, RGB, or RGB and alpha.

    Returns:
        `[B, 3, H, W]`.

    Raises:
        BadInput: C is not in 1 to 4.
    """
    channels = image.shape[1]
    if not 1 <= channels <= 4:
        raise BadInput(f"Expected a picture with 1 to 4 channels, got {channels}.")
    color = image if channels in (1, 3) else on_white(image[:, :-1], image[:, -1:])
    return color.expand(-1, 3, -1, -1)


def blankness(image: Tensor) -> str:
    """Return "white" or "black" if an RGB picture `[3, H, W]` in 0..1 is almost entirely so, else an empty text."""
    darkest, lightest = image.amin(0), image.amax(0)
    if (darkest >= 1 - _LEVEL).float().mean() > _BLANK:
        return "white"
    return "black" if (lightest <= _LEVEL).float().mean() > _BLANK else ""
