"""Keeping heads: as JSON files that a person can read and edit."""

import logging

from comfy_api.latest import io, ui

from ..errors import CapFaceError
from ..files.atomic import write_atomically
from ..flame.io import heads_from_json, heads_to_json
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
            description="Writes a head, or a sequence of them, to a JSON file in the output folder, in words and degrees. It "
            "can be edited by hand and loaded again without losing a digit.",
            search_aliases=["flame", "export head", "json"],
            inputs=[
                HEAD.Input("head"),
                io.String.Input(
                    "filename_prefix",
                    default="capface/head",
                    tooltip="Name within the output folder; a number is added. %year%, %month% and the like are filled in.",
                ),
                HEAD_MODEL.Input(
                    "head_model", optional=True, tooltip="Notes in the file which kind of head model its numbers belong to."
                ),
            ],
            outputs=[io.String.Output(display_name="path")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, head, filename_prefix, head_model=None):
        """Write the file."""
        kind = None if head_model is None else head_model.kind
        path = user_files.numbered_file(filename_prefix, ENDING)
        text = heads_to_json(head, kind)
        write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
        return io.NodeOutput(str(path), ui=ui.PreviewText(str(path)))


class LoadHead(io.ComfyNode):
    """A file -> HEAD."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceLoadHead",
            "Load Head",
            description="Reads a head, or a sequence of them, from a JSON file made by Save Head.",
            search_aliases=["flame", "import head", "json"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=user_files.list_user_files(ENDING),
                    tooltip="From the input folder, or from the output folder where [output] stands after the name.",
                ),
                HEAD_MODEL.Input(
                    "head_model",
                    optional=True,
                    tooltip="Warns in the log when the file was made with another kind of head model.",
                ),
            ],
            outputs=[HEAD.Output(display_name="head")],
        )

    @classmethod
    def validate_inputs(cls, file):
        """Let files be loaded that came after the list was made."""
        try:
            user_files.find_user_file(file, ENDING)
        except CapFaceError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file, **_):
        """Load again when the file was edited."""
        return user_files.user_file_fingerprint(file, ENDING)

    @classmethod
    def execute(cls, file, head_model=None):
        """Read the file."""
        stored = heads_from_json(user_files.find_user_file(file, ENDING).read_bytes(), file)
        if head_model is not None and stored.kind not in (None, head_model.kind):
            log.warning(
                "%s was made with a head model of kind '%s' and is used with one of kind '%s': position, pose and light carry "
                "over, shape, expression and skin mean something else there.",
                file, stored.kind, head_model.kind,
            )  # fmt: skip
        return io.NodeOutput(stored.params)
