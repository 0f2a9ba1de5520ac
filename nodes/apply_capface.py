"""Apply CapFace: adds an identity and a head to the sampler's conditioning."""

from comfy_api.latest import io

from ..host.control import EDGES, OVERLAPS, HeadControl, apply_capface, read_keyframes
from ..host.images import from_mask
from .sockets import CAPFACE, HEAD_CONDITION, IDENTITY, by_hand, not_connected, schema


class ApplyCapFace(io.ComfyNode):
    """positive, negative, CAPFACE, condition, identity -> positive, negative."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceApply",
            "Apply CapFace",
            description="Adds a person and a head to the positive and negative conditioning. Works together with "
            "other ControlNets. Chain one node per person.",
            search_aliases=[
                "caphuman",
                "portrait",
                "face id",
                "faceid",
                "identity",
                "controlnet",
                "face",
                "likeness",
                "keyframe",
            ],
            inputs=[
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                CAPFACE.Input("capface"),
                HEAD_CONDITION.Input("condition", tooltip="The head: position, pose, expression and light."),
                IDENTITY.Input("identity", optional=True, tooltip="The person. If not connected, only the head is controlled."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How strongly head and person act: the scale of all residuals F. 0 turns CapFace off.",
                ),
                io.Float.Input(
                    "tau",
                    display_name="identity_until (tau)",
                    default=1000.0,
                    min=0.0,
                    max=1000.0,
                    step=1.0,
                    tooltip="Likeness against pose, the paper's ID dropout \N{GREEK SMALL LETTER TAU}: the identity acts at "
                    "timesteps up to "
                    "\N{GREEK SMALL LETTER TAU}: always with 1000, never with 0. "
                    "With lower values the result follows the head more closely and resembles the person less.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Fraction of the schedule after which CapFace starts to act. 0: from the first step.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Fraction of the schedule after which CapFace stops acting. 1: until the last step.",
                ),
                by_hand(io.Mask, "mask", tooltip="Limits the person to this region. The mask is stretched over the frame."),
                io.Combo.Input(
                    "mask_edge",
                    options=list(EDGES),
                    default="hard",
                    optional=True,
                    tooltip="Edge of the head's own mask M. hard: 0 or 1, as in the paper. soft: as the network predicts it.",
                ),
                io.Combo.Input(
                    "overlap",
                    options=list(OVERLAPS),
                    default="add",
                    optional=True,
                    tooltip="What happens where this head overlaps heads applied before it. add: all of them act, as in the "
                    "paper. nearest: only the nearest one acts, which is the largest head in the frame.",
                ),
                by_hand(
                    CAPFACE,
                    "head_control",
                    tooltip="Post-hoc head control \N{GREEK SMALL LETTER PI}\N{STAR OPERATOR}: a CapFace trained without "
                    "identity, or the same CapFace. It acts without identity, also outside the mask, scaled by "
                    "\N{GREEK SMALL LETTER ALPHA}.",
                ),
                io.Float.Input(
                    "alpha",
                    display_name="head_control_strength (alpha)",
                    default=0.5,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    optional=True,
                    tooltip="Strength \N{GREEK SMALL LETTER ALPHA} of the post-hoc head control "
                    "\N{GREEK SMALL LETTER PI}\N{STAR OPERATOR}. With higher values the result follows "
                    "the head more closely and resembles the person a little less.",
                ),
                io.Float.Input(
                    "head_control_until",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    optional=True,
                    tooltip="Fraction of the schedule after which the post-hoc head control "
                    "\N{GREEK SMALL LETTER PI}\N{STAR OPERATOR} stops acting.",
                ),
                io.Float.Input(
                    "likeness",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    optional=True,
                    tooltip="Factor \N{GREEK SMALL LETTER GAMMA} of the identity's effect. 1 is the paper's, and 0 leaves the "
                    "identity out. Above 1 the result resembles the person more and follows the head a little less. Values "
                    "other than 0 and 1 need a second evaluation while the identity acts.",
                ),
                io.Int.Input(
                    "evaluate_every",
                    default=1,
                    min=1,
                    max=100,
                    optional=True,
                    tooltip="CapFace is evaluated at every n-th step of the schedule, and its result is kept for the steps in "
                    "between. 1 evaluates every step, as in the paper. With 5 and at least 20 steps, CapFace costs about a "
                    "fifth and portraits hardly differ.",
                ),
                by_hand(
                    io.Conditioning,
                    "third",
                    tooltip="A third conditioning, for guiders that take three: cond2 of DualCFGGuider, or empty_conditioning "
                    "of PerpNegGuider. It gets the same person and head.",
                ),
                io.String.Input(
                    "keyframes",
                    default="",
                    optional=True,
                    tooltip="Strength and \N{GREEK SMALL LETTER TAU} over the steps and over the frames of a batch. Lines, or "
                    "parts between semicolons, such as '0%..40%: strength 1..0.5; 60%: tau 300; frames 0..8: strength 0..1'. "
                    "Strengths are factors of the input strength. A value holds until the next line.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Conditioning.Output(display_name="third", tooltip="The third conditioning, if one is connected."),
            ],
            advanced=[
                "start_percent",
                "end_percent",
                "mask_edge",
                "overlap",
                "alpha",
                "head_control_until",
                "evaluate_every",
                "keyframes",
            ],
        )

    @classmethod
    def execute(
        cls,
        positive,
        negative,
        capface,
        condition,
        strength,
        tau,
        start_percent,
        end_percent,
        identity=None,
        mask=None,
        mask_edge="hard",
        overlap="add",
        head_control=None,
        alpha=0.5,
        head_control_until=1.0,
        likeness=1.0,
        evaluate_every=1,
        third=None,
        keyframes="",
    ) -> io.NodeOutput:
        """Add the controls to the conditioning."""
        given = (positive, negative) if third is None else (positive, negative, third)
        made = apply_capface(
            given,
            capface,
            condition,
            identity,
            strength=strength,
            tau=tau,
            window=(start_percent, end_percent),
            mask=None if mask is None else from_mask(mask),
            edge=mask_edge,
            overlap=overlap,
            head_control=None if head_control is None else HeadControl(head_control, alpha, head_control_until),
            likeness=likeness,
            every=evaluate_every,
            keyframes=read_keyframes(keyframes),
        )
        return io.NodeOutput(*made, *([] if third is not None else [not_connected("third")]))
