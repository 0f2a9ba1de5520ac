"""Face analysis of photos: finding one face in each, and running FaceNet, the face parser and DECA on it.

Files, devices and memory management are the business of the `FaceNetworks` that a caller supplies. ComfyUI's nodes and the
preparation of training sets supply different ones and share everything else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..errors import BadInput, CapFaceError, NoFaceFound
from ..models.faces import FaceDetection, choose_face
from .given import GivenBoxes, GivenFaces
from .pictures import blankness
from .portrait import cut_portrait, deca_face
from .upright import Detector, Landmarker, UprightDetector

DECA_BATCH = 16
"""Crops that DECA takes at once."""


@runtime_checkable
class FaceNetworks(Protocol):
    """The networks of a `FaceAnalyzer`. Each method runs one of them where the implementation wants it to run."""

    def has_parser(self) -> bool:
        """Return whether `parser` can be called."""
        ...

    def deca_problem(self) -> CapFaceError | None:
        """Return the reason why `deca` cannot be called, or None if it can."""
        ...

    def detect(self, image: Tensor) -> list[FaceDetection]:
        """Find all faces in an RGB image `[3, H, W]` in 0..1 on the CPU, at any angle; with meshes if they can be read."""
        ...

    def faces_in(self, image: Tensor, boxes: Tensor) -> list[FaceDetection]:
        """Read the faces in boxes `[N, 4]` of an RGB image `[3, H, W]` in 0..1 on the CPU, as `UprightDetector.in_boxes`."""
        ...

    def facenet(self, faces: Tensor) -> Tensor:
        """Embed faces `[B, 3, 160, 160]` as `[B, 512]`."""
        ...

    def parser(self, portraits: Tensor) -> Tensor:
        """Label the pixels of RGB portraits `[B, 3, H, W]` in 0..1: int64 `[B, H, W]`."""
        ...

    def deca(self, crops: Tensor) -> Tensor:
        """Encode RGB crops `[B, 3, 224, 224]` in 0..1 as `[B, 236]`."""
        ...


@dataclass(frozen=True, eq=False)
class PlainNetworks:
    """Face networks that stay on one device, for use without ComfyUI."""

    detector: Detector | None
    """The landmarker finds the faces if this is None."""
    facenet_network: nn.Module | None = None
    parser_network: nn.Module | None = None
    deca_network: nn.Module | None = None
    device: torch.device | str = "cpu"
    """The device of all networks except detector and landmarker."""
    landmarker: Landmarker | None = None
    """The Face Landmarker, on the CPU."""

    def has_mesh(self) -> bool:
        """Return whether there is a Face Landmarker, so that faces have meshes."""
        return self.landmarker is not None

    def has_parser(self) -> bool:
        """Return whether there is a face parser."""
        return self.parser_network is not None

    def deca_problem(self) -> CapFaceError | None:
        """Return an error if there is no DECA."""
        return (
            BadInput("Fitting heads by DECA needs its network, which was not provided.") if self.deca_network is None else None
        )

    def detect(self, image: Tensor) -> list[FaceDetection]:
        """Find all faces in an RGB image `[3, H, W]` in 0..1."""
        return UprightDetector(self.detector, self.landmarker).detect(image)

    def faces_in(self, image: Tensor, boxes: Tensor) -> list[FaceDetection]:
        """Read the faces in boxes `[N, 4]` of an RGB image `[3, H, W]` in 0..1."""
        return UprightDetector(None, self.landmarker).in_boxes(image, boxes)

    def facenet(self, faces: Tensor) -> Tensor:
        """Embed faces `[B, 3, 160, 160]` as `[B, 512]`."""
        return _require(self.facenet_network, "FaceNet")(faces.to(self.device))

    def parser(self, portraits: Tensor) -> Tensor:
        """Label the pixels of RGB portraits `[B, 3, H, W]` in 0..1."""
        network: Any = _require(self.parser_network, "The face parser")
        return network.parse(portraits.to(self.device))

    def deca(self, crops: Tensor) -> Tensor:
        """Encode RGB crops `[B, 3, 224, 224]` in 0..1 as `[B, 236]`."""
        return _require(self.deca_network, "DECA")(crops.to(self.device))


def _require(network: nn.Module | None, name: str) -> nn.Module:
    if network is None:
        raise BadInput(f"{name} is needed, but its network was not provided.")
    return network


def _go_on() -> None:
    """Never interrupt."""


@dataclass(frozen=True, eq=False)
class FaceAnalyzer:
    """One face per photo, and the results of the face networks on it."""

    networks: FaceNetworks
    checkpoint: Callable[[], None] = _go_on
    """Called before each image and before each batch; it may raise to interrupt the work."""

    def find_faces(
        self, images: Sequence[Tensor] | Tensor, which: str = "largest", index: int = 0, given: GivenFaces | None = None
    ) -> list[FaceDetection]:
        """Find one face in each image.

        Args:
            images: B of RGB `[3, H, W]` in 0..1.
            which: The order in which faces are counted, as for `choose_face`.
            index: Which face in that order; 0 is the first.
            given: The faces among which one is chosen, if they are known; no detector runs then.

        Returns:
            B faces.

        Raises:
            NoFaceFound: An image has no face, or not that many. The message names the image.
        """
        found = []
        for i, image in enumerate(images):
            try:
                found.append(self.find_face(image, which, index, given, i))
            except NoFaceFound as error:
                raise NoFaceFound(f"Image {i + 1} of {len(images)}: {error}") from None
        return found

    def find_faces_or_none(
        self, images: Sequence[Tensor] | Tensor, which: str = "largest", index: int = 0, given: GivenFaces | None = None
    ) -> list[FaceDetection | None]:
        """Find one face in each image, as `find_faces` does, with None for images that do not show it.

        Raises:
            NoFaceFound: No image shows the face.
        """
        found: list[FaceDetection | None] = []
        last = None
        for i, image in enumerate(images):
            try:
                found.append(self.find_face(image, which, index, given, i))
            except NoFaceFound as error:
                found.append(None)
                last = error
        if all(face is None for face in found):
            raise NoFaceFound(f"None of {len(images)} images shows the face. The last one: {last}")
        return found

    def find_face(
        self, image: Tensor, which: str = "largest", index: int = 0, given: GivenFaces | None = None, number: int = 0
    ) -> FaceDetection:
        """Find one face in an image.

        Args:
            image: RGB `[3, H, W]` in 0..1.
            which: The order in which faces are counted, as for `choose_face`.
            index: Which face in that order; 0 is the first.
            given: The faces among which one is chosen, if they are known.
            number: The number of the image among those of `given`.

        Raises:
            NoFaceFound: The image has no face, or not that many.
        """
        faces = self.detect(image) if given is None else self._given(image, given, number)
        if not faces and (color := blankness(image)):
            raise NoFaceFound(f"The image is almost entirely {color} and shows no face. Check the photo and its connection.")
        return choose_face(faces, which, index, image_size=image.shape[-2:])

    def _given(self, image: Tensor, given: GivenFaces, number: int) -> Sequence[FaceDetection]:
        """Return the known faces of an image, and read those of which only the box is known."""
        self.checkpoint()
        known = given.of(number)
        if not isinstance(known, GivenBoxes):
            return known
        faces = self.networks.faces_in(image.cpu(), known.boxes)
        return [replace(face, score=score) for face, score in zip(faces, known.scores, strict=True)]

    def detect(self, image: Tensor) -> list[FaceDetection]:
        """Find all faces in an RGB image `[3, H, W]` in 0..1."""
        self.checkpoint()
        return self.networks.detect(image.cpu())

    @torch.inference_mode()
    def embed(self, faces: Tensor) -> Tensor:
        """Embed faces by FaceNet.

        Args:
            faces: `[B, 3, 160, 160]`, from `facenet_face`.

        Returns:
            `[B, 512]` on the CPU, each row of length 1.
        """
        return self.networks.facenet(faces).float().cpu()

    def embed_aligned(self, images: Sequence[Tensor] | Tensor, faces: Sequence[FaceDetection]) -> Tensor:
        """Embed the faces of photos after alignment, as Encode Identity does by default.

        Args:
            images: B of RGB `[3, H, W]` in 0..1.
            faces: The face in each image.

        Returns:
            `[B, 512]` on the CPU, each row of length 1.
        """
        return self.embed(torch.stack([cut_portrait(image, face)[1] for image, face in zip(images, faces, strict=True)]))

    @torch.inference_mode()
    def parse(self, portraits: Tensor) -> Tensor:
        """Label each pixel of portraits.

        Args:
            portraits: RGB `[B, 3, H, W]` in 0..1.

        Returns:
            Labels int64 `[B, H, W]` on the CPU, see `models.faces.parsing`.
        """
        return self.networks.parser(portraits).cpu()

    @torch.inference_mode()
    def deca_codes(self, images: Sequence[Tensor], faces: Sequence[FaceDetection]) -> tuple[Tensor, Tensor]:
        """Encode the heads in photos by DECA.

        Args:
            images: B of RGB `[3, H, W]` in 0..1.
            faces: The face in each image.

        Returns:
            The codes `[B, 236]` on the CPU, which `split_code` takes apart, and the transforms of the crops that they refer to,
            image pixel to crop pixel: `[B, 3, 3]`.
        """
        cuts = [deca_face(image.cpu(), face) for image, face in zip(images, faces, strict=True)]
        codes = []
        for batch in torch.stack([crop for crop, _ in cuts]).split(DECA_BATCH):
            self.checkpoint()
            codes.append(self.networks.deca(batch).float().cpu())
        return torch.cat(codes), torch.stack([transform for _, transform in cuts])
