"""Faces found by other nodes, from the values of ComfyUI's FACE_LANDMARKS and BOUNDING_BOX sockets.

ComfyUI counts pixels from the picture's corner, `models.faces` from the centre of its first pixel, half a pixel further.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import BadInput
from ..models.faces import BLENDSHAPES, FaceDetection, face_of_mesh
from ..photos.given import GivenBoxes, GivenFaces

POINTS = 478
"""Points of MediaPipe's face mesh."""
LANDMARKS, BOXES = "face_landmarks", "bboxes"
"""Names of the inputs."""
_FROM_LANDMARKS = "Connect the face_landmarks of Detect Face Landmarks (MediaPipe)."
_FROM_BOXES = "Connect a BOUNDING_BOX: x, y, width and height in pixels, as a detection node or Bounding Box gives them."

T = TypeVar("T")


def read_given_faces(face_landmarks: Any, bboxes: Any, images: Tensor) -> GivenFaces | None:
    """Read the faces that are connected.

    Args:
        face_landmarks: The value of a FACE_LANDMARKS socket, or None. It takes precedence over `bboxes`.
        bboxes: The value of a BOUNDING_BOX socket, or None: one box, the boxes of all images, or a list of boxes per image.
        images: RGB `[B, 3, H, W]`: the images that the faces belong to.

    Returns:
        The faces of one or B images, or None if nothing is connected.

    Raises:
        BadInput: A value has another form, number or size.
    """
    if face_landmarks is not None:
        return GivenFaces(_landmark_frames(face_landmarks, images), LANDMARKS)
    if bboxes is not None:
        return GivenFaces(_box_frames(bboxes, images), BOXES)
    return None


