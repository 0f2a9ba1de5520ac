"""Detection of faces in a photo, and choice among them.

Both detectors are optional packages with their own weights; neither downloads anything. Points are (x, y) in pixels of the
given image, as in `crops`. "Left" is always the image's left, which is the person's right.
"""

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadFile, BadInput, MissingFile, MissingPackage, NoFaceFound, how_to_install
from ...files.boundary import reading
from ...files.catalogue import INSIGHTFACE
from ...files.insightface_packs import LANDMARK_FILE, find_pack, pack_files
from ...files.onnx import check_onnx
from ...shapes import Float
from .crops import move_box, transform_points

SMALLEST_FACE = 20  # pixels; a smaller face shows too little of an identity
MTCNN_THRESHOLDS = 0.6, 0.7, 0.7  # of its three stages, as facenet-pytorch sets them
MTCNN_SURE = 0.9  # detections below this score are more often a hand or a pattern than a face
MESH_EYES = (33, 133), (263, 362)  # the corners of the image's left and right eye
MESH_NOSE_AND_MOUTH = (1, 61, 291)
MTCNN_CENTRE, MTCNN_SIZE = (0.0, -0.08), (1.0, 1.08)  # of its box, in units of the level mesh's extent; means of seven faces
ORDERS = ("largest", "left to right", "center")

log = logging.getLogger("capface")


@dataclass(frozen=True, eq=False)
class FaceDetection:
    """One face, float32 on the CPU.

    Attributes:
        box: `[4]`: left, top, right, bottom, in pixels; it may leave the image.
        score: The detector's confidence in 0..1.
        points5: `[5, 2]`: left eye, right eye, nose, left and right mouth corner.
        points68: `[68, 2]`: the usual 68 landmarks (first the contour from the left ear to the right one), or None.
        mesh: `[478, 3]`: the face mesh of `MeshFace.points`, or None if the Face Landmarker did not run.
        blendshapes: `[52]` in 0..1, in the order of `BLENDSHAPES`, or None like the mesh.
    """

    box: Float[Tensor, " 4"]
    score: float
    points5: Float[Tensor, "5 2"]
    points68: Float[Tensor, "68 2"] | None = None
    mesh: Float[Tensor, "478 3"] | None = None
    blendshapes: Float[Tensor, " 52"] | None = None

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        width, height = (self.box[2:] - self.box[:2]).tolist()
        return max(width, 0.0) * max(height, 0.0)

    @property
    def centre(self) -> Float[Tensor, " 2"]:
        """Centre of the box in pixels, `[2]`."""
        return (self.box[:2] + self.box[2:]) / 2

    @property
    def tilt(self) -> float:
        """Angle in degrees by which the face is turned clockwise in the image, in -180..180, from eyes and mouth."""
        left, right, _, *mouth = self.points5
        down = (mouth[0] + mouth[1] - left - right) / 2
        # as in `ffhq_transform`: the line from eye to eye and that from the eyes to the mouth
        x, y = (right - left + torch.stack([down[1], -down[0]])).tolist()
        return math.degrees(math.atan2(y, x))

    def moved(self, transform: Float[Tensor, "3 3"]) -> "FaceDetection":
        """Move the face to the frame of a similarity.

        Args:
            transform: `[3, 3]`, from image pixels to the frame's pixels: rotation, scale and translation only.

        Returns:
            The face there. Its box stays upright, as in `move_box`; the mesh's depth is scaled.
        """
        mesh = self.mesh
        if mesh is not None:
            scale = torch.linalg.det(transform[:2, :2]).sqrt()
            mesh = torch.cat([transform_points(transform, mesh[:, :2]), mesh[:, 2:] * scale], dim=1)
        return replace(
            self,
            box=move_box(transform, self.box),
            points5=transform_points(transform, self.points5),
            points68=None if self.points68 is None else transform_points(transform, self.points68),
            mesh=mesh,
        )


def five_points(mesh: Float[Tensor, "478 3"]) -> Float[Tensor, "5 2"]:
    """Return the five points of `FaceDetection.points5` on a face mesh: the middle between the corners of each eye, the tip of
    the nose and the corners of the mouth.
    """
    points = mesh[:, :2]
    left, right = (points[list(corners)].mean(0) for corners in MESH_EYES)
    return torch.stack([left, right, *points[list(MESH_NOSE_AND_MOUTH)]])


