"""Export Head and Import Head: heads for other tools, as numbers, motion and meshes, and numbers from them."""

import folder_paths
from comfy_api.latest import io, ui

from ..errors import BadInput, CapFaceError
from ..flame.io import arkit_csv, head_mesh, heads_from_csv, read_table, to_bvh, to_glb, to_obj, vectors_csv
from ..flame.model import HeadParams
from ..host import user_files
from ..host.meshes import to_file_3d, to_mesh
from .sockets import HEAD, HEAD_MODEL, by_hand, schema

BLENDSHAPES, VECTORS, MOTION, OBJ, GLB = (
    "blendshapes (CSV)",
    "FLAME vectors (CSV)",
    "motion (BVH)",
    "mesh (OBJ)",
    "mesh (GLB)",
)
ENDINGS = {BLENDSHAPES: ".csv", VECTORS: ".csv", MOTION: ".bvh", OBJ: ".obj", GLB: ".glb"}
TABLE = ".csv"
NO_FILE = "the text"
MOST_MESHES = 512


class ExportHead(io.ComfyNode):
    """HEAD, HEAD_MODEL -> a file in the output folder, its text, MESH and FILE_3D_GLB."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceExportHead",
            "Export Head",
            description="Writes a head, or a sequence of heads, for other tools: ARKit's 52 blendshapes or FLAME's vectors "
            "as a table with one row a frame, the motion of the joints, or meshes. The mesh also leaves the node for ComfyUI's "
            "3D nodes.",
            search_aliases=["arkit", "blendshapes", "flame", "smirk", "deca", "emoca", "bvh", "obj", "glb", "3d", "mesh"],
            inputs=[
                HEAD.Input("head"),
                HEAD_MODEL.Input("head_model"),
                io.Combo.Input(
                    "format",
                    options=list(ENDINGS),
                    default=BLENDSHAPES,
                    tooltip="blendshapes: ARKit's 52 coefficients. FLAME vectors: expression and jaw as DECA, EMOCA and SMIRK "
                    "have them, in the order of Arc2Face's expression adapter, then pose and gaze; needs FLAME 2020. motion: "
                    "the joints, for Blender and others. mesh: one file for each head.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="capface/head",
                    tooltip="File name within the output folder. A number is added. Variables such as %year% and %month% work.",
                ),
                io.Float.Input(
                    "frame_rate",
                    default=24.0,
                    min=0.1,
                    max=1000.0,
                    step=0.1,
                    optional=True,
                    tooltip="Frames a second of motion.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="text",
                    tooltip="The table, the motion or the OBJ file as text. Empty for GLB, which is not text.",
                ),
                io.String.Output(
                    display_name="file", tooltip="The first file's name within the output folder, for Preview 3D."
                ),
                io.Custom("MESH").Output(display_name="mesh", tooltip="The posed heads, in metres, for ComfyUI's 3D nodes."),
                io.Custom("FILE_3D_GLB").Output(
                    display_name="model_3d",
                    tooltip="The first head with its texture, for Preview 3D and Save 3D Model of newer versions of ComfyUI.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, head, head_model, format, filename_prefix, frame_rate=24.0):
        """Write the file or files."""
        if format in (OBJ, GLB) and head.batch > MOST_MESHES:
            raise BadInput(f"Expected at most {MOST_MESHES} heads for one file each, got {head.batch}. Export them in parts.")
        mesh = head_mesh(head_model, head)
        texts = {
            BLENDSHAPES: lambda: arkit_csv(head_model, head),
            VECTORS: lambda: vectors_csv(head_model, head),
            MOTION: lambda: to_bvh(head_model, head, frame_rate),
            OBJ: lambda: to_obj(mesh),
        }
        text = texts[format]() if format in texts else ""
        contents = [text.encode()] if format not in (OBJ, GLB) else []
        if format == OBJ:
            contents = [text.encode(), *(to_obj(mesh, i).encode() for i in range(1, head.batch))]
        elif format == GLB:
            contents = [to_glb(mesh, i) for i in range(head.batch)]
        paths = [
            user_files.save_numbered(filename_prefix, ENDINGS[format], lambda part, data=data: part.write_bytes(data))
            for data in contents
        ]
        name = paths[0].relative_to(folder_paths.get_output_directory()).as_posix()
        return io.NodeOutput(text, name, to_mesh(mesh), to_file_3d(mesh), ui=ui.PreviewText("\n".join(map(str, paths))))


class ImportHead(io.ComfyNode):
    """A table of numbers -> HEAD."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceImportHead",
            "Import Head",
            description="Reads expressions from a table with one row a frame: ARKit's blendshapes, as Live Link Face and "
            "other motion capture write them, or the vectors of DECA, EMOCA, SMIRK and Arc2Face. One row gives one head; "
            "without a table it is the average head.",
            search_aliases=["arkit", "blendshapes", "live link face", "flame", "smirk", "deca", "emoca", "csv", "mocap"],
            inputs=[
                HEAD_MODEL.Input("head_model"),
                io.Combo.Input(
                    "file",
                    options=[NO_FILE, *user_files.list_user_files(TABLE)],
                    default=NO_FILE,
                    tooltip="A CSV file in the input folder, or in the output folder if its name ends with [output].",
                ),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="A table with names in the first row, or rows of 50 (expression), 53 (expression, jaw), 55 "
                    "(expression, eyelids, jaw: SMIRK and Arc2Face) or 56 numbers (expression, rotation, jaw: DECA and EMOCA). "
                    "Used if no file is chosen. Empty: the base, or the average head.",
                ),
                by_hand(
                    HEAD,
                    "base",
                    tooltip="A head, or one a row, that keeps everything the table does not state: position, pose, shape, skin "
                    "and light. Without it, the average head.",
                ),
            ],
            outputs=[HEAD.Output(display_name="head")],
        )

    @classmethod
    def validate_inputs(cls, file):
        """Accept files that were added after the list was made."""
        try:
            if file != NO_FILE:
                user_files.find_user_file(file, TABLE)
        except CapFaceError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file, **_):
        """Return a text that changes when the file is edited."""
        return None if file == NO_FILE else user_files.user_file_fingerprint(file, TABLE)

    @classmethod
    def execute(cls, head_model, file, text="", base=None):
        """Read the table."""
        base = HeadParams.neutral() if base is None else base
        if file == NO_FILE:
            return io.NodeOutput(heads_from_csv(text, head_model, base) if text.strip() else base)
        return io.NodeOutput(read_table(user_files.find_user_file(file, TABLE), head_model, base, file))
