"""Measuring: portraits against the person, the head and the prompt that were asked for."""

from comfy_api.latest import io, ui

from ..files import catalogue
from ..host import model_folders, portrait_metrics
from ..host.images import from_image, to_image
from ..models.clip import ACTIVATIONS
from .sockets import HEAD, HEAD_MODEL, IDENTITY, READER, by_hand, schema, which_face


class MeasurePortrait(io.ComfyNode):
    """IMAGE, CAPFACE_READER and what was asked for -> a table, a picture, and the main numbers."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceMeasure",
            "Measure Portrait",
            description="Measures portraits as the paper does: ID similarity, head precision, CLIP score and prompt accuracy. "
            "Each part needs its own inputs; what cannot be measured is named in the table with the reason.",
            search_aliases=["similarity", "evaluate", "clip score", "benchmark"],
            inputs=[
                io.Image.Input("image", tooltip="The portraits to measure; a row of the table for each."),
                READER.Input("reader"),
                *which_face(),
                IDENTITY.Input("identity", optional=True, tooltip="Who it should be, for the ID similarity."),
                by_hand(
                    io.Image,
                    "reference",
                    tooltip="Photos of who it should be, in place of an identity or beside it; ArcFace needs them. The largest "
                    "face is taken. One serves all portraits, fewer than portraits repeat.",
                ),
                HEAD.Input("head", optional=True, tooltip="The head that was asked for, for the landmark error and DECA."),
                HEAD_MODEL.Input("head_model", optional=True, tooltip="What the head belongs to."),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What the portraits should show, in plain words without weights, for the CLIP score.",
                ),
                io.String.Input(
                    "other_prompts",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Other prompts, one a line. The prompt is shown accurately where it scores above all of them.",
                ),
                io.Combo.Input(
                    "clip",
                    options=[portrait_metrics.NO_CLIP, *model_folders.files(catalogue.OPEN_CLIP)],
                    default=portrait_metrics.NO_CLIP,
                    optional=True,
                    tooltip="A CLIP of open_clip's layout in models/open_clip; needs the package open_clip_torch.",
                ),
                io.Combo.Input(
                    "clip_activation",
                    options=list(ACTIVATIONS),
                    default=ACTIVATIONS[0],
                    optional=True,
                    tooltip="OpenAI's weights were trained with QuickGELU, most others with GELU, which no tensor shows. auto "
                    "goes by open_clip_config.json beside the file, else by its name. The table says which was used.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="table", tooltip="A row for each portrait, their mean, and what was not measured."
                ),
                io.Image.Output(display_name="picture", tooltip="The heads found, over the portraits."),
                io.Float.Output(display_name="id_similarity", tooltip="Mean cosine of FaceNet; NaN where not measured."),
                io.Float.Output(display_name="landmark_error", tooltip="Mean, % of the face's height; NaN where not measured."),
                io.Float.Output(display_name="clip_score", tooltip="Mean cosine; NaN where not measured."),
                io.Float.Output(display_name="prompt_accuracy", tooltip="0 to 1; NaN where not measured."),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, clip=portrait_metrics.NO_CLIP, **_):
        """Measure again when the file was replaced."""
        return clip if clip == portrait_metrics.NO_CLIP else model_folders.fingerprint(catalogue.OPEN_CLIP, clip)

    @classmethod
    def execute(
        cls,
        image,
        reader,
        face,
        face_index,
        identity=None,
        reference=None,
        head=None,
        head_model=None,
        prompt="",
        other_prompts="",
        clip=portrait_metrics.NO_CLIP,
        clip_activation=ACTIVATIONS[0],
    ):
        """Measure the portraits."""
        wanted = portrait_metrics.References(
            identity=identity,
            photos=None if reference is None else from_image(reference),
            head=head,
            head_model=head_model,
            prompt=prompt,
            other_prompts=portrait_metrics.other_prompts(other_prompts),
            clip_file=clip,
            clip_activation=clip_activation,
        )
        found = portrait_metrics.measure(from_image(image), reader, wanted, face=face, face_index=face_index)
        table, picture = found.table(), to_image(found.picture)
        numbers = [
            found.mean(name)
            for name in (portrait_metrics.ID, portrait_metrics.LANDMARKS, portrait_metrics.CLIP, portrait_metrics.PROMPT)
        ]
        shown = ui.PreviewImage(picture, cls=cls).as_dict() | ui.PreviewText(table).as_dict()
        return io.NodeOutput(table, picture, *numbers, ui=shown)
