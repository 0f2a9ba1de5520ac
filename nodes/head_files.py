"""Save Head and Load Head: heads as JSON files that people can read and edit."""

import logging

from comfy_api.latest import io, ui

from ..errors import CapFaceError
from ..flame.io import heads_to_json, read_heads
from ..host import user_files
from .sockets import HEAD, HEAD_MODEL, schema

ENDING = ".json"
log = logging.getLogger("capface")


class SaveHead(io.ComfyNode):
    """HEAD -> a file in the output folder."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceSaveHead",
            "Save Head",
            description="Writes a head, or a sequence of heads, to a JSON file in the output folder, with named values and "
            "degrees. The file can be edited by hand, and loads again without loss of precision.",
            search_aliases=["flame", "export head", "json", "save pose", "save expression"],
            inputs=[
                HEAD.Input("head"),
                io.String.Input(
                    "filename_prefix",
                    default="capface/head",
                    tooltip="File name within the output folder. A number is added. Variables such as %year% and %month% work.",
                ),
                HEAD_MODEL.Input(
                    "head_model", optional=True, tooltip="Records in the file the kind of head model that its values belong to."
                ),
            ],
            outputs=[io.String.Output(display_name="path")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, head, filename_prefix, head_model=None):
        """Write the file."""
        kind = None if head_model is None else head_model.kind
        text = heads_to_json(head, kind)
        path = user_files.save_numbered(filename_prefix, ENDING, lambda part: part.write_text(text, encoding="utf-8"))
        return io.NodeOutput(str(path), ui=ui.PreviewText(str(path)))


class LoadHead(io.ComfyNode):
    """A file -> HEAD."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceLoadHead",
            "Load Head",
            description="Reads a head, or a sequence of heads, from a JSON file made by Save Head.",
            search_aliases=["flame", "import head", "json", "load pose", "load expression"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=user_files.list_user_files(ENDING),
                    tooltip="A file in the input folder, or in the output folder if its name ends with [output].",
                ),
                HEAD_MODEL.Input(
                    "head_model",
                    optional=True,
                    tooltip="Used to log a warning if the file was made with another kind of head model.",
                ),
            ],
            outputs=[HEAD.Output(display_name="head")],
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
    def fingerprint_inputs(cls, file, **_):
        """Return a text that changes when the file is edited."""
        return user_files.user_file_fingerprint(file, ENDING)

    @classmethod
    def execute(cls, file, head_model=None):
        """Read the file."""
        stored = read_heads(user_files.find_user_file(file, ENDING), file)
        if head_model is not None and stored.kind not in (None, head_model.kind):
            log.warning(
                "%s was made with a head model of kind '%s' and is used with one of kind '%s'. Position, pose and light carry "
                "over; shape, expression and skin have other meanings there.",
                file, stored.kind, head_model.kind,
            )  # fmt: skip
        return io.NodeOutput(stored.params)
