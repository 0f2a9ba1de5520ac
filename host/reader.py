"""What reads faces from photos, inside ComfyUI's memory management."""

from dataclasses import dataclass
from functools import cached_property

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import torch
from torch import Tensor

from ..errors import BadInput, MissingFile, MissingPackage, NoFaceFound
from ..flame.camera import pixels_to_frame
from ..models.crops import (
    deca_crop,
    deca_square,
    deca_square_from_box,
    deca_transform,
    facenet_face,
    ffhq_crop,
    move_box,
)
from ..models.deca import DecaCode, load_deca, split_code
from ..models.detection import FaceDetection, InsightFaceDetector, MtcnnDetector, choose_face, detector_problems
from ..models.facenet import load_facenet
from . import assets
from .identity import Identity

DETECTORS = ("auto", "insightface", "mtcnn")
CLIP_TOKENS = (257, 1024)
DECA_BATCH = 16


@dataclass(frozen=True)
class FaceReader:
    """Detector, FaceNet and DECA, each loaded when it is first needed."""

    detector_name: str
    """One of `DETECTORS`."""
    facenet_file: str
    """A file in models/facenet."""
    deca_file: str = assets.DECA.file
    """A file in models/deca."""

    @cached_property
    def _detector(self) -> InsightFaceDetector | MtcnnDetector:
        root = assets.folder(assets.INSIGHTFACE)
        name = self.detector_name
        if name == "auto":
            problems = detector_problems(root)
            name = next((n for n, problem in problems.items() if problem is None), None)
            if name is None:
                raise MissingPackage("No face detector is there. " + " Or: ".join(problems.values()))
        if name == "insightface":
            try:
                return InsightFaceDetector(root)
            except MissingFile:
                return InsightFaceDetector(root, "antelopev2")
        return MtcnnDetector()

    @cached_property
    def _facenet(self) -> comfy.model_patcher.ModelPatcher:
        return _patcher(load_facenet, assets.path_of(assets.FACENET, self.facenet_file))

    @cached_property
    def _deca(self) -> comfy.model_patcher.ModelPatcher:
        return _patcher(load_deca, assets.path_of(assets.DECA, self.deca_file))

    @property
    def has_deca(self) -> bool:
        """Whether DECA's file is there."""
        return assets.found(assets.DECA, self.deca_file) is not None

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
            square = deca_square_from_box(face.box) if face.points68 is None else deca_square(face.points68)
            transforms.append(deca_transform(*square))
            crops.append(deca_crop(image.cpu(), transforms[-1]))
        codes = []
        for batch in torch.stack(crops).split(DECA_BATCH):
            mm.throw_exception_if_processing_interrupted()
            mm.load_models_gpu([self._deca])
            codes.append(self._deca.model(batch.to(self._deca.load_device)).float().cpu())
        return split_code(torch.cat(codes)), torch.stack(transforms)

    def identity(self, images: Tensor, faces: list[FaceDetection], clip_vision, align: bool) -> tuple[Identity, Tensor]:
        """Read who is in the photos.

        Args:
            images: RGB `[B, 3, H, W]` in 0..1.
            faces: The face of each.
            clip_vision: ComfyUI's CLIP_VISION with CLIP ViT-L/14.
            align: Bring each face upright into the middle of a 512 × 512 portrait first, as the training photos were.

        Returns:
            The identity of B photos, and a preview RGB `[B, 3, 512, 1024]`: what CLIP and what FaceNet saw.
        """
        portraits, crops = [], []
        for image, face in zip(images, faces, strict=True):
            portrait, box = image.cpu(), face.box
            if align:
                portrait, transform = ffhq_crop(portrait, face.points5)
                box = move_box(transform, box)
            portraits.append(portrait)
            crops.append(facenet_face(portrait, box))
        portraits, crops = torch.stack(portraits), torch.stack(crops)
        identity = Identity(self._embed(crops), clip_tokens(clip_vision, portraits))
        return identity, _side_by_side(portraits, (crops * 128 + 127.5) / 255)

    @torch.inference_mode()
    def _embed(self, crops: Tensor) -> Tensor:
        patcher = self._facenet
        mm.load_models_gpu([patcher])
        return patcher.model(crops.to(patcher.load_device)).float().cpu()


def _patcher(load, path) -> comfy.model_patcher.ModelPatcher:
    """Load a small network for the host to move, as it moves its text encoders."""
    offload_device = mm.text_encoder_offload_device()
    network = load(path, device=offload_device, operations=comfy.ops.manual_cast)
    return comfy.model_patcher.ModelPatcher(network, mm.text_encoder_device(), offload_device)


def frame_points(faces: list[FaceDetection], height: int, width: int) -> Tensor:
    """Return the faces' landmarks in frame units (see `flame.camera`).

    Args:
        faces: B faces, found in images of one size.
        height: Of the images, in pixels.
        width: Of the images, in pixels.

    Returns:
        `[B, 68, 2]` where the detector gives 68 landmarks for all of them, else `[B, 5, 2]`.
    """
    dense = all(face.points68 is not None for face in faces)
    points = torch.stack([face.points68 if dense else face.points5 for face in faces])
    # A detector's integers are pixel centres, the camera's are pixel edges.
    return pixels_to_frame(points + 0.5, height, width)


def clip_tokens(clip_vision, portraits: Tensor) -> Tensor:
    """Read the local identity: CLIP ViT-L/14's last hidden state, before its last layer norm.

    Args:
        clip_vision: ComfyUI's CLIP_VISION.
        portraits: RGB `[B, 3, H, W]` in 0..1.

    Returns:
        float32 `[B, 257, 1024]` on the CPU.

    Raises:
        BadInput: if it is another CLIP.
    """
    tokens = clip_vision.encode_image(portraits.movedim(1, -1))["last_hidden_state"].float().cpu()
    if tuple(tokens.shape[1:]) != CLIP_TOKENS:
        raise BadInput(
            f"CapFace needs the image tokens of CLIP ViT-L/14 at 224 pixels, 257 of 1024 numbers; this CLIP vision model gives "
            f"{tokens.shape[1]} of {tokens.shape[2]}. Load openai/clip-vit-large-patch14 in Load CLIP Vision."
        )
    return tokens


def _side_by_side(*pictures: Tensor, height: int = 512) -> Tensor:
    """Scale `[B,3,H,W]` pictures to one height, put on squares of it, and join them from left to right."""
    panels = []
    for picture in pictures:
        scale = height / max(picture.shape[-2:])
        size = [max(round(side * scale), 1) for side in picture.shape[-2:]]
        panel = picture.new_ones(*picture.shape[:2], height, height)
        top, left = (height - size[0]) // 2, (height - size[1]) // 2
        scaled = torch.nn.functional.interpolate(picture, size, mode="bilinear", antialias=True)
        panel[:, :, top : top + size[0], left : left + size[1]] = scaled
        panels.append(panel)
    return torch.cat(panels, dim=-1)
