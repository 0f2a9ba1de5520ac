"""Heads: from photos to parameters."""

from comfy_api.latest import io, ui

from ..flame.fit import fit_landmarks
from ..flame.preview import overlay
from ..flame.render import render_head
from ..host.images import from_image, to_image
from ..host.reader import frame_points
from .sockets import HEAD, HEAD_MODEL, READER, schema, which_face


class FitHead(io.ComfyNode):
    """IMAGE, CAPFACE_READER, HEAD_MODEL -> HEAD, preview."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceFitHead",
            "Fit Head",
            description="Fits the head model to the face in a photo, by the detector's landmarks.",
            search_aliases=["flame", "3dmm", "pose"],
            inputs=[
                io.Image.Input("image", tooltip="A photo; several photos, or the frames of a video, give as many heads."),
                READER.Input("reader"),
                HEAD_MODEL.Input("head_model"),
                *which_face(),
            ],
            outputs=[HEAD.Output(display_name="head"), io.Image.Output(display_name="preview")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, image, reader, head_model, face, face_index):
        """Fit one head to each photo."""
        images = from_image(image)
        size = images.shape[-2:]
        fit = fit_landmarks(head_model, frame_points(reader.faces(images, face, face_index), *size))
        preview = to_image(overlay(images.cpu(), render_head(head_model, fit.params, *size)))
        return io.NodeOutput(fit.params, preview, ui=ui.PreviewImage(preview, cls=cls))
