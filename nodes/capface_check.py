"""CapFace Check: a report on files and packages, and on the features that work with them."""

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
            description="Reports the files that CapFace finds, the searched folders, each file's purpose and source, the "
            "installed packages, and the features that work with them. Attach this report when you ask for help.",
            search_aliases=["doctor", "diagnose", "missing files"],
            inputs=[
                io.Boolean.Input(
                    "checksums",
                    default=False,
                    tooltip="Compare the files' MD5 checksums with the published ones. This reads every file completely.",
                )
            ],
            outputs=[io.String.Output(display_name="report", tooltip="The report as text.")],
            is_output_node=True,
            not_idempotent=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        """Run the node each time, because the folders may have changed."""
        return float("nan")

    @classmethod
    def execute(cls, checksums):
        """Write the report."""
        report = installation.check(checksums)
        return io.NodeOutput(report, ui=ui.PreviewText(report))