def read_given_lists(face_landmarks: Sequence[Any], bboxes: Sequence[Any], batches: Sequence[Tensor]) -> GivenFaces | None:
    """Read the faces that are connected to a node that takes lists of images.

    Args:
        face_landmarks: The values of a FACE_LANDMARKS socket: none, one for all batches, or one for each.
        bboxes: The same of a BOUNDING_BOX socket.
        batches: Batches of images, RGB `[B, 3, H, W]` each.

    Returns:
        The faces of all images, or None if nothing is connected.

    Raises:
        BadInput: A value has another form or size, or there are as many neither as one nor as batches.
    """
    frames: list[Any] = []
    source = LANDMARKS
    for i, images in enumerate(batches):
        found = read_given_faces(
            _of_batch(face_landmarks, i, len(batches), LANDMARKS), _of_batch(bboxes, i, len(batches), BOXES), images
        )
        if found is None:
            return None
        source = found.source
        frames += [*found.frames] * (len(images) // len(found.frames))
    return GivenFaces(frames, source)


def _of_batch(values: Sequence[Any], index: int, count: int, name: str) -> Any:
    if not values:
        return None
    if len(values) not in (1, count):
        raise BadInput(
            f"{name}: expected one value for all images in the list, or {count}, one for each; got {len(values)}. Connect the "
            "same list of images to both nodes."
        )
    return values[index if len(values) > 1 else 0]


def _landmark_frames(value: Any, images: Tensor) -> list[list[FaceDetection]]:
    frames: Any = value.get("frames") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not _is_list(frames):
        raise BadInput(f"{LANDMARKS}: expected FACE_LANDMARKS with a list of frames, got {_name(value)}. {_FROM_LANDMARKS}")
    height, width = images.shape[-2:]
    size = _numbers(value.get("image_size"), (2,), f"{LANDMARKS}: image_size", _FROM_LANDMARKS).tolist()
    if size != [height, width]:
        raise BadInput(
            f"{LANDMARKS}: expected the landmarks of a picture of {width} × {height} pixels, got those of "
            f"{size[1]:g} × {size[0]:g}. Connect the picture in which the landmarks were detected."
        )
    return _each(frames, len(images), LANDMARKS, _landmark_face)


def _landmark_face(face: Any, where: str) -> FaceDetection:
    if not isinstance(face, Mapping):
        raise BadInput(f"{where}: expected a dictionary, got {_name(face)}. {_FROM_LANDMARKS}")
    points = _numbers(face.get("landmarks_xy"), (POINTS, 2), f"{where}: landmarks_xy", _FROM_LANDMARKS)
    extent = points.amax(0) - points.amin(0)
    if extent.min() <= 0:
        raise BadInput(f"{where}: expected landmarks that cover an area, got {extent.tolist()} pixels. {_FROM_LANDMARKS}")
    depth = torch.zeros(POINTS, 1)
    if face.get("landmarks_3d") is not None:
        level = _numbers(face["landmarks_3d"], (POINTS, 3), f"{where}: landmarks_3d", _FROM_LANDMARKS)
        # in units of the mesh's crop, whose size follows from the same points in the picture
        scale = _spread(points) / _spread(level[:, :2]).clamp(min=1e-6)
        depth = level[:, 2:] * scale
    mesh = torch.cat([points - 0.5, depth], dim=1)
    return face_of_mesh(mesh, _score(face, where), _blendshapes(face.get("blendshapes"), where))


def _blendshapes(values: Any, where: str) -> Tensor | None:
    if values is None:
        return None
    if not isinstance(values, Mapping):
        raise BadInput(f"{where}: expected blendshapes by name, got {_name(values)}. {_FROM_LANDMARKS}")
    missing = [name for name in BLENDSHAPES if name not in values]
    if missing:
        raise BadInput(
            f"{where}: expected MediaPipe's {len(BLENDSHAPES)} blendshapes, but {len(missing)} are missing, such as "
            f"{missing[0]}. {_FROM_LANDMARKS}"
        )
    row = [values[name] for name in BLENDSHAPES]
    return _numbers(row, (len(BLENDSHAPES),), f"{where}: blendshapes", _FROM_LANDMARKS).clamp(0, 1)


def _box_frames(value: Any, images: Tensor) -> list[GivenBoxes]:
    if isinstance(value, Mapping):
        value = [value]
    if not _is_list(value):
        raise BadInput(f"{BOXES}: expected a BOUNDING_BOX or a list of them, got {_name(value)}. {_FROM_BOXES}")
    if not value or isinstance(value[0], Mapping):  # the same boxes for every image
        value = [value]
    height, width = images.shape[-2:]
    frames = _each(value, len(images), BOXES, lambda box, where: _box(box, where, height, width))
    return [
        GivenBoxes(torch.stack([box for box, _ in frame]) if frame else torch.zeros(0, 4), tuple(score for _, score in frame))
        for frame in frames
    ]


def _box(box: Any, where: str, height: int, width: int) -> tuple[Tensor, float]:
    if not isinstance(box, Mapping) or not {"x", "y", "width", "height"} <= box.keys():
        raise BadInput(f"{where}: expected x, y, width and height, got {_name(box)}. {_FROM_BOXES}")
    sides = _numbers([box[name] for name in ("x", "y", "width", "height")], (4,), where, _FROM_BOXES)
    x, y, w, h = sides.tolist()
    if w <= 0 or h <= 0:
        raise BadInput(f"{where}: expected a width and height above 0, got {w:g} × {h:g}. Draw the box around the face.")
    if not (0 <= x + w / 2 <= width and 0 <= y + h / 2 <= height):
        raise BadInput(
            f"{where}: the centre of the box {w:g} × {h:g} at ({x:g}, {y:g}) lies outside the picture of "
            f"{width} × {height} pixels. Connect the picture that the box was made for."
        )
    return torch.tensor([x, y, x + w, y + h]) - 0.5, _score(box, where)


def _each(frames: Sequence[Any], count: int, name: str, read: Callable[[Any, str], T]) -> list[list[T]]:
    """Read each face of each frame, and check the number of frames."""
    if len(frames) not in (1, count):
        expected = f"1 or {count} images" if count > 1 else "1 image"
        raise BadInput(
            f"{name}: expected faces of {expected}, got those of {len(frames)}. Connect the same images to both nodes."
        )
    faces = []
    for i, frame in enumerate(frames, 1):
        frame = [] if frame is None else frame
        if not _is_list(frame):
            raise BadInput(f"{name}, image {i}: expected a list of faces, got {_name(frame)}.")
        faces.append([read(face, f"{name}, image {i}, face {k}") for k, face in enumerate(frame)])
    return faces


def _numbers(value: Any, shape: tuple[int, ...], where: str, remedy: str) -> Tensor:
    """Return a foreign array as float32, if it has this shape and is finite."""
    try:
        numbers = torch.as_tensor(value).detach().to("cpu", torch.float32, copy=True)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise BadInput(f"{where}: expected numbers of shape {list(shape)}, got {_name(value)}. {remedy}") from None
    if tuple(numbers.shape) != shape:
        raise BadInput(f"{where}: expected numbers of shape {list(shape)}, got {list(numbers.shape)}. {remedy}")
    if not numbers.isfinite().all():
        raise BadInput(f"{where}: expected finite numbers, got NaN or infinity. {remedy}")
    return numbers


def _score(face: Mapping[str, Any], where: str) -> float:
    """Return the confidence in a face; 1 if it is not stated."""
    score = face.get("score")
    if score is None:
        return 1.0
    try:
        score = float(score)
    except (TypeError, ValueError):
        raise BadInput(f"{where}: expected a score in 0..1, got {_name(score)}.") from None
    if not math.isfinite(score):
        raise BadInput(f"{where}: expected a score in 0..1, got {score}.")
    return min(max(score, 0.0), 1.0)


def _spread(points: Tensor) -> Tensor:
    return (points - points.mean(0)).square().sum(1).mean().sqrt()


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _name(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
