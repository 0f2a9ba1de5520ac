"""Where a picture is to be cropped, from what ComfyUI's nodes and detailers say: numbers, masks, boxes, segments, stitchers.

A box is (x, y, width, height) in pixels of the whole picture, (x, y) its upper left corner.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import comfy.utils
import torch
from torch import Tensor

from ..errors import BadInput

SHOWN = 0.5 / 255
"""From here on a mask's pixel counts; below, an 8-bit mask would hold 0."""
CELL = 8
"""Pixels of a latent's cell: sides of what is to be encoded are multiples of it."""
EACH = -1
"""Index that takes all, one for each head."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Boxes:
    """Boxes of a picture, and how large that is where they know it."""

    boxes: tuple[Box, ...]
    """One for all heads, or one for each."""
    size: tuple[int, int] | None = None
    """(height, width) of the whole picture."""
    exact: bool = True
    """Whether others crop at just these boxes, so that they must not grow."""

    def tensor(self) -> Tensor:
        """`[R, 4]`, double precision."""
        return torch.tensor(self.boxes, dtype=torch.float64)

    def grown(self, factor: float, padding: int, square: bool, size: tuple[int, int]) -> "Boxes":
        """Return boxes larger by a factor, then by pixels on every side, but within a picture of this (height, width).

        Raises:
            BadInput: a box lies beyond that picture.
        """
        if self.exact:
            return self
        for box in self.boxes:
            x, y, w, h = box
            if not (0 <= x + w / 2 <= size[1] and 0 <= y + h / 2 <= size[0]):
                raise BadInput(_beyond(box, size))
        return Boxes(tuple(_grow(box, factor, padding, square, *size) for box in self.boxes), self.size)


def read_boxes(value, index: int = 0) -> Boxes:
    """Boxes of what is connected.

    Args:
        value: MASK, Impact Pack's SEGS, core's BOUNDING_BOX (one, several, or several a frame), or the STITCHER of Inpaint
            Crop and Stitch.
        index: Which segment, or which box of a frame; EACH is one for each head in turn.

    Raises:
        BadInput: it is something else, or there is nothing in it.
    """
    if isinstance(value, Tensor):
        return _of_mask(value)
    if isinstance(value, dict) and "cropped_to_canvas_x" in value:
        return _of_stitcher(value)
    if isinstance(value, dict):
        return Boxes((_of_dict(value),), exact=False)
    if isinstance(value, tuple | list) and len(value) == 2 and _is_size(value[0]):
        return _of_segments(value, index)
    if isinstance(value, tuple | list):
        return _of_dicts(value, index)
    raise BadInput(_unknown(type(value).__name__))


def check_inside(boxes: Boxes, size: tuple[int, int]):
    """Refuse boxes that reach beyond a picture of this (height, width).

    Raises:
        BadInput: one does.
    """
    height, width = size
    for box in boxes.boxes:
        x, y, w, h = box
        if w < 1 or h < 1 or x < 0 or y < 0 or x + w > width or y + h > height:
            raise BadInput(_beyond(box, size))


def crop_image(image: Tensor, boxes: Boxes, side: int) -> Tensor:
    """Cut boxes out of pictures, and enlarge them.

    Args:
        image: IMAGE `[B, H, W, C]`.
        boxes: One for all pictures, or one for each; with one picture, several of it.
        side: Pixels of the short side of what comes out, a multiple of `CELL`; 0 leaves the first box's size, and several
            boxes take that.

    Returns:
        IMAGE, its sides multiples of `CELL` unless `side` is 0.
    """
    count = max(len(image), len(boxes.boxes))
    if len(image) not in (1, count) or len(boxes.boxes) not in (1, count):
        raise BadInput(
            f"Expected one region for all {len(image)} pictures, or one for each; got {len(boxes.boxes)}. Choose one of them "
            "by its index, or give as many pictures."
        )
    height, width = _enlarged(boxes.boxes[0], side)
    cuts = []
    for i in range(count):
        x, y, w, h = boxes.boxes[i % len(boxes.boxes)]
        cut = image[i % len(image), y : y + h, x : x + w][None].movedim(-1, 1)
        if (h, w) != (height, width):
            cut = comfy.utils.common_upscale(cut, width, height, "lanczos", "disabled")
        cuts.append(cut.movedim(1, -1))
    return torch.cat(cuts)


def _enlarged(box: Box, side: int) -> tuple[int, int]:
    """(height, width) of a box whose short side is made that long."""
    *_, w, h = box
    if not side:
        return h, w
    return tuple(max(CELL, round(side * length / min(w, h) / CELL) * CELL) for length in (h, w))


def _of_mask(mask: Tensor) -> Boxes:
    if mask.dim() not in (2, 3):
        raise BadInput(f"Expected a MASK of shape [B, H, W], got {list(mask.shape)}. Convert Image to Mask makes one.")
    rows = mask.reshape(-1, *mask.shape[-2:]) > SHOWN
    boxes = []
    for number, row in enumerate(rows, 1):
        if not row.any():
            which = f"mask {number} of {len(rows)}" if len(rows) > 1 else "the mask"
            raise BadInput(f"Expected a mask that shows where to crop, but {which} is empty. Paint it, or type the region.")
        down, right = (row.any(axis).nonzero()[:, 0] for axis in (1, 0))
        (y0, y1), (x0, x1) = ((int(at[0]), int(at[-1]) + 1) for at in (down, right))
        boxes.append((x0, y0, x1 - x0, y1 - y0))
    return Boxes(tuple(boxes), tuple(mask.shape[-2:]), exact=False)


def _of_segments(segs: Sequence, index: int) -> Boxes:
    (height, width), segments = segs
    if not segments:
        raise BadInput(_nothing("SEGS", "segments"))
    boxes = []
    for segment in _chosen(segments, index, "segments"):
        region = getattr(segment, "crop_region", None)
        if region is None:
            raise BadInput(f"Expected SEGS as the Impact Pack makes them, with crop regions; got {type(segment).__name__}.")
        x0, y0, x1, y1 = (int(v) for v in region)
        boxes.append((x0, y0, x1 - x0, y1 - y0))
    return Boxes(tuple(boxes), (int(height), int(width)))


def _of_dicts(frames: Sequence, index: int) -> Boxes:
    if not frames:
        raise BadInput(_nothing("BOUNDING_BOX", "boxes"))
    if not isinstance(frames[0], tuple | list):  # the same boxes for every frame
        return Boxes(tuple(_of_dict(box) for box in _chosen(frames, index, "boxes")), exact=False)
    boxes = []
    for number, frame in enumerate(frames, 1):
        if not frame:
            raise BadInput(_nothing(f"BOUNDING_BOX, frame {number} of {len(frames)},", "boxes"))
        boxes += [_of_dict(box) for box in _chosen(frame, index, "boxes")]
    return Boxes(tuple(boxes), exact=False)


def _of_dict(box) -> Box:
    if not isinstance(box, dict) or not {"x", "y", "width", "height"} <= box.keys():
        raise BadInput(_unknown(type(box).__name__))
    x0, y0 = math.floor(box["x"]), math.floor(box["y"])
    return x0, y0, math.ceil(box["x"] + box["width"]) - x0, math.ceil(box["y"] + box["height"]) - y0


def _of_stitcher(stitcher: dict) -> Boxes:
    crop, whole = ([_listed(stitcher[f"{part}_{side}"]) for side in "xywh"] for part in ("cropped_to_canvas", "canvas_to_orig"))
    boxes = [(x - x0, y - y0, w, h) for x, y, w, h, x0, y0, *_ in zip(*crop, *whole, strict=True)]
    return Boxes(tuple(boxes), (whole[3][0], whole[2][0]))


def _listed(numbers) -> list[int]:
    return [int(n) for n in (numbers if isinstance(numbers, list | tuple) else [numbers])]


def _chosen(items: Sequence, index: int, what: str) -> Sequence:
    if index == EACH:
        return items
    if index >= len(items):
        raise BadInput(f"There is no number {index} among the {len(items)} {what}, counted from 0. Lower the index.")
    return items[index : index + 1]


def _is_size(value) -> bool:
    return isinstance(value, tuple | list | torch.Size) and len(value) == 2 and all(not hasattr(v, "keys") for v in value)


def _grow(box: Box, factor: float, padding: int, square: bool, height: int, width: int) -> Box:
    x, y, w, h = box
    sides = [side * factor + 2 * padding for side in (w, h)]
    if square:
        sides = [min(max(sides), width, height)] * 2
    grown = []
    for start, side, wanted, limit in ((x, w, sides[0], width), (y, h, sides[1], height)):
        wanted = max(1, min(round(wanted), limit))
        grown.append((min(max(round(start + (side - wanted) / 2), 0), limit - wanted), wanted))
    (x, w), (y, h) = grown
    return x, y, w, h


def _beyond(box: Box, size: tuple[int, int]) -> str:
    return (
        f"The region {box[2]} × {box[3]} at ({box[0]}, {box[1]}) reaches beyond the picture of {size[1]} × {size[0]}. Make it "
        "smaller or move it, or give the whole picture's own width and height."
    )


def _nothing(kind: str, what: str) -> str:
    return f"Expected {kind} with {what}, got none: nothing was detected. Check what is before it, or type the region."


def _unknown(got: str) -> str:
    return f"Expected a MASK, SEGS of the Impact Pack, a BOUNDING_BOX or a STITCHER, got {got}. Connect one of them."
