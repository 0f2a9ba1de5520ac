"""The 68 facial landmarks on a mesh.

Conventions: order of the 68 points is the usual one (iBUG 300-W): 17 along the jaw from the viewer's left to right, 5 + 5
brows, 9 nose, 6 + 6 eyes, 20 mouth; the viewer's left is the person's right. Each point is a triangle and barycentric
weights. The 17 contour points slide over the mesh as the head turns: a table with 79 rows, one a degree of yaw.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import BadInput
from .rotation import axis_angle_to_matrix, yaw_of

CONTOUR = 17
STATIC = 51
N_LANDMARKS = CONTOUR + STATIC
YAW_LIMIT = 39
CONTOUR_ROWS = 2 * YAW_LIMIT + 1


@dataclass(frozen=True, eq=False)
class LandmarkTable:
    """Where landmarks sit: triangles (indices into the faces) and barycentric weights."""

    static_faces: Tensor
    """`[51]` int64, points 17 to 67."""
    static_weights: Tensor
    """`[51, 3]`"""
    contour_faces: Tensor
    """`[79, 17]` int64 by row of yaw, points 0 to 16."""
    contour_weights: Tensor
    """`[79, 17, 3]`"""

    def to(self, device: torch.device | str) -> "LandmarkTable":
        """The same table on another device."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})

    def places(self, degrees: Tensor) -> tuple[Tensor, Tensor]:
        """Where all 68 points sit on heads of some yaw.

        Rows 0 to 39 of the contour table are 0° to 39°, rows 40 to 78 are -1° to -39°.

        Args:
            degrees: `[B]` whole numbers from -39 to 39.

        Returns:
            Triangles `[B, 68]` int64 and barycentric weights `[B, 68, 3]`.
        """
        rows = torch.where(degrees < 0, YAW_LIMIT - degrees, degrees).long()
        B = rows.shape[0]
        triangles = torch.cat([self.contour_faces[rows], self.static_faces.expand(B, -1)], dim=1)
        weights = torch.cat([self.contour_weights[rows], self.static_weights.expand(B, -1, -1)], dim=1)
        return triangles, weights


def points_on_mesh(vertices: Tensor, faces: Tensor, triangles: Tensor, weights: Tensor) -> Tensor:
    """Points given by triangles and barycentric weights.

    Args:
        vertices: `[B, V, 3]`.
        faces: `[F, 3]` int64.
        triangles: `[B, N]` int64, indices into `faces`.
        weights: `[B, N, 3]`.

    Returns:
        `[B, N, 3]`.
    """
    corners = faces[triangles]
    B, N = triangles.shape
    picked = vertices.gather(1, corners.view(B, N * 3, 1).expand(-1, -1, 3)).view(B, N, 3, 3)
    return (picked * weights[..., None]).sum(2)


def contour_yaw(rotation: Tensor, neck: Tensor) -> Tensor:
    """The yaw that contour landmarks are looked up by, `[B]` in degrees; beyond ±39° the contour stays as it is there.

    Args:
        rotation: `[B, 3]` axis-angle of the whole head.
        neck: `[B, 3]` axis-angle of the neck joint.
    """
    yaw = yaw_of(axis_angle_to_matrix(rotation) @ axis_angle_to_matrix(neck))
    return (yaw * (180 / math.pi)).clamp(-YAW_LIMIT, YAW_LIMIT)


def five_point_weights() -> Tensor:
    """The five points of face detectors as combinations of the 68.

    Order: the eye on the viewer's left (the mean of its six points), the eye on the viewer's right, nose tip, mouth corner on
    the viewer's left, mouth corner on the viewer's right.

    Returns:
        `[5, 68]`, rows sum to 1.
    """
    weights = torch.zeros(5, N_LANDMARKS)
    weights[0, 36:42] = 1 / 6
    weights[1, 42:48] = 1 / 6
    weights[2, 30] = 1
    weights[3, 48] = 1
    weights[4, 54] = 1
    return weights


def check_table(faces: int, static: tuple[Tensor, Tensor], contour: tuple[Tensor, Tensor]) -> LandmarkTable:
    """A landmark table from its arrays, checked.

    Args:
        faces: how many faces the mesh has.
        static: `[51]` triangles, `[51, 3]` weights.
        contour: `[79, 17]` triangles, `[79, 17, 3]` weights.

    Raises:
        BadInput: a shape is wrong or a triangle is not on the mesh.
    """
    for name, (triangles, weights), size in (
        ("static", static, (STATIC,)),
        ("dynamic", contour, (CONTOUR_ROWS, CONTOUR)),
    ):
        if tuple(triangles.shape) != size or tuple(weights.shape) != (*size, 3):
            raise BadInput(
                f"{name} landmarks: expected triangles {list(size)} and weights {[*size, 3]}, "
                f"got {list(triangles.shape)} and {list(weights.shape)}."
            )
        if triangles.min() < 0 or triangles.max() >= faces:
            raise BadInput(f"{name} landmarks: a triangle lies outside the mesh's {faces} faces.")
    return LandmarkTable(static[0].long(), static[1].float(), contour[0].long(), contour[1].float())