def face_of_mesh(mesh: Float[Tensor, "478 3"], score: float, blendshapes: Float[Tensor, " 52"] | None = None) -> FaceDetection:
    """Return the face of a mesh, with the box that MTCNN would find around the face turned level.

    Args:
        mesh: `[478, 3]`, in pixels.
        score: Confidence in 0..1.
        blendshapes: `[52]` in 0..1, or None.
    """
    face = FaceDetection(torch.zeros(4), score, five_points(mesh), mesh=mesh, blendshapes=blendshapes)
    angle = math.radians(face.tilt)
    level = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    points = mesh[:, :2] @ level.T
    low, high = points.amin(0), points.amax(0)
    extent = high - low
    centre = level.T @ ((low + high) / 2 + torch.tensor(MTCNN_CENTRE) * extent)
    half = torch.tensor(MTCNN_SIZE) * extent / 2
    return replace(face, box=torch.cat([centre - half, centre + half]))


def choose_face(
    faces: Sequence[FaceDetection], which: str = "largest", index: int = 0, *, image_size: Sequence[int] | None = None
) -> FaceDetection:
    """Choose one of the faces found.

    Args:
        faces: The faces of an image.
        which: The order: "largest" first, "left to right", or "center", the nearest to the image's centre first.
        index: Position in that order, from 0.
        image_size: Height and width of the image, for "center".

    Raises:
        NoFaceFound: There are no faces, or too few.
        BadInput: The order is unknown, the index is negative, or "center" has no `image_size`.
    """
    if which not in ORDERS:
        raise BadInput(f"Faces are counted by {', '.join(ORDERS)}, got {which!r}.")
    if index < 0:
        raise BadInput(f"Faces are counted from 0, got {index}.")
    if not faces:
        raise NoFaceFound(
            "There is no face in the image. Use one that shows a face from the front or side, at least 20 pixels wide. If the "
            "photo lies on its side or upside down, turn it upright."
        )
    if index >= len(faces):
        raise NoFaceFound(f"There is no face number {index}: the image shows {len(faces)}, counted from 0. Lower the index.")
    if which == "largest":
        order = sorted(faces, key=lambda face: -face.area)
    elif which == "left to right":
        order = sorted(faces, key=lambda face: face.centre[0].item())
    else:
        if image_size is None:
            raise BadInput('Counting faces from the "center" needs the image\'s (height, width).')
        height, width = image_size
        middle = torch.tensor([(width - 1) / 2, (height - 1) / 2])
        order = sorted(faces, key=lambda face: (face.centre - middle).norm().item())
    return order[index]


class MtcnnDetector:
    """MTCNN from facenet-pytorch, whose package contains the weights; the released CapHuman code detects faces with it.

    It runs on the CPU. Doubtful faces (score below 0.9) are returned only if no face is certain.

    Args:
        min_confidence: The lowest score of a face, in 0..1; None keeps MTCNN's own thresholds.

    Raises:
        MissingPackage: facenet-pytorch is not installed.
    """

    SURELY_UPRIGHT = 0.995
    """Score from which a face stands upright, and is not a turned one that looks like an upright one."""
    LONGEST_SIDE = 1600
    """Larger images are scaled down to this side, in pixels, before detection, which bounds time and memory."""

    def __init__(self, min_confidence: float | None = None):
        try:
            from facenet_pytorch import MTCNN
        except ImportError as error:
            raise MissingPackage(how_to_install("facenet-pytorch", "--no-deps ") + f" ({error})") from None
        self.min_confidence = min_confidence
        # each stage lets through what a lower last threshold may accept
        thresholds = [least if min_confidence is None else min(least, min_confidence) for least in MTCNN_THRESHOLDS]
        self.network = MTCNN(
            keep_all=True, min_face_size=SMALLEST_FACE, thresholds=thresholds, device=torch.device("cpu")
        ).eval()

    def detect(self, image: Float[Tensor, "3 H W"]) -> list[FaceDetection]:
        """Find the faces of one image.

        Args:
            image: `[3, H, W]`, RGB in 0..1.

        Returns:
            A list of `FaceDetection`, largest first, without `points68`.

        Raises:
            BadInput: The shape is another.
        """
        _check(image)
        height, width = image.shape[1:]
        pixels = image.to("cpu", torch.float32)
        scale = min(1.0, self.LONGEST_SIDE / max(height, width))
        if scale < 1:
            size = round(height * scale), round(width * scale)
            pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
        if min(pixels.shape[1:]) < SMALLEST_FACE:
            return []
        pixels = (pixels * 255).round().clamp(0, 255).permute(1, 2, 0)
        found: Any = self.network.detect(pixels, landmarks=True)
        boxes, scores, points = found
        if boxes is None:
            return []
        ratio = torch.tensor([width / pixels.shape[1], height / pixels.shape[0]])
        faces = [
            FaceDetection(_tensor(box) * ratio.repeat(2), float(score), _tensor(five) * ratio)
            for box, score, five in zip(boxes, scores, points, strict=True)
        ]
        if self.min_confidence is not None:
            return _largest_first([face for face in faces if face.score >= self.min_confidence])
        return _largest_first([face for face in faces if face.score >= MTCNN_SURE] or faces)


