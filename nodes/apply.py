"""Apply CapFace: identity and head into the sampler's conditioning."""

from comfy_api.latest import io

from ..host.control import apply_capface
from .sockets import CAPFACE, HEAD_CONDITION, IDENTITY, schema


class ApplyCapFace(io.ComfyNode):
    """positive, negative, CAPFACE, condition, identity -> positive, negative."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceApply",
            "Apply CapFace",
            description="Adds a person and a head to positive and negative conditioning, beside any other ControlNet. "
            "Chain one node per person.",
            search_aliases=["caphuman", "controlnet", "face"],
            inputs=[
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                CAPFACE.Input("capface"),
                HEAD_CONDITION.Input("condition", tooltip="The head: position, pose, expression and light."),
                IDENTITY.Input("identity", optional=True, tooltip="The person. Without one, the head alone is controlled."),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=10.0, step=0.01, tooltip="Scale of all residuals; 0 is no control."
                ),
                io.Float.Input(
                    "tau",
                    default=1000.0,
                    min=0.0,
                    max=1000.0,
                    step=1.0,
                    tooltip="ID dropout τ: the identity acts at timesteps up to τ. 1000 keeps it throughout, 0 never uses it; "
                    "lower values follow the head more closely and resemble the person less.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Share of the schedule after which CapFace begins to act.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Share of the schedule after which it no longer acts.",
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Conditioning.Output(display_name="negative")],
        )

    @classmethod
    def execute(
        cls, positive, negative, capface, condition, strength, tau, start_percent, end_percent, identity=None
    ) -> io.NodeOutput:
        """Attach the control."""
        window = (start_percent, end_percent)
        control = {"tau": tau, "strength": strength, "timestep_percent_range": window}
        return io.NodeOutput(*apply_capface((positive, negative), capface, condition, identity, **control))
