"""Reuse ControlNet: evaluates the ControlNets of a conditioning at some steps only."""

from comfy_api.latest import io

from ..host.control import keep_controls
from .sockets import schema


class ReuseControlNet(io.ComfyNode):
    """positive, negative -> positive, negative."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceReuseControlNet",
            "Reuse ControlNet",
            description="Makes ComfyUI's own ControlNets faster: those that were applied before this node are evaluated at "
            "some steps only, and their results are kept for the steps in between. CapFace itself is not changed: Apply "
            "CapFace has its own evaluate_every.",
            search_aliases=["controlnet", "speed", "cache", "faster"],
            inputs=[
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Int.Input(
                    "evaluate_every",
                    default=5,
                    min=1,
                    max=100,
                    tooltip="ControlNets are evaluated at every n-th step of the schedule. 1 evaluates every step, as without "
                    "this node.",
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Conditioning.Output(display_name="negative")],
        )

    @classmethod
    def execute(cls, positive, negative, evaluate_every=5) -> io.NodeOutput:
        """Copy the chains of controls."""
        return io.NodeOutput(*keep_controls([positive, negative], evaluate_every))
