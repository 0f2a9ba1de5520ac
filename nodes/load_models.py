"""Loading: the CapFace checkpoint, and what reads faces."""

import torch
from comfy_api.latest import io

from ..files import catalogue
from ..host import capface_model, face_analyzer, missing_models, model_folders
from .sockets import CAPFACE, READER, schema

NONE, AUTO = "none", "auto"
DTYPES = {"auto": None, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


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
                    options=model_folders.choices(catalogue.CAPHUMAN),
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
    def validate_inputs(cls, checkpoint):
        """Refuse what is not there before anything runs."""
        return model_folders.found(catalogue.CAPHUMAN, checkpoint) is not None or model_folders.missing_text(
            catalogue.CAPHUMAN, checkpoint
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint, dtype):
        """Load again when the file was replaced."""
        return model_folders.fingerprint(catalogue.CAPHUMAN, checkpoint), dtype

    @classmethod
    def execute(cls, checkpoint, dtype):
        """Load the file."""
        path = model_folders.path_of(catalogue.CAPHUMAN, checkpoint)
        return io.NodeOutput(capface_model.load_model(path, checkpoint, DTYPES[dtype]))


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
                io.Combo.Input("checkpoint", options=model_folders.choices(catalogue.CAPHUMAN), tooltip="The file to convert."),
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
    def validate_inputs(cls, checkpoint):
        """Refuse what is not there."""
        return LoadCapFace.validate_inputs(checkpoint)

    @classmethod
    def execute(cls, checkpoint, dtype, filename, overwrite):
        """Write the file."""
        path = model_folders.path_of(catalogue.CAPHUMAN, checkpoint)
        target = capface_model.convert_checkpoint(
            path, model_folders.new_file(catalogue.CAPHUMAN, filename, overwrite), DTYPES.get(dtype)
        )
        return io.NodeOutput(str(target))


class LoadFaceAnalyzer(io.ComfyNode):
    """Detector, FaceNet, DECA, face parser and CLIP -> CAPFACE_READER."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return schema(
            "CapFaceLoadFaceReader",
            "Load Face Reader",
            description="What reads faces from photos: face detector, FaceNet, DECA, face parser and, where no CLIP_VISION is "
            "connected, CLIP. Files are asked for when a node needs them.",
            inputs=[
                io.Combo.Input(
                    "detector",
                    options=list(face_analyzer.DETECTORS),
                    default="auto",
                    tooltip="insightface (68 landmarks, files in models/insightface) or MTCNN (5 landmarks, from the package "
                    "facenet-pytorch). auto takes the first that is there.",
                ),
                io.Combo.Input(
                    "facenet",
                    options=model_folders.choices(catalogue.FACENET),
                    tooltip="FaceNet trained on VGGFace2, in models/facenet: the global identity.",
                ),
                io.Combo.Input(
                    "deca",
                    options=[AUTO, *model_folders.choices(catalogue.DECA)],
                    default=AUTO,
                    optional=True,
                    tooltip="DECA, in models/deca: reads FLAME heads from photos, for Fit Head. "
                    "auto takes the first file there.",
                ),
                io.Combo.Input(
                    "parser",
                    options=[AUTO, *model_folders.choices(catalogue.PARSER)],
                    default=AUTO,
                    optional=True,
                    tooltip="Face parser, in models/face_parsing: all but the face is painted white before CLIP reads it. "
                    "Without its file the whole portrait is read, unless Encode Identity demands it. "
                    "auto takes the first file there.",
                ),
                io.Combo.Input(
                    "open_clip",
                    options=[NONE, *model_folders.files(catalogue.OPEN_CLIP)],
                    default=NONE,
                    optional=True,
                    tooltip="CLIP ViT-L/14 by OpenAI in open_clip's layout, in models/open_clip, for those who have that file: "
                    "stands in where no CLIP_VISION is connected, with the same tokens.",
                ),
            ],
            outputs=[READER.Output(display_name="reader")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, facenet):
        """Refuse a FaceNet that is not there, where an identity will be read with it; heads do without."""
        if model_folders.found(catalogue.FACENET, facenet):
            return True
        spared = facenet in model_folders.choices(catalogue.FACENET) and missing_models.spared(
            getattr(cls.hidden, "unique_id", None)
        )
        return spared or model_folders.missing_text(catalogue.FACENET, facenet)

    @classmethod
    def fingerprint_inputs(cls, detector, facenet, deca=AUTO, parser=AUTO, open_clip=NONE):
        """Load again when a file was replaced."""
        files = {
            catalogue.FACENET: facenet,
            catalogue.DECA: deca,
            catalogue.PARSER: parser,
            catalogue.OPEN_CLIP: open_clip,
        }
        return detector, *(model_folders.fingerprint(asset, _file(asset, name)) for asset, name in files.items())

    @classmethod
    def execute(cls, detector, facenet, deca=AUTO, parser=AUTO, open_clip=NONE):
        """Make the face analyzer; networks are loaded when they are first needed."""
        deca, parser = _file(catalogue.DECA, deca), _file(catalogue.PARSER, parser)
        clip = None if open_clip == NONE else open_clip
        return io.NodeOutput(face_analyzer.open_face_analyzer(detector, facenet, deca, parser, clip))


def _file(asset: catalogue.Asset, name: str) -> str:
    """The file of a name, so that a workflow need not know what an optional file is called here."""
    return model_folders.choices(asset)[0] if name == AUTO else name
