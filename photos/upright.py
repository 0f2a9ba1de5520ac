"""Faces at any angle: detectors expect faces that stand about upright, photos may lie on their side.

A detector misses faces that are turned by 90° or more, or takes them for upright ones with wrong landmarks, and its landmarks
drift where a face is tilted. So a doubtful result is compared with those of the picture turned by quarters, and the landmarks
of a tilted face are taken from a second look at the face alone, turned level.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..models.faces import FaceDetection, FoundFace, MeshFace, face_of_mesh, five_points, level_square, turned_back, warp

TILTED = 15.0
"""Degrees. Beyond this tilt a detector's landmarks drift, and are replaced by those of the face turned level. The landmarks of
other faces stay as they are, because the networks that take the crops were trained on faces that were found the same way."""
SURELY_LEFT = 40.0
"""Degrees. A face that is tilted further may in truth be tilted by a quarter turn more."""
DISAGREEMENT = 20.0
"""Degrees between the tilts by the detector and by the mesh from which one of them is wrong."""
LOOKS = 3
"""Looks at a face turned level, at most: each one measures the remaining tilt."""
LOOK_SIDE = 320
"""Side in pixels of the levelled crop."""
LOOK_MARGIN = 2.2
"""Side of that crop, as a multiple of the longer side of the face's box."""
SURELY_FOUND = 0.97
"""Lowest score of a face turned level that is compared between orientations. MTCNN gave wrong ones at most this, with few
exceptions, and right ones at least 0.978."""
SAME_FACE = 0.5
"""Two boxes are of one face if their centres are nearer than this share of the longer side."""
QUARTERS = (1, 3, 2)
"""Quarter turns against the clock that are tried, in this order."""


@runtime_checkable
class Detector(Protocol):
    """A face detector."""

    def detect(self, image: Tensor) -> list[FaceDetection]:
        """Find all faces in an RGB image `[3, H, W]` in 0..1."""
        ...


@runtime_checkable
class Landmarker(Protocol):
    """MediaPipe's Face Landmarker, such as `models.faces.FaceLandmarker`. It accepts images on the CPU."""

    def __call__(self, image: Tensor, threshold: float = 0.5) -> list[tuple[FoundFace, MeshFace]]:
        """Find the faces of an image `[3, H, W]` at any angle, and read their meshes."""
        ...

    def landmarks(self, image: Tensor, boxes: Tensor | None = None, eyes: Tensor | None = None) -> list[MeshFace]:
        """Read the meshes of the faces in boxes `[N, 4]` with eyes `[N, 2, 2]`."""
        ...


