"""Encode Identity: reference photos to the identity features of a person."""

from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..host.clip_vision import ClipVision
from ..host.encode import EncoderProvider, encode_identity
from ..host.given_faces import read_given_lists
from ..host.identity import COMBINE
from ..host.images import from_image, to_image
from ..photos.encoding import ON_NO_FACE, PARSE, EncodeOptions
from .sockets import IDENTITY, READER, as_list, given_faces, only, schema, which_face


class EncodeIdentity(io.ComfyNode):
    """IMAGE, CAPFACE_READER, CLIP_VISION -> CAPFACE_IDENTITY, preview."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "CapFaceEncodeIdentity",
            "Encode Identity",
            description="Encodes the person in a photo: FaceNet's embedding of the face, and CLIP's tokens of the portrait "
            "with everything except the face painted white. The preview shows the portrait, CLIP's input and FaceNet's input.",
            search_aliases=["face", "face id", "faceid", "reference photo", "id", "caphuman", "likeness", "portrait"],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="A photo of the person, several photos, or the frames of a video. A "
                    "list of photos, which may have different sizes, is encoded as one batch.",
                ),
                READER.Input("reader"),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="CLIP ViT-L/14 (openai/clip-vit-large-patch14). Not needed if the reader has an open_clip file.",
                ),
                *which_face(),
                io.Boolean.Input(
                    "align",
                    default=True,
                    tooltip="Bring the face upright into the middle of a 512 × 512 portrait first, as in the training photos. "
                    "Off encodes the whole photo, as the released script does.",
                ),
                io.Combo.Input(
                    "on_no_face",
                    options=list(ON_NO_FACE),
                    default="error",
                    optional=True,
                    tooltip="What to do about a photo that does not show that face. error: stop. skip: leave it out, if any is "
                    "left. passthrough: give it a null identity, so that only the head is controlled in its frame.",
                ),
                io.Combo.Input(
                    "combine",
                    options=list(COMBINE),
                    default="each",
                    optional=True,
                    tooltip="How several photos are combined. each: one identity per photo, one frame each. For one person: "
                    "mean, median (a bad photo hardly moves it), weighted (the mean weighted by the detection scores), or best "
                    "(only the photo with the largest face).",
                ),
                io.Combo.Input(
                    "parse",
                    options=list(PARSE),
                    default="auto",
                    optional=True,
                    tooltip="Paint everything except the face white for CLIP, as in training. auto: if the face parser's file "
                    "(79999_iter.pth in models/face_parsing) exists; otherwise the whole portrait is encoded, including "
                    "background and clothes.",
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
                *given_faces(),
            ],
            outputs=[IDENTITY.Output(display_name="identity"), io.Image.Output(display_name="preview")],
            is_output_node=True,
            is_input_list=True,
            advanced=["align", "on_no_face", "combine", "parse", "keep_hair", "keep_ears"],
        )

    @classmethod
    def execute(
        cls,
        image: list[Tensor] | Tensor,
        reader: list[EncoderProvider] | EncoderProvider,
        face: list[str] | str,
        face_index: list[int] | int,
        align: list[bool] | bool,
        clip_vision: list[ClipVision] | ClipVision | None = None,
        on_no_face: list[str] | str = "error",
        combine: list[str] | str = "each",
        parse: list[str] | str = "auto",
        keep_hair: list[bool] | bool = False,
        keep_ears: list[bool] | bool = False,
        face_landmarks: Any = None,
        bboxes: Any = None,
    ) -> io.NodeOutput:
        """Encode the photos. ComfyUI passes each input as a list, a script may pass single values."""
        listed = isinstance(image, list)
        batches = [from_image(batch) for batch in (image if isinstance(image, list) else [image])]
        given = read_given_lists(as_list(face_landmarks, listed), as_list(bboxes, listed), batches)
        settings = {"face": face, "face_index": face_index, "on_no_face": on_no_face, "align": align, "parse": parse,
                    "hair": keep_hair, "ears": keep_ears}  # fmt: skip
        options = EncodeOptions(**{name: only(name, value, listed) for name, value in settings.items()}, given=given)
        photos = batches[0] if len(batches) == 1 else [photo for batch in batches for photo in batch]
        clip = only("clip_vision", clip_vision, listed)
        provider, how = only("reader", reader, listed), only("combine", combine, listed)
        identity, encoded = encode_identity(provider, photos, clip, options, how)
        preview = to_image(encoded.preview)
        shown = {**ui.PreviewImage(preview, cls=cls).as_dict(), **ui.PreviewText("\n".join(encoded.notes)).as_dict()}
        return io.NodeOutput(identity, preview, ui=shown)
