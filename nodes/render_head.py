"""Render Head: condition maps of heads."""

import logging

from comfy_api.latest import io, ui
from torch import Tensor

from ..flame.render import (
    BACKENDS,
    BUILT_IN_BACKEND,
    HeadCondition,
    landmark_picture,
    landmark_pixels,
    normal_colors,
    render_head,
)
from ..host.images import to_image, to_mask
from ..host.memory import require_memory
from .sockets import HEAD, HEAD_CONDITION, HEAD_MODEL, schema


class RenderHead(io.ComfyNode):
    """HEAD, HEAD_MODEL -> HEAD_CONDITION, and pictures of its maps."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceRenderHead",
            "Render Head",
            description="Makes the head condition for Apply CapFace, and shows its maps. During sampling, the condition is "
            "rendered at the size of the latent. Width and height only affect the pictures of this node.",
            search_aliases=["flame", "normal", "landmarks", "caphuman", "pose", "relight"],
            inputs=[
                HEAD.Input("head"),
                HEAD_MODEL.Input("head_model"),
                io.Int.Input("width", default=512, min=16, max=8192, step=8, tooltip="Width of the pictures, in pixels."),
                io.Int.Input("height", default=512, min=16, max=8192, step=8, tooltip="Height of the pictures, in pixels."),
                io.Combo.Input(
                    "backend",
                    options=list(BACKENDS),
                    default=BUILT_IN_BACKEND,
                    optional=True,
                    tooltip="Renderer of pictures and condition. pytorch3d is the released code's and needs that package.",
                ),
            ],
            outputs=[
                HEAD_CONDITION.Output(display_name="condition"),
                io.Image.Output(display_name="normal", tooltip="Surface normals as colours."),
                io.Image.Output(display_name="albedo", tooltip="The skin's colour without light."),
                io.Image.Output(display_name="lambertian", tooltip="The lit head."),
                io.Mask.Output(display_name="mask", tooltip="1 where the head is."),
                io.Image.Output(display_name="landmarks", tooltip="68 landmarks as white dots on black."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, head, head_model, width, height, backend=BUILT_IN_BACKEND):
        """Render the maps."""
        require_memory(head.batch, height, width)
        maps = render_head(head_model, head, height, width, backend)
        warn_about_empty_frames("Render Head", maps.alpha)
        landmarks = landmark_picture(landmark_pixels(head_model, head, height, width), height, width)
        lambertian = to_image(maps.lambertian)
        return io.NodeOutput(
            HeadCondition(head_model, head, backend),
            to_image(normal_colors(maps)),
            to_image(maps.albedo),
            lambertian,
            to_mask(maps.alpha),
            to_image(landmarks),
            ui=ui.PreviewImage(lambertian, cls=cls),
        )


def warn_about_empty_frames(node: str, alpha: Tensor) -> None:
    """Log a warning that names the heads outside the frame, by the masks of all heads `[B, 1, H, W]`."""
    empty = (alpha.flatten(1).amax(1) == 0).nonzero().flatten().tolist()
    if empty:
        logging.getLogger("capface").warning(
            "%s: head %s of %d is outside the frame. Its maps are empty and have no effect.",
            node, ", ".join(str(frame + 1) for frame in empty), len(alpha),
        )  # fmt: skip
