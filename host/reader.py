"""What reads faces from photos, inside ComfyUI's memory management."""

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import torch
from torch import Tensor

from ..errors import NoFaceFound
from ..files import catalogue
from ..flame.model import detected_to_frame
from ..models.faces import (
    DecaCode,
    FaceDetection,
    InsightFaceDetector,
    MtcnnDetector,
    choose_face,
    load_deca,
    load_facenet,
    load_parser,
    open_detector,
    split_code,
)
from ..photos.portrait import deca_face
from . import model_folders
from .clip_vision import load_open_clip
from .identity import RELEASED, Features
from .memory import managed

DETECTORS = ("auto", "insightface", "mtcnn")
DECA_BATCH = 16
WITHOUT_PARSER = (
    f"There is no face parser: CLIP reads the whole portrait, background and clothes too. "
    f"{catalogue.PARSER.how_to_get()} and put it into models/{catalogue.PARSER.folder}, or set parse to off."
)

log = logging.getLogger("capface")


@dataclass(frozen=True)
class FaceReader:
    """Detector, FaceNet, DECA, face parser and CLIP, each loaded when it is first needed."""

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

    features: ClassVar[Features] = RELEASED
    """What identities hold that are read with it."""
    without_parser: ClassVar[str] = WITHOUT_PARSER
    """What it says where portraits are read without a face parser."""
    locates: ClassVar[bool] = True
    """Whether it says where a face lies in the picture, as fitting a head needs."""

    @cached_property
    def _detector(self) -> InsightFaceDetector | MtcnnDetector:
        return open_detector(self.detector_name, model_folders.folder(catalogue.INSIGHTFACE))

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
    def can_parse(self) -> bool:
        """Whether the face parser's file is there; the log says so, once, if it is not."""
        there = model_folders.found(catalogue.PARSER, self.parser_file) is not None
        if not there:
            log.warning(WITHOUT_PARSER)
        return there

    @cached_property
    def clip_vision(self):
        """The host's CLIP_VISION made of the open_clip file, or None where no file was chosen."""
        return self.open_clip_file and load_open_clip(model_folders.path_of(catalogue.OPEN_CLIP, self.open_clip_file))

    @property
    def has_deca(self) -> bool:
        """Whether DECA's file is there."""
        return model_folders.found(catalogue.DECA, self.deca_file) is not None

    def faces(self, images: Tensor, which: str, index: int) -> list[FaceDetection]:
        """Find one face in each image.

        Args:
            images: RGB `[B, 3, H, W]` in 0..1.
            which: The order in which faces are counted, as for `choose_face`.
            index: Which face in that order.

        Returns:
            B faces.

        Raises:
            NoFaceFound: naming the image, if there is no face, or not that many.
        """
        found = []
        for i, image in enumerate(images):
            try:
                found.append(self._face(image, which, index))
            except NoFaceFound as error:
                raise NoFaceFound(f"Image {i + 1} of {len(images)}: {error}") from None
        return found

    def faces_where_there_are(self, images: Tensor, which: str, index: int) -> list[FaceDetection | None]:
        """Find one face in each image that shows it, as `faces` does; None for the others.

        Raises:
            NoFaceFound: if no image shows it.
        """
        found, last = [], None
        for image in images:
            try:
                found.append(self._face(image, which, index))
            except NoFaceFound as error:
                found.append(None)
                last = error
        if not any(found):
            raise NoFaceFound(f"None of {len(images)} images shows the face. The last one: {last}")
        return found

    def _face(self, image: Tensor, which: str, index: int) -> FaceDetection:
        mm.throw_exception_if_processing_interrupted()
        return choose_face(self._detector.detect(image.cpu()), which, index, image_size=image.shape[-2:])

    @torch.inference_mode()
    def deca(self, images: list[Tensor], faces: list[FaceDetection]) -> tuple[DecaCode, Tensor]:
        """Read the heads in photos by DECA.

        Args:
            images: B of RGB `[3, H, W]` in 0..1.
            faces: The face of each.

        Returns:
            DECA's code of B heads on the CPU, and the crops that it refers to: `[B, 3, 3]`, image pixel to crop pixel.
        """
        transforms, crops = [], []
        for image, face in zip(images, faces, strict=True):
            crop, transform = deca_face(image.cpu(), face)
            crops.append(crop)
            transforms.append(transform)
        codes = []
        for batch in torch.stack(crops).split(DECA_BATCH):
            mm.throw_exception_if_processing_interrupted()
            mm.load_models_gpu([self._deca])
            codes.append(self._deca.model(batch.to(self._deca.load_device)).float().cpu())
        return split_code(torch.cat(codes)), torch.stack(transforms)

    @torch.inference_mode()
    def embed(self, faces: Tensor) -> Tensor:
        """Embed faces by FaceNet.

        Args:
            faces: `[B, 3, 160, 160]`, from `facenet_face`.

        Returns:
            `[B, 512]` on the CPU, each of length 1.
        """
        mm.load_models_gpu([self._facenet])
        return self._facenet.model(faces.to(self._facenet.load_device)).float().cpu()

    @torch.inference_mode()
    def parse(self, portraits: Tensor) -> Tensor:
        """Find what each pixel of a portrait is.

        Args:
            portraits: RGB `[B, 3, H, W]` in 0..1.

        Returns:
            Labels int64 `[B, H, W]` on the CPU, see `models.faces.parsing`.
        """
        mm.load_models_gpu([self._parser])
        return self._parser.model.parse(portraits.to(self._parser.load_device)).cpu()


def _patcher(load, path) -> comfy.model_patcher.ModelPatcher:
    """Load a small network for the host to move, as it moves its text encoders."""
    offload_device = mm.text_encoder_offload_device()
    network = load(path, device=offload_device, operations=comfy.ops.manual_cast)
    return managed(network, mm.text_encoder_device(), offload_device)


def frame_points(faces: list[FaceDetection], height: int, width: int) -> Tensor:
    """Return the faces' landmarks in frame units (see `flame.model.camera`).

    Args:
        faces: B faces, found in images of one size.
        height: Of the images, in pixels.
        width: Of the images, in pixels.

    Returns:
        `[B, 68, 2]` where the detector gives 68 landmarks for all of them, else `[B, 5, 2]`.
    """
    dense = all(face.points68 is not None for face in faces)
    points = torch.stack([face.points68 if dense else face.points5 for face in faces])
    return detected_to_frame(points, height, width)
