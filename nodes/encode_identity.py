"""Identity: reference photos in, features of the person out."""

from comfy_api.latest import io, ui

from ..host.encode import encode_identity
from ..host.identity import COMBINE
from ..host.images import from_image, to_image
from ..photos.encoding import ON_NO_FACE, PARSE, EncodeOptions
from .sockets import IDENTITY, READER, schema, which_face


class EncodeIdentity(io.ComfyNode):
    """IMAGE, CAPFACE_READER, CLIP_VISION -> CAPFACE_IDENTITY, preview."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceEncodeIdentity",
            "Encode Identity",
            description="Reads who is in a photo: FaceNet's embedding of the face, and CLIP's tokens of the portrait with all "
            "but the face painted white. The preview shows the portrait, what CLIP sees of it, and what FaceNet sees.",
            search_aliases=["face", "reference", "id"],
            inputs=[
                io.Image.Input("image", tooltip="A photo of the person, several photos, or the frames of a video."),
                READER.Input("reader"),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="CLIP ViT-L/14 (openai/clip-vit-large-patch14). Not needed where the reader has an open_clip file.",
                ),
                *which_face(),
                io.Boolean.Input(
                    "align",
                    default=True,
                    tooltip="Bring the face upright into the middle of a 512 × 512 portrait first, as in the training photos. "
                    "Off reads the whole photo, as the released script does.",
                ),
                io.Combo.Input(
                    "on_no_face",
                    options=list(ON_NO_FACE),
                    default="error",
                    optional=True,
                    tooltip="What to do about a photo that does not show that face. error: stop. skip: leave it out, if any is "
                    "left. passthrough: give it no identity, so that the head alone is controlled in its frame.",
                ),
                io.Combo.Input(
                    "combine",
                    options=list(COMBINE),
                    default="each",
                    optional=True,
                    tooltip="Several photos. each: one identity a photo, for as many frames. As one person: their mean, their "
                    "median (a bad photo hardly moves it), the mean weighted by the detector's scores, or the best photo "
                    "alone, that with the largest face.",
                ),
                io.Combo.Input(
                    "parse",
                    options=list(PARSE),
                    default="auto",
                    optional=True,
                    tooltip="Paint all but the face white before CLIP reads it, as in training. auto: where the face parser's "
                    "file (79999_iter.pth in models/face_parsing) is there; without it the whole portrait is read, which "
                    "carries background and clothes over as well.",
                ),
                io.Boolean.Input(
                    "keep_hair", default=False, optional=True, tooltip="Leave the hair unpainted. The paper paints it."
                ),
                io.Boolean.Input(
                    "keep_ears",
                    default=False,
                    optional=True,
                    tooltip="Leave ears and earrings unpainted. The paper paints them.",
                ),
            ],
            outputs=[IDENTITY.Output(display_name="identity"), io.Image.Output(display_name="preview")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        image,
        reader,
        face,
        face_index,
        align,
        clip_vision=None,
        on_no_face="error",
        combine="each",
        parse="auto",
        keep_hair=False,
        keep_ears=False,
    ):
        """Encode the photos."""
        options = EncodeOptions(face, face_index, on_no_face, align, parse, keep_hair, keep_ears)
        identity, encoded = encode_identity(reader, from_image(image), clip_vision, options, combine)
        preview = to_image(encoded.preview)
        shown = {**ui.PreviewImage(preview, cls=cls).as_dict(), **ui.PreviewText("\n".join(encoded.notes)).as_dict()}
        return io.NodeOutput(identity, preview, ui=shown)
