"""Measure Portrait: portraits against the wanted person, head and prompt."""

from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..files import catalogue
from ..flame.model import HeadModel, HeadParams
from ..host import model_folders, portrait_metrics
from ..host.encode import EncoderProvider
from ..host.identity import Identity
from ..host.images import from_image, to_image
from ..models.clip import ACTIVATIONS
from .sockets import HEAD, HEAD_MODEL, IDENTITY, READER, by_hand, schema, which_face


class MeasurePortrait(io.ComfyNode):
    """IMAGE, CAPFACE_READER and references -> a table, a picture, and the main results."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "CapFaceMeasure",
            "Measure Portrait",
            description="Measures portraits as the paper does: ID similarity, head precision, CLIP score and prompt accuracy. "
            "Each part needs its own inputs; the table names the parts that cannot be measured, with the reasons.",
            search_aliases=["similarity", "evaluate", "clip score", "benchmark"],
            inputs=[
                io.Image.Input("image", tooltip="The portraits to measure; each gets a row of the table."),
                READER.Input("reader"),
                *which_face(),
                IDENTITY.Input("identity", optional=True, tooltip="The wanted identity, for the ID similarity."),
                by_hand(
                    io.Image,
                    "reference",
                    tooltip="Photos of the wanted person, instead of an identity or in addition to it; ArcFace needs them. The "
                    "largest face is used. One photo serves all portraits; fewer photos than portraits repeat.",
                ),
                HEAD.Input("head", optional=True, tooltip="The wanted head, for the landmark error and DECA."),
                HEAD_MODEL.Input("head_model", optional=True, tooltip="The head model of the head."),
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
                    tooltip="Other prompts, one per line. The prompt counts as accurate if it scores above all of them.",
                ),
                io.Combo.Input(
                    "clip",
                    options=[portrait_metrics.NO_CLIP, *model_folders.files(catalogue.OPEN_CLIP)],
                    default=portrait_metrics.NO_CLIP,
                    optional=True,
                    tooltip="A CLIP in open_clip's layout, in models/open_clip; needs the package open_clip_torch.",
                ),
                io.Combo.Input(
                    "clip_activation",
                    options=list(ACTIVATIONS),
                    default=ACTIVATIONS[0],
                    optional=True,
                    tooltip="OpenAI's weights were trained with QuickGELU, most others with GELU; the tensors do not show it. "
                    "auto follows open_clip_config.json beside the file, else the file's name. The table says which was used.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="table", tooltip="One row per portrait, their mean, and the parts that were not measured."
                ),
                io.Image.Output(display_name="picture", tooltip="The fitted heads over the portraits."),
                io.Float.Output(display_name="id_similarity", tooltip="Mean cosine of FaceNet; NaN if not measured."),
                io.Float.Output(display_name="landmark_error", tooltip="Mean, % of the face's height; NaN if not measured."),
                io.Float.Output(display_name="clip_score", tooltip="Mean cosine; NaN if not measured."),
                io.Float.Output(display_name="prompt_accuracy", tooltip="0 to 1; NaN if not measured."),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, clip: str = portrait_metrics.NO_CLIP, **_: Any) -> Any:
        """Return a value that changes when the CLIP file is replaced."""
        return clip if clip == portrait_metrics.NO_CLIP else model_folders.fingerprint(catalogue.OPEN_CLIP, clip)

    @classmethod
    def execute(
        cls,
        image: Tensor,
        reader: EncoderProvider,
        face: str,
        face_index: int,
        identity: Identity | None = None,
        reference: Tensor | None = None,
        head: HeadParams | None = None,
        head_model: HeadModel | None = None,
        prompt: str = "",
        other_prompts: str = "",
        clip: str = portrait_metrics.NO_CLIP,
        clip_activation: str = ACTIVATIONS[0],
    ) -> io.NodeOutput:
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
        means = [
            found.mean(name)
            for name in (portrait_metrics.ID, portrait_metrics.LANDMARKS, portrait_metrics.CLIP, portrait_metrics.PROMPT)
        ]
        shown = ui.PreviewImage(picture, cls=cls).as_dict() | ui.PreviewText(table).as_dict()
        return io.NodeOutput(table, picture, *means, ui=shown)
