"""Composing heads: one with something of another, and sequences."""

import math

from comfy_api.latest import io

from ..errors import BadInput
from ..flame.editing import EASINGS, TRANSFER_GROUPS, animate_keys, follow, transfer, turntable
from ..flame.model import HeadParams
from .sockets import HEAD, HEAD_MODEL, by_hand, schema

TAKES = {
    "position": (True, "Place and size in the frame."),
    "pose": (True, "Rotation of head and neck."),
    "expression": (False, "Expression, jaw and gaze."),
    "lighting": (False, "Light."),
    "shape": (False, "Shape of the skull and the skin: another person's head."),
}
MAX_FRAMES = 4096


class TransferHead(io.ComfyNode):
    """HEAD, HEAD -> HEAD."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceTransferHead",
            "Transfer Head",
            description="Takes position, pose, expression, lighting or shape from another head. Position and pose are the "
            "released code's default, the first four its 'all'.",
            search_aliases=["flame", "pose transfer", "expression transfer", "relight"],
            inputs=[
                HEAD.Input("head", tooltip="What is not taken stays as it is here."),
                HEAD.Input("other", tooltip="Where it is taken from: one head, or as many as above."),
                *(
                    io.Boolean.Input(group, default=TAKES[group][0], tooltip=f"Take: {TAKES[group][1]}")
                    for group in TRANSFER_GROUPS
                ),
            ],
            outputs=[HEAD.Output(display_name="head")],
        )

    @classmethod
    def execute(cls, head, other, **take):
        """Mix the two."""
        return io.NodeOutput(transfer(head, other, [group for group in TRANSFER_GROUPS if take[group]]))


class AnimateHead(io.ComfyNode):
    """HEAD, HEAD_MODEL -> HEAD batch."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        more = "Next keys, in their order."
        return schema(
            "CapFaceAnimateHead",
            "Animate Head",
            description="Makes a sequence of heads: from key to key, turning about itself, or following another sequence. A "
            "latent batch of as many frames gets one head each.",
            search_aliases=["flame", "turntable", "keyframe", "interpolate", "video", "batch"],
            inputs=[
                HEAD.Input("head", tooltip="The head to move. For keys: the first key, or all of them as a batch."),
                HEAD_MODEL.Input("head_model"),
                io.Combo.Input(
                    "motion",
                    options=["keys", "turntable", "driving"],
                    default="keys",
                    tooltip="keys: through all heads, spread evenly over the frames. turntable: the head turns about its "
                    "centre. driving: the head follows the sequence at 'driving'.",
                ),
                io.Int.Input(
                    "frames", default=16, min=1, max=MAX_FRAMES, tooltip="Length. A driving sequence keeps its own length."
                ),
                io.Combo.Input(
                    "easing", options=list(EASINGS), default="linear", tooltip="Pace from key to key, or over the turn."
                ),
                io.Boolean.Input(
                    "loop",
                    default=False,
                    tooltip="Make the end flow into the start: keys lead back to the first one, a part of a turn swings back.",
                ),
                io.Float.Input(
                    "yaw_from",
                    default=0.0,
                    min=-3600.0,
                    max=3600.0,
                    step=1.0,
                    tooltip="Turntable: where the turn starts, in degrees from the head's own pose; positive faces the right.",
                ),
                io.Float.Input(
                    "yaw_to", default=360.0, min=-3600.0, max=3600.0, step=1.0, tooltip="Turntable: where the turn ends."
                ),
                io.Boolean.Input(
                    "relative",
                    default=True,
                    tooltip="Driving: add the motion since the sequence's first frame. Off takes position, pose and expression "
                    "as they are there.",
                ),
                by_hand(HEAD, "head_2", tooltip=more),
                by_hand(HEAD, "head_3", tooltip=more),
                by_hand(HEAD, "head_4", tooltip=more),
                HEAD.Input("driving", optional=True, tooltip="A sequence, such as Fit Head makes of a video's frames."),
            ],
            outputs=[HEAD.Output(display_name="heads")],
        )

    @classmethod
    def execute(
        cls, head, head_model, motion, frames, easing, loop, yaw_from, yaw_to, relative,
        head_2=None, head_3=None, head_4=None, driving=None,
    ):  # fmt: skip
        """Make the sequence."""
        if motion == "driving":
            if driving is None:
                raise BadInput("Animate Head: the motion 'driving' expects a sequence at the input 'driving'; connect one.")
            return io.NodeOutput(follow(head_model, head, driving, relative))
        if motion == "turntable":
            turn = math.radians(yaw_from), math.radians(yaw_to)
            return io.NodeOutput(turntable(head_model, head, frames, *turn, easing, loop))
        keys = HeadParams.cat([head, *(key for key in (head_2, head_3, head_4) if key is not None)])
        return io.NodeOutput(animate_keys(head_model, keys, frames, easing, loop))