class InsightFaceDetector:
    """SCRFD and, if its file exists, the 68 landmarks of an insightface model pack.

    Only these two networks of the pack are opened. If the usual grid of 640 finds no face, because a face fills the image or is
    very small, smaller grids and then a larger one are tried.

    Args:
        root: The folder that contains `models/<name>/*.onnx` (ComfyUI's `models/insightface`).
        name: The pack, such as "buffalo_l" or "antelopev2".
        min_confidence: The lowest score of a face, in 0..1; None keeps insightface's threshold, 0.5.

    Raises:
        MissingPackage: insightface or its onnxruntime is not installed.
        MissingFile: The pack's files do not exist.
        BadFile: One of the files cannot be read.
    """

    SURELY_UPRIGHT = 0.75
    """As for `MtcnnDetector`."""
    GRIDS = (640, 320, 192)
    LARGE_GRID = 1280

    def __init__(self, root: str | os.PathLike[str], name: str = "buffalo_l", min_confidence: float | None = None):
        folder = find_pack(root, name)
        try:
            from insightface.model_zoo import get_model
        except ImportError as error:
            raise MissingPackage(how_to_install("insightface onnxruntime") + f" ({error})") from None
        detector, landmarks = pack_files(folder)
        assert detector is not None  # `find_pack` returns only folders with one
        self.folder = folder
        self.detector = open_network(get_model, detector, "detection")
        if not self.detector.use_kps:
            raise BadFile(f"{detector} finds boxes without the five points. Take det_10g.onnx from {INSIGHTFACE.provenance}.")
        if min_confidence is not None:
            self.detector.det_thresh = min_confidence
        self.landmarks = None
        if landmarks is None:
            log.warning("%s has no %s: faces have no 68 landmarks.", folder, LANDMARK_FILE)
        else:
            self.landmarks = open_network(get_model, landmarks, "landmark_3d_68")

    def detect(self, image: Float[Tensor, "3 H W"]) -> list[FaceDetection]:
        """Find the faces of one image.

        Args:
            image: `[3, H, W]`, RGB in 0..1.

        Returns:
            A list of `FaceDetection`, largest first.

        Raises:
            BadInput: The shape is another.
        """
        _check(image)
        if min(image.shape[1:]) < SMALLEST_FACE:
            return []
        from insightface.app.common import Face

        pixels = bgr_pixels(image)
        found, points = self._search(pixels)
        faces: list[FaceDetection] = []
        for row, five in zip(found, points, strict=True):
            points68 = None
            if self.landmarks is not None:
                points68 = _tensor(self.landmarks.get(pixels, Face(bbox=row[:4], kps=five, det_score=row[4]))[:, :2])
            faces.append(FaceDetection(_tensor(row[:4]), float(row[4]), _tensor(five), points68))
        return _largest_first(faces)

    def _search(self, pixels: np.ndarray) -> tuple[Any, Any]:
        """Return the rows `[N, 5]` and points `[N, 5, 2]` of the first grid that finds a face."""
        fixed = getattr(self.detector, "static_input_size", None)
        grids = [fixed] if fixed else [(side, side) for side in self.GRIDS]
        if not fixed and max(pixels.shape[:2]) > self.GRIDS[0]:
            grids.append((self.LARGE_GRID, self.LARGE_GRID))
        # a grid cell must not swallow the image's short side
        shortest = min(pixels.shape[:2]) / max(pixels.shape[:2])
        for grid in grids:
            if min(grid) * shortest >= 1:
                found, points = self.detector.detect(pixels, input_size=grid)
                if len(found):
                    return found, points
        return [], []


