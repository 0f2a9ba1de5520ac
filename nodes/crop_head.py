"""Crop Head: the head in a region of the picture, for passes that redo only this region."""

from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker

from ..errors import BadInput
from ..flame.editing import crop_head
from ..host.boxes import CELL, EACH, Boxes, check_inside, crop_image, read_boxes
from .sockets import HEAD, by_hand, schema

LARGEST = 16384
REGIONS = (io.Mask, io.SEGS, io.Custom("BOUNDING_BOX"), io.Custom("STITCHER"))
WITHOUT_PICTURE = "Crop Head gives a cropped picture only if the whole picture is connected to its input 'image'. Connect it."


class CropHead(io.ComfyNode):
    """HEAD, a region -> HEAD, the region, IMAGE."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceCropHead",
            "Crop Head",
            description="Converts a head to a region of the picture, for detailers and inpainting that crop the face, redo it "
            "at a larger size and paste it back. They crop the picture but not the head that controls it. Connect the "
            "output head to the Render Head and Apply CapFace of that pass.",
            search_aliases=["detailer", "inpaint", "face detail", "segs", "crop and stitch", "adetailer"],
            inputs=[
                HEAD.Input("head", tooltip="The head in the whole picture, or one head for each frame."),
                io.MultiType.Input(
                    "region",
                    list(REGIONS),
                    optional=True,
                    tooltip="The region to crop: the bounds of a mask, SEGS of the Impact Pack (cropped exactly as its "
                    "detailers do), a bounding box such as from ComfyUI's face detectors, or the stitcher of Inpaint Crop. "
                    "If not connected, x, y, width and height are used.",
                ),
                by_hand(
                    io.Image, "image", tooltip="The whole picture. It determines the size, and is also cropped and enlarged."
                ),
                _pixels("x", 0, 0, "Left edge of the region in pixels, if no region is connected."),
                _pixels("y", 0, 0, "Upper edge of the region in pixels."),
                _pixels("width", 512, 1, "Width of the region in pixels."),
                _pixels("height", 512, 1, "Height of the region in pixels."),
                _pixels(
                    "picture_width", 512, 1, "Width of the whole picture, if neither the image nor the region determines it."
                ),
                _pixels(
                    "picture_height", 512, 1, "Height of the whole picture, if neither the image nor the region determines it."
                ),
                io.Float.Input(
                    "crop_factor",
                    default=1.5,
                    min=1.0,
                    max=20.0,
                    step=0.05,
                    tooltip="Enlarges a mask's bounds or a bounding box by this factor, within the picture. SEGS, stitchers "
                    "and numbers are used unchanged.",
                ),
                io.Int.Input(
                    "padding",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Pixels to add on every side of a mask's bounds or a bounding box.",
                ),
                io.Boolean.Input("square", default=True, tooltip="Make the region of a mask or a bounding box square."),
                io.Int.Input(
                    "index",
                    default=0,
                    min=EACH,
                    max=999,
                    tooltip="Index of the segment, or of the box in each frame, counted from 0. "
                    "\N{MINUS SIGN}1 uses all of them, one for each head in turn.",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=0,
                    max=4096,
                    step=CELL,
                    tooltip="Short side of the cropped picture in pixels. Both sides become multiples of 8. 0 keeps the size "
                    "of the region.",
                ),
            ],
            outputs=[
                HEAD.Output(
                    display_name="head", tooltip="The head within the region. It fits any size to which the region is scaled."
                ),
                io.Int.Output(
                    display_name="x",
                    tooltip="Left edge of the region, for pasting back. With several regions, that of the first.",
                ),
                io.Int.Output(display_name="y", tooltip="Upper edge of the region."),
                io.Int.Output(display_name="width", tooltip="Width of the region."),
                io.Int.Output(display_name="height", tooltip="Height of the region."),
                io.Image.Output(display_name="image", tooltip="The cropped and enlarged picture."),
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
        """Crop the head, and the picture if it is connected."""
        boxes = Boxes(((x, y, width, height),)) if region is None else read_boxes(region, index)
        whole = _whole_size(boxes, image, (picture_height, picture_width))
        boxes = boxes.grown(crop_factor, padding, square, whole)
        if image is not None or boxes.size is None:
            check_inside(boxes, whole)
        cropped = crop_head(head, boxes.tensor(), *whole)
        picture = ExecutionBlocker(WITHOUT_PICTURE) if image is None else crop_image(image, boxes, size)
        return io.NodeOutput(cropped, *boxes.boxes[0], picture)


def _whole_size(boxes: Boxes, image, typed: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) of the whole picture: from the image, else from the region, else as typed."""
    if image is None:
        return boxes.size or typed
    size = tuple(image.shape[1:3])
    if boxes.size not in (None, size):
        raise BadInput(
            f"The region belongs to a picture of {boxes.size[1]} × {boxes.size[0]}, but the image is {size[1]} × {size[0]}. "
            "Connect the picture from which the region was made, or no picture."
        )
    return size


def _pixels(name: str, default: int, least: int, tooltip: str) -> io.Input:
    return io.Int.Input(name, default=default, min=least, max=LARGEST, tooltip=tooltip)
