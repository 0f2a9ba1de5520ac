"""Loading: the CapFace checkpoint, what reads faces, and the head model."""

import torch
from comfy_api.latest import io

from ..flame.builtin import builtin_head
from ..host import assets, model, reader
from .sockets import CAPFACE, HEAD_MODEL, READER, schema

DTYPES = {"auto": None, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
BUILT_IN = "built-in"


class LoadCapFace(io.ComfyNode):
    """A file of models/capface -> CAPFACE."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceLoad",
            "Load CapFace",
            description="Loads the CapFace network from the released caphuman.ckpt or from a safetensors file made of it.",
            search_aliases=["caphuman", "face", "identity"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=assets.choices(assets.CAPHUMAN),
                    tooltip="A file in models/capface. Base model, VAE and text encoder in the same file are left alone.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default="auto",
                    tooltip="Type of the weights. auto: what ComfyUI would choose for a ControlNet on this machine.",
                ),
            ],
            outputs=[CAPFACE.Output(display_name="capface")],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint, dtype):
        """Load again when the file was replaced."""
        return assets.fingerprint(assets.CAPHUMAN, checkpoint), dtype

    @classmethod
    def execute(cls, checkpoint, dtype):
        """Load the file."""
        path = assets.path_of(assets.CAPHUMAN, checkpoint)
        return io.NodeOutput(model.load_model(path, checkpoint, DTYPES[dtype]))


class ConvertCapFace(io.ComfyNode):
    """A file of models/capface -> a safetensors file beside it."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceConvert",
            "Convert CapFace to safetensors",
            description="Writes what CapFace needs of a checkpoint to a safetensors file in the same folder, once.",
            is_output_node=True,
            inputs=[
                io.Combo.Input("checkpoint", options=assets.choices(assets.CAPHUMAN), tooltip="The file to convert."),
                io.Combo.Input(
                    "dtype",
                    options=["as it is", "float32", "float16", "bfloat16"],
                    default="as it is",
                    tooltip="Type to store. float16 halves the file (0.7 GB for the released network).",
                ),
                io.String.Input("filename", default="capface.safetensors", tooltip="Name of the new file, in models/capface."),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace a file of that name."),
            ],
            outputs=[io.String.Output(display_name="path")],
        )

    @classmethod
    def execute(cls, checkpoint, dtype, filename, overwrite):
        """Write the file."""
        path = assets.path_of(assets.CAPHUMAN, checkpoint)
        target = model.convert_checkpoint(path, assets.new_file(assets.CAPHUMAN, filename, overwrite), DTYPES.get(dtype))
        return io.NodeOutput(str(target))


class LoadFaceReader(io.ComfyNode):
    """Detector and FaceNet -> CAPFACE_READER."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceLoadFaceReader",
            "Load Face Reader",
            description="What reads faces from photos: face detector and FaceNet. Files are asked for when a node needs them.",
            inputs=[
                io.Combo.Input(
                    "detector",
                    options=list(reader.DETECTORS),
                    default="auto",
                    tooltip="insightface (68 landmarks, files in models/insightface) or MTCNN (5 landmarks, from the package "
                    "facenet-pytorch). auto takes the first that is there.",
                ),
                io.Combo.Input(
                    "facenet",
                    options=assets.choices(assets.FACENET),
                    tooltip="FaceNet trained on VGGFace2, in models/facenet: the global identity.",
                ),
            ],
            outputs=[READER.Output(display_name="reader")],
        )

    @classmethod
    def fingerprint_inputs(cls, detector, facenet):
        """Load again when the file was replaced."""
        return detector, assets.fingerprint(assets.FACENET, facenet)

    @classmethod
    def execute(cls, detector, facenet):
        """Make the reader; nothing is loaded before it is needed."""
        return io.NodeOutput(reader.FaceReader(detector, facenet))


class LoadHeadModel(io.ComfyNode):
    """The head model -> HEAD_MODEL."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceLoadHeadModel",
            "Load Head Model",
            description="The parametric head that poses, lights and shapes the condition. The built-in head needs no file.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[BUILT_IN],
                    default=BUILT_IN,
                    tooltip="The built-in head is made by code. The released checkpoint was trained on FLAME heads: position, "
                    "pose and light carry over, the shape of the face less.",
                )
            ],
            outputs=[HEAD_MODEL.Output(display_name="head_model")],
        )

    @classmethod
    def execute(cls, model):
        """Build the head."""
        return io.NodeOutput(builtin_head())
