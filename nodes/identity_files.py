"""Save Identity and Load Identity: identities as safetensors files."""

from comfy_api.latest import io, ui

from ..errors import CapFaceError
from ..host import user_files
from ..host.identity import ENDING, load_identity, write_identity
from .sockets import IDENTITY, schema


class SaveIdentity(io.ComfyNode):
    """CAPFACE_IDENTITY -> a file in the output folder."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceSaveIdentity",
            "Save Identity",
            description="Writes an identity to a safetensors file in the output folder. The file contains features, not "
            "photos. It can be loaded without the photos, the reader or CLIP, and used with any CapFace checkpoint.",
            search_aliases=["export face", "face model", "face id", "faceid"],
            inputs=[
                IDENTITY.Input("identity"),
                io.String.Input(
                    "filename_prefix",
                    default="capface/person",
                    tooltip="File name within the output folder. A number is added. Variables such as %year% and %month% work.",
                ),
            ],
            outputs=[io.String.Output(display_name="path")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, identity, filename_prefix):
        """Write the file."""
        path = user_files.save_numbered(filename_prefix, ENDING, lambda part: write_identity(part, identity))
        return io.NodeOutput(str(path), ui=ui.PreviewText(str(path)))


class LoadIdentity(io.ComfyNode):
    """A file -> CAPFACE_IDENTITY."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceLoadIdentity",
            "Load Identity",
            description="Reads an identity from a file made by Save Identity.",
            search_aliases=["import face", "face model", "face id", "faceid"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=user_files.list_user_files(ENDING),
                    tooltip="A file in the input folder, or in the output folder if its name ends with [output].",
                ),
            ],
            outputs=[IDENTITY.Output(display_name="identity")],
        )

    @classmethod
    def validate_inputs(cls, file):
        """Accept files that were added after the list was made."""
        try:
            user_files.find_user_file(file, ENDING)
        except CapFaceError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file):
        """Return a text that changes when the file is replaced."""
        return user_files.user_file_fingerprint(file, ENDING)

    @classmethod
    def execute(cls, file):
        """Read the file."""
        return io.NodeOutput(load_identity(user_files.find_user_file(file, ENDING)))
