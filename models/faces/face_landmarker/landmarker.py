"""MediaPipe's Face Landmarker: finds faces, and reads 478 points and 52 blendshapes of each.

Images are `[3, H, W]`, RGB in 0..1. Points are (x, y) in pixels, x right and y down, with the centre of the pixel in row i and
column j at (j, i), as in `crops`. "Left" is the image's left, but in the blendshapes' names it is the person's.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ....errors import BadFile, BadInput
from ....files.boundary import reads
from ....files.bundle import member_names, read_bundle
from ....files.catalogue import FACE_LANDMARKER
from ....files.checkpoint import read_state_dict
from ....files.header import read_begin
from ....files.identify import describe
from ....files.strict import load_strictly, refuse_onnx
from ....files.tflite import is_tflite
from ....shapes import Float
from ...build import Device, Dtype, Operations
from ..crops import transform_points, turned_back
from .blazeface import DETECTOR_SIZE, BlazeFace, decode, merge
from .blendshapes import Blendshapes
from .mesh import LEFT_EYE, RIGHT_EYE, SKIN_POINTS, FaceMesh, FaceMesh192
from .weights import COMFYUI_DETECTOR, MEMBERS, state_from_comfyui, state_from_task

MARGIN = 1.5
"""Side of the mesh's square crop, as a multiple of the face's longer side."""
SURE_IN_TILE = 0.4
"""In a tile more things look like faces, so this share of the distance from the threshold to 1 is added to the threshold."""
LARGE_FACE = 0.15
"""A face of this share of the longer side makes the search on tiles unnecessary."""
SURELY_PRESENT = 0.5
"""Lowest `MeshFace.presence` of a mesh that shows a face."""
SURELY_UPRIGHT, LARGEST_TILT = 0.8, 60.0
"""Lowest score and largest tilt in degrees of a face that is certainly not upside down."""
QUARTERS = (0, 1, 3, 2)
"""Quarter turns against the clock, in the order of trial."""
SMALLEST_IMAGE = 8
MEDIAPIPE_ENDING = ".task"
CHUNK = 16
"""Crops that pass through a network together, which bounds memory."""
FINEST_SAMPLING = 8
"""Samples of the image for each pixel of a crop and axis, at most."""
EYES_TO_BOX = 2.3
"""Side of the box of a face seen from the front, as a multiple of the distance of the eyes' centres."""
EYES_TO_CENTRE = 0.5
"""Distance of its centre below the eyes, in the same unit."""


@dataclass(frozen=True, eq=False)
class FoundFace:
    """A face that the detector found, float32 on the CPU.

    Attributes:
        box: `[4]`: left, top, right, bottom, in pixels, from the brows to the chin; it may leave the image.
        score: Confidence in 0..1.
        keypoints: `[6, 2]`: left and right eye, nose, mouth, left and right ear, in pixels.
    """

    box: Float[Tensor, " 4"]
    score: float
    keypoints: Float[Tensor, "6 2"]

    @property
    def tilt(self) -> float:
        """Angle between the line through the eyes and the horizontal, in 0..180 degrees."""
        x, y = (self.keypoints[1] - self.keypoints[0]).tolist()
        return abs(math.degrees(math.atan2(y, x)))


@dataclass(frozen=True, eq=False)
class MeshFace:
    """The mesh of a face, float32 on the CPU.

    Attributes:
        points: `[478, 3]`: x and y in pixels of the image, z in the same unit, growing away from the camera; 468 points of the
            skin, then five of each iris.
        presence: Probability in 0..1 that there is a face.
        blendshapes: `[52]`, in 0..1, in the order of `BLENDSHAPES`.
        transform: `[3, 3]`: from the image's pixels to those of the crop that the mesh was read from.
    """

    points: Float[Tensor, "478 3"]
    presence: float
    blendshapes: Float[Tensor, " 52"]
    transform: Float[Tensor, "3 3"]

    @property
    def shows_face(self) -> bool:
        """Whether the mesh was read from a face."""
        return self.presence >= SURELY_PRESENT


