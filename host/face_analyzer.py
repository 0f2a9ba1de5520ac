"""The face analyzer of Load Face Reader: files in ComfyUI's model folders, in ComfyUI's memory management."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import comfy.clip_vision
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
from torch import Tensor, nn

from ..errors import BadInput, CapFaceError, MissingFile
from ..files import catalogue
from ..models.faces import (
    FaceDetection,
    FaceLandmarker,
    FaceParser,
    FoundFace,
    InsightFaceDetector,
    MeshFace,
    MtcnnDetector,
    detector_problems,
    load_deca,
    load_face_landmarker,
    load_facenet,
    load_parser,
    open_detector,
)
from ..photos.analysis import FaceAnalyzer
from ..photos.encoding import WITHOUT_PARSER, PhotoEncoder
from ..photos.upright import UprightDetector
from . import model_folders
from .clip_vision import ClipVision, clip_tokens, load_open_clip
from .memory import managed

DETECTORS = ("auto", "insightface", "mtcnn")

log = logging.getLogger("capface")


@dataclass(frozen=True, eq=False)
class FolderNetworks:
    """Detector, FaceNet, DECA, face parser and CLIP from the model folders. Each is loaded when it is first needed."""

    detector_name: str
    """One of `DETECTORS`."""
    facenet_file: str
    """A file in models/facenet."""
    deca_file: str = catalogue.DECA.file
    """A file in models/deca."""
    parser_file: str = catalogue.PARSER.file
    """A file in models/face_parsing."""
    open_clip_file: str | None = None
    """A file in models/open_clip, or None."""
    min_confidence: float | None = None
    """The lowest score of a face, in 0..1; None for the detector's own."""

    @cached_property
    def detector(self) -> InsightFaceDetector | MtcnnDetector | None:
        """The face detector; None if neither package is installed, but the Face Landmarker's file is there."""
        folder = model_folders.folder(catalogue.INSIGHTFACE)
        if self.detector_name == "auto" and self.landmarker is not None and all(detector_problems(folder).values()):
            return None
        return open_detector(self.detector_name, folder, self.min_confidence)

    @cached_property
    def landmarker(self) -> "ManagedLandmarker | None":
        """The Face Landmarker, or None if neither of its files is in models/detection."""
        path = landmarker_path()
        return None if path is None else ManagedLandmarker(_patcher(load_face_landmarker, path))

    @cached_property
    def _facenet(self) -> comfy.model_patcher.ModelPatcher:
        return _patcher(load_facenet, model_folders.path_of(catalogue.FACENET, self.facenet_file))

    @cached_property
    def _deca(self) -> comfy.model_patcher.ModelPatcher:
        return _patcher(load_deca, model_folders.path_of(catalogue.DECA, self.deca_file))

    @cached_property
    def _parser(self) -> comfy.model_patcher.ModelPatcher:
        return _patcher(load_parser, model_folders.path_of(catalogue.PARSER, self.parser_file))

    @cached_property
    def clip_vision(self) -> comfy.clip_vision.ClipVisionModel | None:
        """The open_clip file as a CLIP_VISION, or None if no file was chosen."""
        if not self.open_clip_file:
            return None
        return load_open_clip(model_folders.path_of(catalogue.OPEN_CLIP, self.open_clip_file))

    def has_mesh(self) -> bool:
        """Return whether the Face Landmarker's file exists, so that faces have meshes."""
        return landmarker_path() is not None

    def has_parser(self) -> bool:
        """Return whether the face parser's file exists. If it does not, the log says so once."""
        return self._parser_found

    @cached_property
    def _parser_found(self) -> bool:
        found = model_folders.found(catalogue.PARSER, self.parser_file) is not None
        if not found:
            log.warning(WITHOUT_PARSER)
        return found

    def deca_problem(self) -> CapFaceError | None:
        """Return an error if DECA's file is missing."""
        try:
            model_folders.path_of(catalogue.DECA, self.deca_file)
        except MissingFile as error:
            return error
        return None

    def detect(self, image: Tensor) -> list[FaceDetection]:
        """Find all faces in an RGB image `[3, H, W]` in 0..1 on the CPU."""
        return UprightDetector(self.detector, self.landmarker, self.min_confidence).detect(image)

    def faces_in(self, image: Tensor, boxes: Tensor) -> list[FaceDetection]:
        """Read the faces in boxes `[N, 4]` of an RGB image `[3, H, W]` in 0..1 on the CPU, without a detector."""
        return UprightDetector(None, self.landmarker).in_boxes(image, boxes)

    def facenet(self, faces: Tensor) -> Tensor:
        """Embed faces `[B, 3, 160, 160]` as `[B, 512]`."""
        return _loaded(self._facenet)(faces.to(self._facenet.load_device))

    def parser(self, portraits: Tensor) -> Tensor:
        """Label the pixels of RGB portraits `[B, 3, H, W]` in 0..1: int64 `[B, H, W]`."""
        network = _loaded(self._parser)
        assert isinstance(network, FaceParser)
        return network.parse(portraits.to(self._parser.load_device))

    def deca(self, crops: Tensor) -> Tensor:
        """Encode RGB crops `[B, 3, 224, 224]` in 0..1 as `[B, 236]`."""
        return _loaded(self._deca)(crops.to(self._deca.load_device))


