"""Heads: from photos to parameters."""

from comfy_api.latest import io, ui

from ..host.fitting import fit_heads
from ..host.images import from_image, to_image
from ..photos.heads import METHODS, ON_NO_FACE
from .sockets import HEAD, HEAD_MODEL, READER, schema, which_face


class FitHead(io.ComfyNode):
    """IMAGE, CAPFACE_READER, HEAD_MODEL -> HEAD, preview, error."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceFitHead",
            "Fit Head",
            description="Fits the head model to the face in a photo: by DECA, by the detector's landmarks, or by both.",
            search_aliases=["flame", "3dmm", "pose", "deca"],
            inputs=[
                io.Image.Input("image", tooltip="A photo; several photos, or the frames of a video, give as many heads."),
                READER.Input("reader"),
                HEAD_MODEL.Input("head_model"),
                *which_face(),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=METHODS[0],
                    optional=True,
                    tooltip="DECA reads shape, skin and light too, and needs FLAME 2020 and DECA's file. The landmark fit "
                    "meets the face more closely, extreme poses above all, on any head model. auto: both, DECA refined by "
                    "landmarks, where both are there, else what is there.",
                ),
                io.Combo.Input(
                    "on_no_face",
                    options=list(ON_NO_FACE),
                    default=ON_NO_FACE[0],
                    optional=True,
                    tooltip="For photos that do not show the face. skip: leave them out of head and preview. hold last: repeat "
                    "the head of the frame before.",
                ),
                io.Float.Input(
                    "smoothing",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Calms the heads of a video's frames; 0 for photos that do not belong together.",
                ),
            ],
            outputs=[
                HEAD.Output(display_name="head"),
                io.Image.Output(display_name="preview"),
                io.Float.Output(
                    display_name="error",
                    tooltip="Root mean square distance of the landmarks in pixels, on average over the photos; NaN where the "
                    "head model has none.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, image, reader, head_model, **settings):
        """Fit one head to each photo."""
        fitted, overlaid = fit_heads(from_image(image), reader, head_model, **settings)
        preview = to_image(overlaid)
        shown = {**ui.PreviewImage(preview, cls=cls).as_dict(), "text": (fitted.summary(),)}
        return io.NodeOutput(fitted.params, preview, fitted.error, ui=shown)
