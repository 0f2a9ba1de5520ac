"""Crop boxes, read from masks, segments, bounding boxes and stitchers of ComfyUI's nodes and detailers.

A box is (x, y, width, height) in pixels of the whole picture. (x, y) is its upper left corner.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import comfy.utils
import torch
from torch import Tensor

from ..errors import BadInput

MASK_THRESHOLD = 0.5 / 255
"""Mask values above this count as set. An 8-bit mask rounds smaller values to 0."""
CELL = 8
"""Pixels of the picture per latent pixel. Sides of pictures that will be encoded are multiples of it."""
EACH = -1
"""Index that selects all boxes, one for each head."""

Box = tuple[int, int, int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Boxes:
    """Boxes of a picture, and the picture's size if it is known."""

    boxes: tuple[Box, ...]
    """One for all heads, or one for each."""
    size: tuple[int, int] | None = None
    """(height, width) of the whole picture."""
    exact: bool = True
    """Whether other nodes crop exactly these boxes, which must then stay as they are."""

    def tensor(self) -> Tensor:
        """Return the boxes as `[R, 4]` in double precision."""
        return torch.tensor(self.boxes, dtype=torch.float64)

    def grown(self, factor: float, padding: int, square: bool, size: tuple[int, int]) -> "Boxes":
        """Enlarge the boxes within the picture. Exact boxes are returned unchanged.

        Args:
            factor: Factor for width and height, applied first.
            padding: Pixels to add on every side.
            square: Whether to make the boxes square.
            size: (height, width) of the picture.

        Raises:
            BadInput: The centre of a box is outside the picture.
        """
        if self.exact:
            return self
        for box in self.boxes:
            x, y, w, h = box
            if not (0 <= x + w / 2 <= size[1] and 0 <= y + h / 2 <= size[0]):
                raise BadInput(_outside_message(box, size))
        return Boxes(tuple(_grow(box, factor, padding, square, *size) for box in self.boxes), self.size)


def read_boxes(value: Any, index: int = 0) -> Boxes:
    """Read boxes from a connected input.

    Args:
        value: A MASK, the Impact Pack's SEGS, ComfyUI's BOUNDING_BOX (one, several, or several per frame), or the STITCHER of
            Inpaint Crop and Stitch.
        index: Index of the segment, or of the box in each frame. `EACH` selects all, one for each head in turn.

    Raises:
        BadInput: The value has another type, or is empty.
    """
    if isinstance(value, Tensor):
        return _from_mask(value)
    if isinstance(value, dict) and "cropped_to_canvas_x" in value:
        return _from_stitcher(value)
    if isinstance(value, dict):
        return Boxes((_from_dict(value),), exact=False)
    if isinstance(value, tuple | list) and len(value) == 2 and _is_size(value[0]):
        return _from_segments(value, index)
    if isinstance(value, tuple | list):
        return _from_dicts(value, index)
    raise BadInput(_unknown_message(type(value).__name__))


def check_inside(boxes: Boxes, size: tuple[int, int]) -> None:
    """Check that boxes are within a picture of this (height, width).

    Raises:
        BadInput: A box reaches beyond the picture.
    """
    height, width = size
    for box in boxes.boxes:
        x, y, w, h = box
        if w < 1 or h < 1 or x < 0 or y < 0 or x + w > width or y + h > height:
            raise BadInput(_outside_message(box, size))


def crop_image(image: Tensor, boxes: Boxes, side: int) -> Tensor:
    """Crop pictures to boxes, and enlarge the crops.

    Args:
        image: IMAGE `[B, H, W, C]`.
        boxes: One box for all pictures, one for each, or several boxes of one picture.
        side: Short side of the result in pixels, a multiple of `CELL`. With 0, all crops get the first box's size.

    Returns:
        IMAGE. Its sides are multiples of `CELL` unless `side` is 0.

    Raises:
        BadInput: The numbers of boxes and pictures do not match.
    """
    count = max(len(image), len(boxes.boxes))
    if len(image) not in (1, count) or len(boxes.boxes) not in (1, count):
        raise BadInput(
            f"Expected one region for all {len(image)} pictures, or one for each; got {len(boxes.boxes)}. Choose one of them "
            "by its index, or connect as many pictures."
        )
    height, width = _enlarged_size(boxes.boxes[0], side)
    cuts = []
    for i in range(count):
        x, y, w, h = boxes.boxes[i % len(boxes.boxes)]
        cut = image[i % len(image), y : y + h, x : x + w][None].movedim(-1, 1)
        if (h, w) != (height, width):
            cut = comfy.utils.common_upscale(cut, width, height, "lanczos", "disabled")
        cuts.append(cut.movedim(1, -1))
    return torch.cat(cuts)


