"""The head model: built in, or FLAME."""

from comfy_api.latest import io

from ..files import catalogue
from ..host import head_models, model_folders
from .sockets import HEAD_MODEL, schema


class LoadHeadModel(io.ComfyNode):
    """A file of models/flame, or the built-in head -> HEAD_MODEL."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceLoadHeadModel",
            "Load Head Model",
            description="The parametric head that poses, lights and shapes the condition. The built-in head needs no file; "
            "FLAME 2020, with which CapFace was trained, is read from models/flame.",
            search_aliases=["flame", "3dmm", "load flame"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=head_models.list_head_models(),
                    default=head_models.BUILT_IN,
                    tooltip="The built-in head is made by code. The released checkpoint was trained on FLAME heads: position, "
                    "pose and light carry over, the shape of the face less. For FLAME choose generic_model.pkl (with "
                    "landmark_embedding.npy, head_template.obj and FLAME_texture.npz beside it) or a safetensors file of them.",
                )
            ],
            outputs=[HEAD_MODEL.Output(display_name="head_model")],
        )

    @classmethod
    def fingerprint_inputs(cls, model):
        """Load again when a file was replaced."""
        return head_models.head_model_fingerprint(model)

    @classmethod
    def execute(cls, model):
        """Load the head."""
        return io.NodeOutput(head_models.load_head_model(model))


class ConvertHeadModel(io.ComfyNode):
    """FLAME's files in models/flame -> one safetensors file beside them."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceConvertHead",
            "Convert Head Model to safetensors",
            description="Writes what CapFace needs of FLAME's files (model, landmarks, UVs, skin) to one safetensors file in "
            "the same folder, once. It loads at once and holds no code.",
            search_aliases=["flame", "chumpy"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "model",
                    options=model_folders.choices(catalogue.FLAME),
                    tooltip="FLAME's file, such as generic_model.pkl.",
                ),
                io.String.Input("filename", default="flame.safetensors", tooltip="Name of the new file, in models/flame."),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace a file of that name."),
            ],
            outputs=[io.String.Output(display_name="path")],
        )

    @classmethod
    def execute(cls, model, filename, overwrite):
        """Write the file."""
        return io.NodeOutput(str(head_models.convert_head_model(model, filename, overwrite)))