def detector_problems(root: str | os.PathLike[str], name: str = "buffalo_l") -> dict[str, str | None]:
    """Find out which detectors can be used.

    Args:
        root: As for `InsightFaceDetector`.
        name: As for `InsightFaceDetector`.

    Returns:
        For "insightface" and "mtcnn": None if it can be used, else a sentence that states what is missing.
    """
    problems: dict[str, str | None] = {"insightface": None, "mtcnn": None}
    if find_spec("insightface") is None:
        problems["insightface"] = how_to_install("insightface onnxruntime")
    else:
        try:
            find_pack(root, name)
        except MissingFile as error:
            problems["insightface"] = str(error)
    if find_spec("facenet_pytorch") is None:
        problems["mtcnn"] = how_to_install("facenet-pytorch", "--no-deps ")
    return problems


def open_detector(
    name: str, root: str | os.PathLike[str], min_confidence: float | None = None
) -> InsightFaceDetector | MtcnnDetector:
    """Open a detector by its name.

    Args:
        name: "insightface" (its pack buffalo_l, else antelopev2), "mtcnn", or "auto", the first of them that can be used.
        root: As for `InsightFaceDetector`.
        min_confidence: The lowest score of a face, in 0..1; None keeps the detector's own.

    Raises:
        MissingPackage: The package is not installed; or, for "auto", no detector can be used: the message states what each
            lacks.
        MissingFile: As for `InsightFaceDetector`.
        BadFile: As for `InsightFaceDetector`.
    """
    if name == "auto":
        problems = detector_problems(root)
        name = next((n for n, problem in problems.items() if problem is None), "")
        if not name:
            lacking = [problem for problem in problems.values() if problem is not None]
            raise MissingPackage("No face detector is available. " + " Or: ".join(lacking))
    if name == "insightface":
        try:
            return InsightFaceDetector(root, min_confidence=min_confidence)
        except MissingFile:
            return InsightFaceDetector(root, "antelopev2", min_confidence)
    return MtcnnDetector(min_confidence)


def open_network(get_model: Callable[..., Any], path: Path, task: str) -> Any:
    """Open a network of a pack, and check its task."""
    with reading(path, "an ONNX network", f"Download it again: {INSIGHTFACE.provenance}."):
        check_onnx(path)
        model = get_model(str(path), providers=None)
    got = getattr(model, "taskname", None)
    if got != task:
        raise BadFile(
            f"{path} does {got or 'nothing that insightface knows'}, expected {task}. Source: {INSIGHTFACE.provenance}."
        )
    return model


def bgr_pixels(image: Float[Tensor, "3 H W"]) -> np.ndarray:
    """Convert an image `[3, H, W]`, RGB in 0..1, to the format of OpenCV and insightface: `[H, W, 3]`, BGR, 8 bits."""
    return (image.detach().cpu().float() * 255).round().clamp(0, 255).byte().flip(0).permute(1, 2, 0).contiguous().numpy()


def _check(image: Tensor) -> None:
    if image.ndim != 3 or image.shape[0] != 3:
        raise BadInput(
            f"A detector takes one RGB image of shape [3, H, W], got {list(image.shape)}. Pass the images one by one."
        )


def _tensor(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values.astype("float32"))


def _largest_first(faces: Sequence[FaceDetection]) -> list[FaceDetection]:
    return sorted(faces, key=lambda face: -face.area)