def _enlarged_size(box: Box, side: int) -> tuple[int, int]:
    """Return the (height, width) of a box after its short side is scaled to `side` pixels."""
    *_, w, h = box
    if not side:
        return h, w
    height, width = (max(CELL, round(side * length / min(w, h) / CELL) * CELL) for length in (h, w))
    return height, width


def _from_mask(mask: Tensor) -> Boxes:
    if mask.dim() not in (2, 3):
        raise BadInput(f"Expected a MASK of shape [B, H, W], got {list(mask.shape)}. Convert Image to Mask makes one.")
    masks = mask.reshape(-1, *mask.shape[-2:]) > MASK_THRESHOLD
    boxes = []
    for number, row in enumerate(masks, 1):
        if not row.any():
            which = f"mask {number} of {len(masks)}" if len(masks) > 1 else "the mask"
            raise BadInput(f"Expected a mask that shows where to crop, but {which} is empty. Paint it, or type the region.")
        set_rows, set_columns = row.any(1).nonzero()[:, 0].tolist(), row.any(0).nonzero()[:, 0].tolist()
        x0, y0 = set_columns[0], set_rows[0]
        boxes.append((x0, y0, set_columns[-1] + 1 - x0, set_rows[-1] + 1 - y0))
    height, width = mask.shape[-2:]
    return Boxes(tuple(boxes), (height, width), exact=False)


def _from_segments(segs: Sequence[Any], index: int) -> Boxes:
    (height, width), segments = segs
    if not segments:
        raise BadInput(_empty_message("SEGS", "segments"))
    boxes = []
    for segment in _select(segments, index, "segments"):
        region = getattr(segment, "crop_region", None)
        if region is None:
            raise BadInput(f"Expected SEGS as the Impact Pack makes them, with crop regions; got {type(segment).__name__}.")
        x0, y0, x1, y1 = (int(v) for v in region)
        boxes.append((x0, y0, x1 - x0, y1 - y0))
    return Boxes(tuple(boxes), (int(height), int(width)))


def _from_dicts(frames: Sequence[Any], index: int) -> Boxes:
    if not frames:
        raise BadInput(_empty_message("BOUNDING_BOX", "boxes"))
    if not isinstance(frames[0], tuple | list):  # the same boxes for every frame
        return Boxes(tuple(_from_dict(box) for box in _select(frames, index, "boxes")), exact=False)
    boxes = []
    for number, frame in enumerate(frames, 1):
        if not frame:
            raise BadInput(_empty_message(f"BOUNDING_BOX, frame {number} of {len(frames)},", "boxes"))
        boxes += [_from_dict(box) for box in _select(frame, index, "boxes")]
    return Boxes(tuple(boxes), exact=False)


def _from_dict(box: Any) -> Box:
    if not isinstance(box, dict) or not {"x", "y", "width", "height"} <= box.keys():
        raise BadInput(_unknown_message(type(box).__name__))
    x0, y0 = math.floor(box["x"]), math.floor(box["y"])
    return x0, y0, math.ceil(box["x"] + box["width"]) - x0, math.ceil(box["y"] + box["height"]) - y0


def _from_stitcher(stitcher: dict[str, Any]) -> Boxes:
    crops = [_as_list(stitcher[f"cropped_to_canvas_{side}"]) for side in "xywh"]
    left, top, width, height = (_as_list(stitcher[f"canvas_to_orig_{side}"]) for side in "xywh")
    boxes = [(x - x0, y - y0, w, h) for x, y, w, h, x0, y0 in zip(*crops, left, top, strict=True)]
    return Boxes(tuple(boxes), (height[0], width[0]))


def _as_list(values: Any) -> list[int]:
    return [int(n) for n in (values if isinstance(values, list | tuple) else [values])]


def _select(items: Sequence[T], index: int, what: str) -> Sequence[T]:
    if index == EACH:
        return items
    if index >= len(items):
        raise BadInput(f"Expected an index below {len(items)}, the number of {what}, got {index}. Lower the index.")
    return items[index : index + 1]


def _is_size(value: Any) -> bool:
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


def _outside_message(box: Box, size: tuple[int, int]) -> str:
    return (
        f"The region {box[2]} × {box[3]} at ({box[0]}, {box[1]}) reaches beyond the picture of {size[1]} × {size[0]}. Make it "
        "smaller or move it, or enter the whole picture's width and height."
    )


def _empty_message(kind: str, what: str) -> str:
    return f"Expected {kind} with {what}, got none: nothing was detected. Check the detector, or type the region."


def _unknown_message(got: str) -> str:
    return f"Expected a MASK, SEGS of the Impact Pack, a BOUNDING_BOX or a STITCHER, got {got}. Connect one of them."
