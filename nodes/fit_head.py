"""Fit Head: photos to head parameters."""

from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..flame.model import HeadModel
from ..host.encode import EncoderProvider
from ..host.fitting import fit_heads
from ..host.given_faces import read_given_faces
from ..host.images import from_image, to_image
from ..photos.heads import METHODS, ON_NO_FACE
from .sockets import HEAD, HEAD_MODEL, READER, given_faces, schema, which_face


class FitHead(io.ComfyNode):
    """IMAGE, CAPFACE_READER, HEAD_MODEL -> HEAD, preview, error."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "CapFaceFitHead",
            "Fit Head",
            description="Fits the head model to the face in a photo: by DECA, by the detector's landmarks, or by both.",
            search_aliases=["flame", "3dmm", "pose", "expression", "deca", "caphuman"],
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
                    tooltip="DECA also estimates shape, skin and light; it needs FLAME 2020 and DECA's file. The landmark fit "
                    "follows the face more closely, above all in extreme poses, and works with any head model. auto: DECA "
                    "refined by landmarks if both are available, else the available one.",
                ),
                io.Combo.Input(
                    "on_no_face",
                    options=list(ON_NO_FACE),
                    default=ON_NO_FACE[0],
                    optional=True,
                    tooltip="For photos that do not show the face. skip: leave them out of head and preview. hold last: repeat "
                    "the head of the previous frame.",
                ),
                io.Float.Input(
                    "smoothing",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Smooths the heads over the frames of a video; 0 for unrelated photos.",
                ),
                *given_faces(),
            ],
            outputs=[
                HEAD.Output(display_name="head"),
                io.Image.Output(display_name="preview"),
                io.Float.Output(
                    display_name="error",
                    tooltip="Root mean square distance of the landmarks in pixels, on average over the photos; NaN if the "
                    "head model has none.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        reader: EncoderProvider,
        head_model: HeadModel,
        face_landmarks: Any = None,
        bboxes: Any = None,
        **settings: Any,
    ) -> io.NodeOutput:
        """Fit one head to each photo."""
        images = from_image(image)
        given = read_given_faces(face_landmarks, bboxes, images)
        fitted, overlaid = fit_heads(images, reader, head_model, given=given, **settings)
        preview = to_image(overlaid)
        shown = {**ui.PreviewImage(preview, cls=cls).as_dict(), "text": (fitted.summary(),)}
        return io.NodeOutput(fitted.params, preview, fitted.error, ui=shown)
