"""Identity: reference photos in, features of the person out."""

from comfy_api.latest import io, ui

from ..host.images import from_image, to_image
from .sockets import IDENTITY, READER, schema, which_face


class EncodeIdentity(io.ComfyNode):
    """IMAGE, CAPFACE_READER, CLIP_VISION -> CAPFACE_IDENTITY, preview."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceEncodeIdentity",
            "Encode Identity",
            description="Reads who is in a photo: FaceNet's embedding of the face, and CLIP's tokens of the portrait.",
            search_aliases=["face", "reference", "id"],
            inputs=[
                io.Image.Input("image", tooltip="A photo of the person; several photos give as many identities."),
                READER.Input("reader"),
                io.ClipVision.Input("clip_vision", tooltip="CLIP ViT-L/14 (openai/clip-vit-large-patch14)."),
                *which_face(),
                io.Boolean.Input(
                    "align",
                    default=True,
                    tooltip="Bring the face upright into the middle of a 512 × 512 portrait first, as in the training photos. "
                    "Off reads the whole photo, as the released script does.",
                ),
            ],
            outputs=[IDENTITY.Output(display_name="identity"), io.Image.Output(display_name="preview")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, image, reader, clip_vision, face, face_index, align):
        """Encode the photos."""
        images = from_image(image)
        identity, seen = reader.identity(images, reader.faces(images, face, face_index), clip_vision, align)
        preview = to_image(seen)
        return io.NodeOutput(identity, preview, ui=ui.PreviewImage(preview, cls=cls))