class FaceLandmarker(torch.nn.Module):
    """The three networks and the canonical face.

    Args:
        mesh: Class of the mesh network.
        device: Device of the parameters.
        dtype: Type of the networks' parameters. The canonical face stays in float32.
        operations: Namespace of `Conv2d` and `Linear`, such as `torch.nn` or a host's casting layers.

    Attributes:
        canonical: `[468, 3]`: a neutral face in centimetres, x to the image's right, y up, z towards the camera.
    """

    canonical: Tensor

    def __init__(
        self,
        mesh: type[FaceMesh] | type[FaceMesh192] = FaceMesh,
        *,
        device: Device = None,
        dtype: Dtype = None,
        operations: Operations = torch.nn,
    ):
        super().__init__()
        self.dtype = dtype or torch.float32
        self.detector = BlazeFace(device=device, dtype=dtype, operations=operations)
        self.mesh = mesh(device=device, dtype=dtype, operations=operations)
        self.blendshapes = Blendshapes(device=device, dtype=dtype, operations=operations)
        self.register_buffer("canonical", torch.zeros(SKIN_POINTS, 3, device=device))

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "3 H W"], threshold: float = 0.5) -> list[tuple[FoundFace, MeshFace]]:
        """Find the faces of an image at any angle, and read their meshes.

        A face that is tilted far or found with doubt may be upside down, which the networks do not notice. Then the picture is
        also searched turned by quarters, and the direction with the most and surest faces counts.

        Args:
            image: As for `detect`.
            threshold: As for `detect`.

        Returns:
            The faces whose `presence` is at least ½, the surest first, in pixels of the picture as it is.

        Raises:
            BadInput: As for `detect`.
        """
        best: list[tuple[FoundFace, MeshFace]] = []
        for quarters in QUARTERS:
            faces = self._read(image, quarters, threshold)
            if quarters == 0 and faces and all(face.score >= SURELY_UPRIGHT and face.tilt <= LARGEST_TILT for face, _ in faces):
                return faces
            if sum(face.score for face, _ in faces) > sum(face.score for face, _ in best):
                best = faces
        return best

    def _read(self, image: Float[Tensor, "3 H W"], quarters: int, threshold: float) -> list[tuple[FoundFace, MeshFace]]:
        """Read the faces of a picture after quarter turns against the clock, in pixels of the picture before."""
        turned = torch.rot90(image, quarters, (1, 2))
        found = self.detect(turned, threshold)
        if not found:
            return []
        eyes = torch.stack([face.keypoints[:2] for face in found])
        meshes = self.landmarks(turned, torch.stack([face.box for face in found]), eyes)
        back = turned_back(quarters, *image.shape[-2:])
        return [
            (_moved(face, back), _moved_mesh(mesh, back)) for face, mesh in zip(found, meshes, strict=True) if mesh.shows_face
        ]

    @torch.no_grad()
    def detect(self, image: Float[Tensor, "3 H W"], threshold: float = 0.5) -> list[FoundFace]:
        """Find the faces of one image.

        The detector finds faces of about a tenth of its view or more. Unless the whole picture shows a large face, overlapping
        squares of half its longer side are searched as well.

        Args:
            image: `[3, H, W]`, RGB in 0..1, on the networks' device.
            threshold: Lowest score in 0..1. In the smaller squares, where more things look like faces, 0.4 of the distance to 1
                is added: 0.5 becomes 0.7.

        Returns:
            The faces, the surest first.

        Raises:
            BadInput: The shape or the threshold is another.
        """
        _check(image)
        if not 0 < threshold < 1:
            raise BadInput(f"The detector's threshold lies between 0 and 1, got {threshold}.")
        height, width = image.shape[-2:]
        if min(height, width) < SMALLEST_IMAGE:
            return []
        longer = max(height, width)
        surer = threshold + SURE_IN_TILE * (1 - threshold)
        whole = torch.tensor([[(width - longer) / 2, (height - longer) / 2, longer]])
        points, scores = self._search(image, whole, threshold)
        sides = (points[:, 1] - points[:, 0]).amax(-1)
        if not ((sides >= LARGE_FACE * longer) & (scores >= surer)).any():
            closer = self._search(image, _tiles(height, width), surer)
            points, scores = torch.cat([points, closer[0]]), torch.cat([scores, closer[1]])
        points, scores = merge(points, scores)
        # the detector counts from the picture's corner, `crops` from the centre of its first pixel
        points = points - 0.5
        return [FoundFace(one[:2].flatten(), score, one[2:]) for one, score in zip(points, scores.tolist(), strict=True)]

    @torch.no_grad()
    def landmarks(
        self,
        image: Float[Tensor, "3 H W"],
        boxes: Float[Tensor, "N 4"] | None = None,
        eyes: Float[Tensor, "N 2 2"] | None = None,
        passes: int = 2,
    ) -> list[MeshFace]:
        """Read the meshes of faces whose place is known.

        The network takes a square around the box, turned so that the eyes are level. Each further pass takes it from the mesh
        of the one before, which removes the differences between detectors.

        Args:
            image: `[3, H, W]`, RGB in 0..1, on the networks' device.
            boxes: `[N, 4]`: left, top, right, bottom in pixels, of any detector or drawn by hand; if no eyes are given, the
                faces stand upright.
            eyes: `[N, 2, 2]`: centres of the left and right eye in pixels. Without boxes, the square follows from them.
            passes: Number of passes, from 1.

        Returns:
            A mesh for each face, in the order given. There always is one: `presence` tells whether it shows a face.

        Raises:
            BadInput: The image has another shape, neither boxes nor eyes are given, they have no extent, or `passes` is
                below 1.
        """
        _check(image)
        if passes < 1:
            raise BadInput(f"The mesh needs at least 1 pass, got {passes}.")
        squares = _first_squares(boxes, eyes)
        if not len(squares):
            return []
        size = self.mesh.SIZE
        points = on_image = presence = transforms = torch.empty(0)
        for _ in range(passes):
            results: list[tuple[Tensor, Tensor]] = []
            for chunk in squares.split(CHUNK):
                crops = torch.stack([_crop(image, square, size) for square in chunk])
                at, sure = self.mesh(self._arranged(crops))
                results.append((at.float().cpu(), sure.float().cpu()))
            points, presence = (torch.cat(part) for part in zip(*results, strict=True))
            transforms = _transforms(squares, size)
            on_image = _to_image(points, squares, size)
            squares = _squares_of(on_image)
        level = points.to(image.device, self.dtype)
        shapes = torch.cat([self.blendshapes(part).float().cpu() for part in level.split(CHUNK)])
        return [MeshFace(*one) for one in zip(on_image, presence.tolist(), shapes, transforms, strict=True)]

    def _search(
        self, image: Float[Tensor, "3 H W"], squares: Float[Tensor, "N 3"], threshold: float
    ) -> tuple[Float[Tensor, "M 8 2"], Float[Tensor, " M"]]:
        """Run the detector on squares, each (left, top, side) counted from the picture's corner; points likewise."""
        found: list[Tensor] = []
        sure: list[Tensor] = []
        for chunk in squares.split(CHUNK):
            level = torch.cat([chunk[:, :2] + chunk[:, 2:] / 2 - 0.5, chunk[:, 2:], torch.zeros(len(chunk), 1)], dim=1)
            views = torch.stack([_crop(image, square, DETECTOR_SIZE, outside="zeros") for square in level])
            values, logits = self.detector(self._arranged(views * 2 - 1))
            points, scores = (part.float().cpu() for part in decode(values, logits))
            points = points * (chunk[:, 2] / DETECTOR_SIZE)[:, None, None, None] + chunk[:, None, None, :2]
            kept = scores >= threshold
            found.append(points[kept])
            sure.append(scores[kept])
        return torch.cat(found), torch.cat(sure)

    def _arranged(self, crops: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Convert crops to the networks' type, with the channels of a pixel side by side: twice as fast on a processor."""
        return crops.to(self.dtype).contiguous(memory_format=torch.channels_last)


@reads("the Face Landmarker", f"Expected {FACE_LANDMARKER.reference}.")
def load_face_landmarker(
    path: str | os.PathLike[str], *, device: Device = None, dtype: Dtype = None, operations: Operations = torch.nn
) -> FaceLandmarker:
    """Read MediaPipe's Face Landmarker.

    Args:
        path: Google's `face_landmarker.task`, or ComfyUI's `mediapipe_face_fp32.safetensors`, whose mesh is the one of 192
            pixels; under any name.
        device: Device of the parameters; the CPU by default.
        dtype: As for `FaceLandmarker`; float32 by default, whatever the file's type.
        operations: As for `FaceLandmarker`.

    Returns:
        A `FaceLandmarker` in evaluation mode and without gradients.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is another, broken, or lacks a tensor, which the message names.
    """
    path = Path(path)
    refuse_onnx(path, kind="the Face Landmarker", source=FACE_LANDMARKER.reference)
    begin = read_begin(path)
    if path.suffix == MEDIAPIPE_ENDING or any(name in MEMBERS for name in member_names(path)):
        state, mesh = state_from_task(read_bundle(path), path.name), FaceMesh
    elif is_tflite(begin):
        raise BadFile(
            f"{path.name} is a single network of TensorFlow Lite, expected all three in one file: {FACE_LANDMARKER.reference}."
        )
    else:
        tensors = read_state_dict(path)
        if not any(key.startswith(COMFYUI_DETECTOR) for key in tensors):
            raise BadFile(f"{path.name} is {describe(tensors)}, not the Face Landmarker. Expected {FACE_LANDMARKER.reference}.")
        state, mesh = state_from_comfyui(tensors), FaceMesh192
    network = FaceLandmarker(mesh, device="meta", dtype=dtype, operations=operations)
    like = FaceLandmarker(mesh, device="meta", dtype=dtype)
    kind, source = "the Face Landmarker", FACE_LANDMARKER.reference
    return load_strictly(network, state, file=path.name, kind=kind, source=source, device=device, like=like)


# A square is (x and y of its centre, side, angle of its upper edge in radians), in pixels of the image.


def _first_squares(boxes: Float[Tensor, "N 4"] | None, eyes: Float[Tensor, "N 2 2"] | None) -> Float[Tensor, "N 4"]:
    if boxes is None and eyes is None:
        raise BadInput("The mesh needs boxes or eyes of the faces, got neither.")
    if boxes is not None and eyes is not None and len(boxes) != len(eyes):
        raise BadInput(f"The mesh needs as many boxes as pairs of eyes, got {len(boxes)} and {len(eyes)}.")
    roll, across = None, None
    if eyes is not None:
        across = (eyes[:, 1] - eyes[:, 0]).float().cpu()
        roll = torch.atan2(across[:, 1], across[:, 0])
    if boxes is not None:
        low, high = boxes.float().cpu().unflatten(1, (2, 2)).unbind(1)
        centre, side = (low + high) / 2, (high - low).amax(1)
        if not ((high > low).all() and boxes.isfinite().all()):
            raise BadInput(f"A face's box is (left, top, right, bottom) and has an extent, got {boxes.tolist()}.")
    else:
        assert eyes is not None and across is not None
        distance = across.norm(dim=1)
        if not ((distance > 0).all() and eyes.isfinite().all()):
            raise BadInput(f"A face's eyes are two points, got {eyes.tolist()}.")
        down = torch.stack([-across[:, 1], across[:, 0]], dim=1)
        centre, side = eyes.float().cpu().mean(1) + EYES_TO_CENTRE * down, EYES_TO_BOX * distance
    angle = torch.zeros(len(side)) if roll is None else roll
    return torch.cat([centre, MARGIN * side[:, None], angle[:, None]], dim=1)


def _axes(squares: Float[Tensor, "N 4"]) -> Float[Tensor, "N 2 2"]:
    """Return the directions of the squares' upper and left edges as the rows of matrices."""
    cos, sin = squares[:, 3].cos(), squares[:, 3].sin()
    return torch.stack([torch.stack([cos, sin], dim=1), torch.stack([-sin, cos], dim=1)], dim=1)


def _squares_of(points: Float[Tensor, "N 478 3"]) -> Float[Tensor, "N 4"]:
    """Return the squares around meshes, with level eyes."""
    across = points[:, RIGHT_EYE[1], :2] - points[:, LEFT_EYE[0], :2]
    angle = torch.atan2(across[:, 1], across[:, 0])
    axes = _axes(torch.cat([torch.zeros(len(points), 3), angle[:, None]], dim=1))
    level = points[..., :2] @ axes.mT
    low, high = level.amin(1), level.amax(1)
    centre = ((low + high) / 2)[:, None] @ axes
    side = MARGIN * (high - low).amax(1).clamp(min=1e-3)
    return torch.cat([centre[:, 0], side[:, None], angle[:, None]], dim=1)


def _transforms(squares: Float[Tensor, "N 4"], size: int) -> Float[Tensor, "N 3 3"]:
    """Return the transforms from pixels of the image to those of the crops."""
    linear = _axes(squares) * (size / squares[:, 2])[:, None, None]
    transforms = torch.eye(3).repeat(len(squares), 1, 1)
    transforms[:, :2, :2] = linear
    # the square's centre meets the crop's, which covers -½ to size - ½
    transforms[:, :2, 2] = (size - 1) / 2 - (linear @ squares[:, :2, None])[..., 0]
    return transforms


def _to_image(points: Float[Tensor, "N 478 3"], squares: Float[Tensor, "N 4"], size: int) -> Float[Tensor, "N 478 3"]:
    """Move the network's points, counted from the crop's corner, to the image."""
    moved = transform_points(torch.linalg.inv(_transforms(squares, size).double()), points[..., :2].double() - 0.5)
    depth = points[..., 2:] * (squares[:, 2] / size)[:, None, None]
    return torch.cat([moved.float(), depth], dim=-1)


def _crop(
    image: Float[Tensor, "3 H W"], square: Float[Tensor, " 4"], size: int, outside: str = "border"
) -> Float[Tensor, "3 {size} {size}"]:
    """Cut a square with bilinear samples; where pixels are finer than the crop's, the mean of several for each of its pixels.

    Args:
        image: `[3, H, W]`, RGB in 0..1.
        square: `[4]`.
        size: Side of the crop.
        outside: "border" repeats the image's edge, "zeros" is black.
    """
    samples = min(max(round(square[2].item() / size), 1), FINEST_SAMPLING)
    count = size * samples
    offset = (torch.arange(count, device=image.device) + 0.5) / count - 0.5
    v, u = torch.meshgrid(offset, offset, indexing="ij")
    across, down = (_axes(square[None])[0] * square[2]).tolist()
    x = square[0].item() + u * across[0] + v * down[0]
    y = square[1].item() + u * across[1] + v * down[1]
    # grid_sample counts from -1 at the image's left edge (-½) to 1 at its right one (W - ½)
    height, width = image.shape[-2:]
    grid = torch.stack([(x + 0.5) / width * 2 - 1, (y + 0.5) / height * 2 - 1], dim=-1)
    crop = F.grid_sample(image[None].float(), grid[None], mode="bilinear", padding_mode=outside, align_corners=False)
    return F.avg_pool2d(crop, samples)[0] if samples > 1 else crop[0]


def _moved(face: FoundFace, transform: Float[Tensor, "3 3"]) -> FoundFace:
    corners = transform_points(transform, face.box.unflatten(0, (2, 2)))
    box = torch.cat([corners.amin(0), corners.amax(0)])
    return FoundFace(box, face.score, transform_points(transform, face.keypoints))


def _moved_mesh(mesh: MeshFace, transform: Float[Tensor, "3 3"]) -> MeshFace:
    places = torch.cat([transform_points(transform, mesh.points[:, :2]), mesh.points[:, 2:]], dim=1)
    return MeshFace(places, mesh.presence, mesh.blendshapes, mesh.transform @ torch.linalg.inv(transform))


def _tiles(height: int, width: int) -> Float[Tensor, "N 3"]:
    """Lay overlapping squares of half the longer side over a picture: (left, top, side) counted from its corner."""
    side = max(height, width) / 2

    def starts(extent: int) -> list[float]:
        if extent <= side:
            return [(extent - side) / 2]
        steps = math.ceil((extent - side) / (side / 2))
        return [(extent - side) * i / steps for i in range(steps + 1)]

    return torch.tensor([[left, top, side] for top in starts(height) for left in starts(width)])


def _check(image: Tensor) -> None:
    if image.ndim != 3 or image.shape[0] != 3:
        raise BadInput(f"The Face Landmarker takes one RGB image of shape [3, H, W], got {list(image.shape)}.")
