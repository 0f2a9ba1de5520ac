"""Working with identities: mixing people, and taking a person's parts."""

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
                    tooltip="Its share of the mix, in relation to the other weights.",
                ),
            ]
        return schema(
            "CapFaceBlendIdentities",
            "Blend Identities",
            description="Mixes people, or photos of one person that were read apart, by weights. Identities of several frames "
            "mix frame by frame; chain the node for more.",
            search_aliases=["merge faces", "mix", "average"],
            inputs=inputs,
            outputs=[IDENTITY.Output(display_name="identity")],
        )

    @classmethod
    def execute(cls, **inputs):
        """Mix those that are connected."""
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
            description="Scales an identity's two parts, or takes one away: the global one (FaceNet, who it is) and the local "
            "one (CLIP, the face's detail). The paper's tables 2 and 3.",
            search_aliases=["ablation", "global", "local"],
            inputs=[
                IDENTITY.Input("identity"),
                io.Float.Input(
                    "global_strength",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.01,
                    tooltip="Scale of FaceNet's token. 0 multiplies it by zero, as a dropped identity is: local only.",
                ),
                io.Float.Input(
                    "local_strength",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.01,
                    tooltip="Scale of CLIP's tokens. 0 multiplies them by zero: global only, with the zeros taking attention. "
                    "0 local_tokens takes them away instead.",
                ),
                io.Int.Input(
                    "local_tokens",
                    default=RELEASED.local_tokens,
                    min=0,
                    max=RELEASED.local_tokens,
                    tooltip="How many of CLIP's 257 tokens stay: first the one that sees the whole portrait, then patches that "
                    "are evenly spread over it. The others are left out.",
                ),
            ],
            outputs=[IDENTITY.Output(display_name="identity")],
        )

    @classmethod
    def execute(cls, identity, global_strength, local_strength, local_tokens):
        """Take the parts."""
        return io.NodeOutput(take_parts(identity, global_strength, local_strength, local_tokens))
