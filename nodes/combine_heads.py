"""Transfer Head and Animate Head: mixing two heads, and making sequences of heads."""

import math

from comfy_api.latest import io

from ..errors import BadInput
from ..flame.editing import EASINGS, TRANSFER_GROUPS, animate_keys, follow, transfer, turntable
from ..flame.model import HeadParams
from .sockets import HEAD, HEAD_MODEL, by_hand, schema

TAKES = {
    "position": (True, "Position and size in the frame."),
    "pose": (True, "Rotation of head and neck."),
    "expression": (False, "Expression, jaw and gaze."),
    "lighting": (False, "Light."),
    "shape": (False, "Shape of the skull, and skin: the head of the other person."),
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
            "default of the released code; its option 'all' takes the first four.",
            search_aliases=["flame", "pose", "expression", "relight", "light", "copy expression", "retarget"],
            inputs=[
                HEAD.Input("head", tooltip="The head to change. It keeps everything that is not taken from the other head."),
                HEAD.Input(
                    "other", tooltip="The head to take from: one head for all, or as many heads as the first input has."
                ),
                *(
                    io.Boolean.Input(group, default=TAKES[group][0], tooltip=f"Take: {TAKES[group][1]}")
                    for group in TRANSFER_GROUPS
                ),
            ],
            outputs=[HEAD.Output(display_name="head")],
        )

    @classmethod
    def execute(cls, head, other, **take):
        """Mix the heads."""
        return io.NodeOutput(transfer(head, other, [group for group in TRANSFER_GROUPS if take[group]]))


class AnimateHead(io.ComfyNode):
    """HEAD, HEAD_MODEL -> HEAD batch."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        more = "Further keys, in this order."
        return schema(
            "CapFaceAnimateHead",
            "Animate Head",
            description="Makes a sequence of heads that moves between keys, turns about its own centre, or follows another "
            "sequence. In a latent batch with as many frames, each frame gets one head.",
            search_aliases=["flame", "turntable", "keyframe", "interpolate", "video", "batch", "pose", "expression"],
            inputs=[
                HEAD.Input("head", tooltip="The head to move. For keys: the first key, or all keys as a batch."),
                HEAD_MODEL.Input("head_model"),
                io.Combo.Input(
                    "motion",
                    options=["keys", "turntable", "driving"],
                    default="keys",
                    tooltip="keys: moves through all heads, spread evenly over the frames. turntable: the head turns about its "
                    "centre. driving: the head follows the sequence at the input 'driving'.",
                ),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=1,
                    max=MAX_FRAMES,
                    tooltip="Number of frames. A driving sequence keeps its own length.",
                ),
                io.Combo.Input(
                    "easing",
                    options=list(EASINGS),
                    default="linear",
                    tooltip="Speed profile from key to key, or over the turn.",
                ),
                io.Boolean.Input(
                    "loop",
                    default=False,
                    tooltip="Connect the end to the start: keys lead back to the first key, and a partial turn swings back.",
                ),
                io.Float.Input(
                    "yaw_from",
                    default=0.0,
                    min=-3600.0,
                    max=3600.0,
                    step=1.0,
                    tooltip="Turntable: start of the turn, in degrees from the head's own pose. Positive values face right.",
                ),
                io.Float.Input(
                    "yaw_to",
                    default=360.0,
                    min=-3600.0,
                    max=3600.0,
                    step=1.0,
                    tooltip="Turntable: end of the turn, in degrees.",
                ),
                io.Boolean.Input(
                    "relative",
                    default=True,
                    tooltip="Driving: add the motion since the sequence's first frame. Off: take position, pose and expression "
                    "directly from the sequence.",
                ),
                by_hand(HEAD, "head_2", tooltip=more),
                by_hand(HEAD, "head_3", tooltip=more),
                by_hand(HEAD, "head_4", tooltip=more),
                HEAD.Input(
                    "driving", optional=True, tooltip="A sequence of heads, such as Fit Head makes from the frames of a video."
                ),
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
