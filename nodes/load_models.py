"""Load and convert CapFace checkpoints, and load the networks that analyze faces."""

from typing import Any

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
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "CapFaceLoad",
            "Load CapFace",
            description="Loads the CapFace network from the released caphuman.ckpt or from a safetensors file made from it.",
            search_aliases=["caphuman", "face id", "faceid", "portrait", "face", "identity"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=model_folders.choices(catalogue.CAPHUMAN),
                    tooltip="A file in models/capface. Base model, VAE and text encoder in the same file are ignored.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default="auto",
                    tooltip="Data type of the weights. auto: ComfyUI's choice for a ControlNet on this machine.",
                ),
            ],
            outputs=[CAPFACE.Output(display_name="capface")],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str) -> bool | str:
        """Refuse a missing file before anything runs."""
        return model_folders.found(catalogue.CAPHUMAN, checkpoint) is not None or model_folders.missing_text(
            catalogue.CAPHUMAN, checkpoint
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str, dtype: str) -> Any:
        """Return a value that changes when the file is replaced."""
        return model_folders.fingerprint(catalogue.CAPHUMAN, checkpoint), dtype

    @classmethod
    def execute(cls, checkpoint: str, dtype: str) -> io.NodeOutput:
        """Load the file."""
        path = model_folders.path_of(catalogue.CAPHUMAN, checkpoint)
        return io.NodeOutput(capface_model.load_model(path, checkpoint, DTYPES[dtype]))


class ConvertCapFace(io.ComfyNode):
    """A file of models/capface -> a safetensors file beside it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "CapFaceConvert",
            "Convert CapFace to safetensors",
            description="Writes CapFace's part of a checkpoint to a safetensors file in the same folder. Run it once.",
            is_output_node=True,
            inputs=[
                io.Combo.Input("checkpoint", options=model_folders.choices(catalogue.CAPHUMAN), tooltip="The file to convert."),
                io.Combo.Input(
                    "dtype",
                    options=["as it is", "float32", "float16", "bfloat16"],
                    default="as it is",
                    tooltip="Data type of the new file. float16 halves its size (0.7 GB for the released network).",
                ),
                io.String.Input("filename", default="capface.safetensors", tooltip="Name of the new file in models/capface."),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace an existing file of that name."),
            ],
            outputs=[io.String.Output(display_name="path")],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str) -> bool | str:
        """Refuse a missing file."""
        return LoadCapFace.validate_inputs(checkpoint)

    @classmethod
    def execute(cls, checkpoint: str, dtype: str, filename: str, overwrite: bool) -> io.NodeOutput:
        """Write the file."""
        path = model_folders.path_of(catalogue.CAPHUMAN, checkpoint)
        target = capface_model.convert_checkpoint(
            path, model_folders.new_file(catalogue.CAPHUMAN, filename, overwrite), DTYPES.get(dtype), replace=overwrite
        )
        return io.NodeOutput(str(target))


class LoadFaceAnalyzer(io.ComfyNode):
    """Detector, FaceNet, DECA, face parser and CLIP -> CAPFACE_READER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "CapFaceLoadFaceReader",
            "Load Face Reader",
            description="Loads the networks that analyze faces in photos: face detector, FaceNet, DECA, face parser and, if no "
            "CLIP_VISION is connected, CLIP. A file is only required when a node needs it.",
            inputs=[
                io.Combo.Input(
                    "detector",
                    options=list(face_analyzer.DETECTORS),
                    default="auto",
                    tooltip="insightface (68 landmarks, files in models/insightface) or MTCNN (5 landmarks, from the package "
                    "facenet-pytorch). auto uses the first one that is available.",
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
                    tooltip="DECA, in models/deca: estimates FLAME heads from photos, for Fit Head. "
                    "auto uses the first file in that folder.",
                ),
                io.Combo.Input(
                    "parser",
                    options=[AUTO, *model_folders.choices(catalogue.PARSER)],
                    default=AUTO,
                    optional=True,
                    tooltip="Face parser, in models/face_parsing: everything except the face is painted white for CLIP. "
                    "Without its file the whole portrait is encoded, unless Encode Identity requires the parser. "
                    "auto uses the first file in that folder.",
                ),
                io.Combo.Input(
                    "open_clip",
                    options=[NONE, *model_folders.files(catalogue.OPEN_CLIP)],
                    default=NONE,
                    optional=True,
                    tooltip="CLIP ViT-L/14 by OpenAI in open_clip's layout, in models/open_clip: replaces CLIP_VISION if "
                    "none is connected, with the same tokens.",
                ),
                io.Float.Input(
                    "min_confidence",
                    default=0.0,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    optional=True,
                    tooltip="The lowest score of a face. 0 keeps the detector's own threshold. Lower it for drawings and faces "
                    "that are not found, raise it if other things are taken for faces.",
                ),
            ],
            outputs=[READER.Output(display_name="reader")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, facenet: str) -> bool | str:
        """Refuse a missing FaceNet file if an identity will be encoded with it; fitting heads does not need it."""
        if model_folders.found(catalogue.FACENET, facenet):
            return True
        known = facenet in model_folders.choices(catalogue.FACENET)
        if known and not missing_models.needs_facenet(getattr(cls.hidden, "unique_id", None)):
            return True
        return model_folders.missing_text(catalogue.FACENET, facenet)

    @classmethod
    def fingerprint_inputs(
        cls,
        detector: str,
        facenet: str,
        deca: str = AUTO,
        parser: str = AUTO,
        open_clip: str = NONE,
        min_confidence: float = 0.0,
    ) -> Any:
        """Return a value that changes when a file is replaced."""
        files = {
            catalogue.FACENET: facenet,
            catalogue.DECA: deca,
            catalogue.PARSER: parser,
            catalogue.OPEN_CLIP: open_clip,
        }
        fingerprints = [model_folders.fingerprint(asset, _file(asset, name)) for asset, name in files.items()]
        meshes = [model_folders.fingerprint(asset) for asset in (catalogue.FACE_LANDMARKER, catalogue.COMFYUI_FACE_LANDMARKER)]
        return detector, *fingerprints, *meshes, min_confidence

    @classmethod
    def execute(
        cls,
        detector: str,
        facenet: str,
        deca: str = AUTO,
        parser: str = AUTO,
        open_clip: str = NONE,
        min_confidence: float = 0.0,
    ) -> io.NodeOutput:
        """Make the face analyzer; networks are loaded when they are first needed."""
        deca, parser = _file(catalogue.DECA, deca), _file(catalogue.PARSER, parser)
        clip = None if open_clip == NONE else open_clip
        return io.NodeOutput(face_analyzer.open_face_analyzer(detector, facenet, deca, parser, clip, min_confidence or None))


def _file(asset: catalogue.Asset, name: str) -> str:
    """Return the file of a choice. "auto" frees workflows from the names of optional files."""
    return model_folders.choices(asset)[0] if name == AUTO else name
