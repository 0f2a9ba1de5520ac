"""Blend Identities and Identity Parts: mixing identities, and scaling the parts of an identity."""

from comfy_api.latest import io

from ..host.identity import RELEASED, blend, take_parts
from .sockets import IDENTITY, by_hand, schema

SOCKETS = 4


class BlendIdentities(io.ComfyNode):
    """CAPFACE_IDENTITY, … -> CAPFACE_IDENTITY."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        inputs = []
        for i in range(1, SOCKETS + 1):
            inputs += [
                by_hand(IDENTITY, f"identity_{i}") if i > 2 else IDENTITY.Input(f"identity_{i}"),
                io.Float.Input(
                    f"weight_{i}",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    optional=i > 2,
                    tooltip="Weight of this identity, relative to the other weights.",
                ),
            ]
        return schema(
            "CapFaceBlendIdentities",
            "Blend Identities",
            description="Mixes people, or separately encoded photos of one person, by weights. Identities of several frames "
            "are mixed frame by frame. Chain the node to mix more than four.",
            search_aliases=["merge faces", "mix", "average"],
            inputs=inputs,
            outputs=[IDENTITY.Output(display_name="identity")],
        )

    @classmethod
    def execute(cls, **inputs):
        """Mix the connected identities."""
        connected = [i for i in range(1, SOCKETS + 1) if inputs.get(f"identity_{i}") is not None]
        return io.NodeOutput(
            blend([inputs[f"identity_{i}"] for i in connected], [inputs.get(f"weight_{i}", 1.0) for i in connected])
        )


class IdentityParts(io.ComfyNode):
    """CAPFACE_IDENTITY -> CAPFACE_IDENTITY."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceIdentityParts",
            "Identity Parts",
            description="Scales or removes the two parts of an identity: the global part (FaceNet: who the person is) and the "
            "local part (CLIP: the face's details). Reproduces the ablations of tables 2 and 3 of the paper.",
            search_aliases=["ablation", "global", "local"],
            inputs=[
                IDENTITY.Input("identity"),
                io.Float.Input(
                    "global_strength",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.01,
                    tooltip="Scale of FaceNet's token. 0 sets it to zero, as for a dropped identity: local part only.",
                ),
                io.Float.Input(
                    "local_strength",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.01,
                    tooltip="Scale of CLIP's tokens. 0 sets them to zero: global part only, but the zero tokens still receive "
                    "attention. Set local_tokens to 0 to remove them.",
                ),
                io.Int.Input(
                    "local_tokens",
                    default=RELEASED.local_tokens,
                    min=0,
                    max=RELEASED.local_tokens,
                    tooltip="Number of CLIP's 257 tokens to keep: first the token of the whole portrait, then patches spread "
                    "evenly over it. The others are removed.",
                ),
            ],
            outputs=[IDENTITY.Output(display_name="identity")],
        )

    @classmethod
    def execute(cls, identity, global_strength, local_strength, local_tokens):
        """Scale the parts."""
        return io.NodeOutput(take_parts(identity, global_strength, local_strength, local_tokens))
