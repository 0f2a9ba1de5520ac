"""Checking: what is there, and what therefore works."""

from comfy_api.latest import io, ui

from ..host import installation
from .sockets import schema


class CapFaceCheck(io.ComfyNode):
    """A report on files, packages and the machine."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceCheck",
            "CapFace Check",
            description="Reports which files CapFace finds, where it looked, what each is for and where it comes from, which "
            "packages are installed, and what therefore works. The first thing to attach to a question.",
            search_aliases=["doctor", "diagnose", "missing files"],
            inputs=[
                io.Boolean.Input(
                    "checksums",
                    default=False,
                    tooltip="Compare the files' MD5 with the published ones. Reads every file as a whole.",
                )
            ],
            outputs=[io.String.Output(display_name="report", tooltip="The report as text.")],
            is_output_node=True,
            not_idempotent=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        """Look anew each time: the folders may have changed."""
        return float("nan")

    @classmethod
    def execute(cls, checksums):
        """Write the report."""
        report = installation.check(checksums)
        return io.NodeOutput(report, ui=ui.PreviewText(report))
