"""Cropping: the head in a part of the picture, for passes that redo that part alone."""

from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker

from ..errors import BadInput
from ..flame.editing import crop_head
from ..host.boxes import CELL, EACH, Boxes, check_inside, crop_image, read_boxes
from .sockets import HEAD, by_hand, schema

LARGEST = 16384
REGIONS = (io.Mask, io.SEGS, io.Custom("BOUNDING_BOX"), io.Custom("STITCHER"))
WITHOUT_PICTURE = (
    "Crop Head gives a cropped picture only where one is connected to its input 'image'. Connect the whole picture."
)


class CropHead(io.ComfyNode):
    """HEAD, a region -> HEAD, the region, IMAGE."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceCropHead",
            "Crop Head",
            description="Gives the head as a part of the picture shows it, for detailers and inpainting that crop the face, "
            "redo it at a larger size and paste it back: they crop the picture and not what controls it. Render Head and Apply "
            "CapFace for that pass go behind it.",
            search_aliases=["detailer", "inpaint", "face detail", "segs", "crop and stitch", "adetailer"],
            inputs=[
                HEAD.Input("head", tooltip="The head in the whole picture; or one for each of its frames."),
                io.MultiType.Input(
                    "region",
                    list(REGIONS),
                    optional=True,
                    tooltip="Where to crop: a mask's bounds, the Impact Pack's SEGS (just as its detailers crop), a bounding "
                    "box such as core's face detectors give, or Inpaint Crop's stitcher. Without one, x, y, width and height "
                    "count.",
                ),
                by_hand(io.Image, "image", tooltip="The whole picture. Gives its size, and is cropped and enlarged as well."),
                _pixels("x", 0, 0, "Left edge of the region in pixels, where none is connected."),
                _pixels("y", 0, 0, "Its upper edge."),
                _pixels("width", 512, 1, "Its width."),
                _pixels("height", 512, 1, "Its height."),
                _pixels("picture_width", 512, 1, "Width of the whole picture, where neither image nor region tells it."),
                _pixels("picture_height", 512, 1, "Height of the whole picture, where neither image nor region tells it."),
                io.Float.Input(
                    "crop_factor",
                    default=1.5,
                    min=1.0,
                    max=20.0,
                    step=0.05,
                    tooltip="How much larger than a mask or bounding box the region is, within the picture. SEGS, stitchers "
                    "and numbers are taken as they are.",
                ),
                io.Int.Input("padding", default=0, min=0, max=4096, tooltip="Pixels on every side in addition, likewise."),
                io.Boolean.Input("square", default=True, tooltip="Make that region square, likewise."),
                io.Int.Input(
                    "index",
                    default=0,
                    min=EACH,
                    max=999,
                    tooltip="Which of several segments, or of the boxes of a frame, from 0. "
                    "\N{MINUS SIGN}1 takes all of them, one for each "
                    "head in turn.",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=0,
                    max=4096,
                    step=CELL,
                    tooltip="Short side of the cropped picture that comes out, in pixels; both sides become multiples of 8. 0 "
                    "leaves it as large as it is.",
                ),
            ],
            outputs=[
                HEAD.Output(display_name="head", tooltip="The head as the region shows it, whatever size that is then given."),
                io.Int.Output(
                    display_name="x", tooltip="Left edge of the region, for pasting back. Of several, the first one's."
                ),
                io.Int.Output(display_name="y", tooltip="Its upper edge."),
                io.Int.Output(display_name="width", tooltip="Its width."),
                io.Int.Output(display_name="height", tooltip="Its height."),
                io.Image.Output(display_name="image", tooltip="The picture, cropped and enlarged."),
            ],
        )

    @classmethod
    def execute(
        cls,
        head,
        x,
        y,
        width,
        height,
        picture_width,
        picture_height,
        crop_factor,
        padding,
        square,
        index,
        size,
        region=None,
        image=None,
    ):
        """Crop the head, and the picture where there is one."""
        boxes = Boxes(((x, y, width, height),)) if region is None else read_boxes(region, index)
        whole = _whole(boxes, image, (picture_height, picture_width))
        boxes = boxes.grown(crop_factor, padding, square, whole)
        if image is not None or boxes.size is None:
            check_inside(boxes, whole)
        cropped = crop_head(head, boxes.tensor(), *whole)
        picture = ExecutionBlocker(WITHOUT_PICTURE) if image is None else crop_image(image, boxes, size)
        return io.NodeOutput(cropped, *boxes.boxes[0], picture)


def _whole(boxes: Boxes, image, typed: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the whole picture, from who knows it."""
    if image is None:
        return boxes.size or typed
    size = tuple(image.shape[1:3])
    if boxes.size not in (None, size):
        raise BadInput(
            f"The region is of a picture of {boxes.size[1]} × {boxes.size[0]}, the image is {size[1]} × {size[0]}. Connect the "
            "picture that the region was made of, or none."
        )
    return size


def _pixels(name: str, default: int, least: int, tooltip: str) -> io.Input:
    return io.Int.Input(name, default=default, min=least, max=LARGEST, tooltip=tooltip)
