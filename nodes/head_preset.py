"""Head Preset: named poses, expressions and lights for a head."""

from comfy_api.latest import io

from ..flame.editing import edit_head
from ..flame.model import HeadModel, HeadParams
from ..host.head_presets import KEEP, choices, values_of
from .sockets import HEAD, HEAD_MODEL, schema

TOOLTIPS = {
    "pose": "Where the head looks. Left and right are the picture's.",
    "framing": "Where the head is in the picture, and how large.",
    "expression": "The expression, with the jaw.",
    "gaze": "Where the eyes look. Left and right are the picture's.",
    "light": "The light, by its name in portrait photography.",
}


class HeadPreset(io.ComfyNode):
    """HEAD, HEAD_MODEL, names -> HEAD."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "CapFaceHeadPreset",
            "Head Preset",
            description="Changes a head by names: a pose, a framing, an expression, a gaze, a light. They are the presets of "
            "Edit Head, which has a slider for everything else.",
            search_aliases=["pose", "expression", "emotion", "smile", "gaze", "light", "relight", "flame", "portrait"],
            inputs=[
                HEAD.Input("head"),
                HEAD_MODEL.Input("head_model"),
                *(
                    io.Combo.Input(kind, options=choices(kind), default=KEEP, tooltip=f"{tooltip} '{KEEP}' leaves it.")
                    for kind, tooltip in TOOLTIPS.items()
                ),
            ],
            outputs=[HEAD.Output(display_name="head")],
        )

    @classmethod
    def execute(cls, head: HeadParams, head_model: HeadModel, **chosen: str) -> io.NodeOutput:
        """Edit the heads."""
        return io.NodeOutput(edit_head(head_model, head, **values_of(**chosen)))
