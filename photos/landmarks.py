"""The landmarks of faces in photos, as a head fit takes them."""

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..flame.editing import BLENDSHAPE_NAMES, head_from_blendshapes
from ..flame.fitting import (
    PointSet,
    face_mesh_points,
    fit_landmarks,
    five_points,
    fixed_landmarks,
    landmark_error,
)
from ..flame.model import HeadModel, HeadParams, detected_to_frame
from ..models.faces import BLENDSHAPES, FaceDetection

_meshes: "weakref.WeakKeyDictionary[HeadModel, PointSet]" = weakref.WeakKeyDictionary()
"""The face mesh on head models. Placing it takes half a second."""


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Landmarks of B faces in photos of one size, and their positions on a head model."""

    points: Tensor
    """`[B, K, 2]` in frame units (see `flame.model.camera`)."""
    point_set: PointSet
    model: HeadModel
    expected: HeadParams | None = None
    """B heads with the expression, jaw and gaze that the blendshapes describe, or None without them."""

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, face: int) -> "Landmarks":
        """Return the landmarks of one face, as a batch of 1."""
        expected = None if self.expected is None else self.expected[face]
        return replace(self, points=self.points[face : face + 1], expected=expected)

    def fit(self, start: HeadParams | None = None) -> HeadParams:
        """Fit B heads, see `flame.fitting.fit_landmarks`.

        Args:
            start: B heads to start from, for example DECA's.
        """
        expected = None if start is not None else self.expected
        return fit_landmarks(self.model, self.points, point_set=self.point_set, start=start, expected=expected).params

    def error(self, heads: HeadParams) -> Tensor:
        """Return the root mean square distance `[B]` of the landmarks of B heads, in frame units."""
        return landmark_error(self.model, heads, self.points, self.point_set)

    def summary(self) -> str:
        """Say what the landmarks show, in a few words."""
        shown = "pose only"
        if self.point_set.shows_face:
            shown = "pose, shape, expression and gaze" if self.point_set.irises else "pose, shape and expression"
        return f"{self.point_set.name}: {shown}"


def landmarks_of(model: HeadModel, faces: Sequence[FaceDetection], height: int, width: int) -> Landmarks:
    """Return the landmarks of faces: the richest ones that all of them have.

    These are the face mesh with its blendshapes, else the 68 landmarks of a 3D detector, else the five points of any detector.

    Args:
        model: The head model, with landmarks.
        faces: B faces, found in images of one size.
        height: Height of the images in pixels.
        width: Width of the images in pixels.

    Raises:
        BadInput: The model has no landmarks.
    """
    expected = None
    if meshes := _of_all(face.mesh for face in faces):
        points, point_set = torch.stack(meshes)[..., :2], _mesh(model)
        if shapes := _of_all(face.blendshapes for face in faces):
            columns: dict[str, Tensor] = dict(zip(BLENDSHAPES, torch.stack(shapes).unbind(1), strict=True))
            expected = head_from_blendshapes(model, {name: columns[name] for name in BLENDSHAPE_NAMES})
    elif dense := _of_all(face.points68 for face in faces):
        points, point_set = torch.stack(dense), fixed_landmarks(model)
    else:
        points, point_set = torch.stack([face.points5 for face in faces]), five_points(model)
    return Landmarks(detected_to_frame(points, height, width), point_set, model, expected)


def _mesh(model: HeadModel) -> PointSet:
    if model not in _meshes:
        _meshes[model] = face_mesh_points(model)
    return _meshes[model]


def _of_all(values: Iterable[Tensor | None]) -> list[Tensor]:
    """Return the values if none is None, else an empty list."""
    found = list(values)
    known = [value for value in found if value is not None]
    return known if len(known) == len(found) else []