@dataclass(frozen=True, eq=False)
class UprightDetector:
    """A detector of faces at any angle, made of one that finds upright faces and of the face mesh, or of either."""

    detector: Detector | None
    landmarker: Landmarker | None = None
    min_confidence: float | None = None
    """The lowest score in 0..1 of a face that the landmarker finds by itself; None for its own. The detector has its own."""

    def detect(self, image: Tensor) -> list[FaceDetection]:
        """Find all faces in an image, at any angle.

        Args:
            image: RGB `[3, H, W]` in 0..1 on the CPU.

        Returns:
            The faces, with `mesh` and `blendshapes` if there is a landmarker. Faces that stand about upright are those that the
            detector finds.
        """
        if self.detector is None:
            return self._by_landmarker(image)
        faces = self._with_meshes(image, self.detector.detect(image))
        if not faces or not all(self._surely_upright(face) for face in faces):
            faces = self._with_meshes(image, self._at_any_angle(image, faces))
        return [self._levelled(image, face) for face in faces]

    def in_boxes(self, image: Tensor, boxes: Tensor) -> list[FaceDetection]:
        """Read the faces in given boxes, which need not be faces to a detector.

        Args:
            image: RGB `[3, H, W]` in 0..1 on the CPU.
            boxes: `[N, 4]`: left, top, right, bottom in pixels.

        Returns:
            N faces, with the boxes and a score of 1. Without a landmarker, or if it does not see a face there, the five points
            are where a face that fills the box would have them.
        """
        if self.landmarker is None:
            return [FaceDetection(box, 1.0, _usual_points(box)) for box in boxes]
        return [
            FaceDetection(box, 1.0, five_points(mesh.points), mesh=mesh.points, blendshapes=mesh.blendshapes)
            if mesh.shows_face
            else FaceDetection(box, 1.0, _usual_points(box))
            for box, mesh in zip(boxes, self.landmarker.landmarks(image, boxes), strict=True)
        ]

    def _by_landmarker(self, image: Tensor) -> list[FaceDetection]:
        if self.landmarker is None:
            return []
        found = self.landmarker(image) if self.min_confidence is None else self.landmarker(image, self.min_confidence)
        faces = [face_of_mesh(mesh.points, face.score, mesh.blendshapes) for face, mesh in found]
        return sorted(faces, key=lambda face: -face.area)

    def _with_meshes(self, image: Tensor, faces: Sequence[FaceDetection]) -> list[FaceDetection]:
        """Read the meshes of the faces that have none; one that does not show the face is left out."""
        bare = [face for face in faces if face.mesh is None]
        if self.landmarker is None or not bare:
            return list(faces)
        usable = [face for face in bare if (face.points5[1] - face.points5[0]).norm() > 0 and face.area > 0]
        boxes, eyes = [face.box for face in usable], [face.points5[:2] for face in usable]
        meshes = self.landmarker.landmarks(image, torch.stack(boxes), torch.stack(eyes)) if usable else []
        read = {
            id(face): replace(face, mesh=mesh.points, blendshapes=mesh.blendshapes)
            for face, mesh in zip(usable, meshes, strict=True)
            if mesh.shows_face
        }
        return [read.get(id(face), face) for face in faces]

    def _surely_upright(self, face: FaceDetection) -> bool:
        """Return whether a face of the detector cannot be one that is turned further than it seems."""
        return abs(face.tilt) <= SURELY_LEFT and self._is_certain(face)

    def _is_certain(self, face: FaceDetection) -> bool:
        """Return whether there is no doubt about a face: by its score, and by its mesh if there is a landmarker."""
        if face.score < getattr(self.detector, "SURELY_UPRIGHT", 0.0):
            return False
        if self.landmarker is None:
            return True
        return face.mesh is not None and _difference(face.tilt, _tilt(five_points(face.mesh))) <= DISAGREEMENT

    def _at_any_angle(self, image: Tensor, faces: list[FaceDetection]) -> list[FaceDetection]:
        """Look for faces in the picture turned by quarters, too.

        The orientation with the most sure faces counts, and the picture as it is if no other shows more. Within it, a doubtful
        face is replaced by the same face in another orientation, if that one is surer. Faces that it misses are added from the
        others, if there is no doubt about them.
        """
        # the mesh confirms these, so that looking at them again can be saved
        certain = [face for face in faces if self.landmarker is not None and self._surely_upright(face)]
        tilts = sorted(abs(face.tilt) for face in certain)
        around = None
        if tilts and tilts[len(tilts) // 2] <= TILTED:  # the photo is upright: only its doubtful faces are looked at
            around = [face for face in faces if not any(face is one for one in certain)]
        turned = [faces, *(self._turned(image, quarters, around) for quarters in QUARTERS)]

        def look_at(face: FaceDetection) -> FaceDetection | None:
            known = next((one for one in certain if _same(face, one)), None)
            return self._look(image, face) if known is None else face if face is known else None

        looks = [[look_at(face) for face in found] for found in turned]
        sure = [[look for look in found if look is not None and self._is_sure(look)] for found in looks]
        upright = any(self._surely_upright(face) for face in faces)
        best = max(range(4), key=lambda i: len(sure[i]))  # the picture as it is, if others show no more
        if not upright and not sure[best]:
            return self._by_landmarker(image) or next((found for found in turned if found), [])
        kept = []
        for face, look in zip(turned[best], looks[best], strict=True):
            others = [other for found in sure for other in found if _same(face, other)]
            surest = max(others, key=lambda other: other.score, default=None)
            if surest is None or surest is look:
                # a doubtful face beside an upright one is kept, as the detector itself keeps it
                kept += [face] if surest is not None or upright else []
            elif look is not None and look.score >= surest.score:
                kept.append(face)
            else:
                kept.append(surest)
        missed = [face for found in sure for face in found if not any(_same(face, other) for other in kept)]
        for face in sorted(self._with_meshes(image, missed), key=lambda face: -face.score):
            if self._is_certain(face) and not any(_same(face, other) for other in kept):
                kept.append(face)
        return sorted(kept, key=lambda face: -face.area)

    def _turned(self, image: Tensor, quarters: int, around: Sequence[FaceDetection] | None) -> list[FaceDetection]:
        """Find the faces of a picture turned by quarters: all of them, or those at the places of some."""
        assert self.detector is not None
        if around is None:
            back = turned_back(quarters, *image.shape[-2:])
            found = [face.moved(back) for face in self.detector.detect(torch.rot90(image, quarters, (1, 2)))]
        else:
            found = []
            for face in around:
                transform = level_square(face.box, 90.0 * quarters, LOOK_MARGIN, LOOK_SIDE)
                inside = self.detector.detect(warp(image, transform, LOOK_SIDE, LOOK_SIDE))
                found += [one.moved(torch.linalg.inv(transform)) for one in inside]
        return [replace(face, mesh=None, blendshapes=None) for face in found]

    def _is_sure(self, face: FaceDetection) -> bool:
        return face.score >= min(SURELY_FOUND, getattr(self.detector, "SURELY_UPRIGHT", 0.0))

    def _look(self, image: Tensor, face: FaceDetection) -> FaceDetection | None:
        """Find a face again in a crop that is turned level; None if there is none."""
        assert self.detector is not None
        for _ in range(LOOKS):
            transform = level_square(face.box, face.tilt, LOOK_MARGIN, LOOK_SIDE)
            inside = self.detector.detect(warp(image, transform, LOOK_SIDE, LOOK_SIDE))
            middle = torch.full((2,), (LOOK_SIDE - 1) / 2)
            near = LOOK_SIDE / LOOK_MARGIN * SAME_FACE
            close = [one for one in inside if (one.centre - middle).norm() < near]
            if not close:
                return None
            found = max(close, key=lambda one: one.score)
            face = found.moved(torch.linalg.inv(transform))
            if abs(found.tilt) <= TILTED:
                return face
        return None

    def _levelled(self, image: Tensor, face: FaceDetection) -> FaceDetection:
        """Replace the landmarks of a tilted face by those of the face turned level."""
        if abs(face.tilt) <= TILTED or self.detector is None:
            return face
        look = self._look(image, face)
        if look is not None:
            face = replace(look, score=face.score, mesh=face.mesh, blendshapes=face.blendshapes)
        if face.mesh is not None:
            face = replace(face, points5=five_points(face.mesh))
        return face


def _usual_points(box: Tensor) -> Tensor:
    """Return where an upright face that fills a box has eyes, nose and mouth, on average over seven faces of MTCNN."""
    shares = torch.tensor([[0.29, 0.41], [0.71, 0.41], [0.5, 0.65], [0.33, 0.75], [0.67, 0.75]])
    return box[:2] + shares * (box[2:] - box[:2])


def _tilt(points: Tensor) -> float:
    return FaceDetection(torch.zeros(4), 0.0, points).tilt


def _difference(a: float, b: float) -> float:
    """Return the angle between two directions, in degrees."""
    return abs(math.remainder(a - b, 360.0))


def _same(a: FaceDetection, b: FaceDetection) -> bool:
    side = max((a.box[2:] - a.box[:2]).max().item(), (b.box[2:] - b.box[:2]).max().item())
    return (a.centre - b.centre).norm().item() < SAME_FACE * side