@dataclass(frozen=True, eq=False)
class ManagedLandmarker:
    """The Face Landmarker in ComfyUI's memory management, for images on the CPU."""

    patcher: comfy.model_patcher.ModelPatcher

    def __call__(self, image: Tensor, threshold: float = 0.5) -> list[tuple[FoundFace, MeshFace]]:
        """Find the faces of an RGB image `[3, H, W]` in 0..1 at any angle, and read their meshes."""
        return self._network()(image.to(self.patcher.load_device), threshold)

    def landmarks(self, image: Tensor, boxes: Tensor | None = None, eyes: Tensor | None = None) -> list[MeshFace]:
        """Read the meshes of the faces in boxes `[N, 4]` with eyes `[N, 2, 2]`."""
        return self._network().landmarks(image.to(self.patcher.load_device), boxes, eyes)

    def _network(self) -> FaceLandmarker:
        network = _loaded(self.patcher)
        assert isinstance(network, FaceLandmarker)
        return network


def landmarker_path() -> Path | None:
    """Return the Face Landmarker's file in models/detection: MediaPipe's, else ComfyUI's, or None."""
    return model_folders.found(catalogue.FACE_LANDMARKER) or model_folders.found(catalogue.COMFYUI_FACE_LANDMARKER)


def _patcher(load: Callable[..., nn.Module], path: Path) -> comfy.model_patcher.ModelPatcher:
    """Load a small network, which ComfyUI then moves as it moves its text encoders."""
    offload_device = mm.text_encoder_offload_device()
    network = load(path, device=offload_device, operations=comfy.ops.manual_cast)
    return managed(network, mm.text_encoder_device(), offload_device)


def _loaded(patcher: comfy.model_patcher.ModelPatcher) -> nn.Module:
    """Return the network, on the device where it computes."""
    mm.load_models_gpu([patcher])
    return patcher.model


@dataclass(frozen=True, eq=False)
class HostFaceAnalyzer(FaceAnalyzer):
    """The value of the CAPFACE_READER socket that Load Face Reader gives."""

    networks: FolderNetworks
    checkpoint: Callable[[], None] = mm.throw_exception_if_processing_interrupted

    def encoder(self, clip_vision: ClipVision | None) -> PhotoEncoder:
        """Return the identity encoder.

        Args:
            clip_vision: The connected CLIP_VISION; the open_clip file is used without it.

        Raises:
            BadInput: There is neither.
            MissingFile: The open_clip file is missing.
        """
        clip = clip_vision or self.networks.clip_vision
        if clip is None:
            raise BadInput(
                "The local identity is encoded by CLIP ViT-L/14: connect Load CLIP Vision to clip_vision, or choose an "
                "open_clip file in Load Face Reader."
            )
        return PhotoEncoder(self, lambda portraits: clip_tokens(clip, portraits))


def open_face_analyzer(
    detector: str,
    facenet: str,
    deca: str = catalogue.DECA.file,
    parser: str = catalogue.PARSER.file,
    open_clip: str | None = None,
    min_confidence: float | None = None,
) -> HostFaceAnalyzer:
    """Make a face analyzer of files in the model folders; nothing is loaded yet.

    Args:
        detector: One of `DETECTORS`.
        facenet: A file in models/facenet.
        deca: A file in models/deca.
        parser: A file in models/face_parsing.
        open_clip: A file in models/open_clip, or None.
        min_confidence: The lowest score of a face, in 0..1; None for the detector's own.
    """
    return HostFaceAnalyzer(FolderNetworks(detector, facenet, deca, parser, open_clip, min_confidence))
