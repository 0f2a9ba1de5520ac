"""The 68 facial landmarks on a mesh.

Conventions: the 68 points have the usual order (iBUG 300-W): 17 along the jaw from the viewer's left to right, 5 + 5
brows, 9 nose, 6 + 6 eyes, 20 mouth; the viewer's left is the person's right. Each point is a triangle and barycentric
weights. The 17 contour points slide over the mesh as the head turns: a table has 79 rows, one per degree of yaw.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float, Int
from .rotation import axis_angle_to_matrix, yaw_of

CONTOUR = 17
STATIC = 51
N_LANDMARKS = CONTOUR + STATIC
YAW_LIMIT = 39
"""Degrees of yaw to either side that contour tables cover."""
CONTOUR_ROWS = 2 * YAW_LIMIT + 1


@dataclass(frozen=True, eq=False)
class LandmarkTable:
    """Positions of landmarks on the mesh: triangles (indices into the faces) and barycentric weights."""

    static_faces: Int[Tensor, "51"]
    """Triangles of points 17 to 67."""
    static_weights: Float[Tensor, "51 3"]
    contour_faces: Int[Tensor, "79 17"]
    """Triangles of points 0 to 16, one row per degree of yaw."""
    contour_weights: Float[Tensor, "79 17 3"]

    def to(self, device: torch.device | str) -> "LandmarkTable":
        """Return the same table on another device."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})

    def places(self, degrees: Float[Tensor, " B"]) -> tuple[Int[Tensor, "B 68"], Float[Tensor, "B 68 3"]]:
        """Return the positions of all 68 points for each yaw.

        Rows 0 to 39 of the contour table are 0° to 39°, rows 40 to 78 are -1° to -39°.

        Args:
            degrees: Yaw, integers from -39 to 39.

        Returns:
            Triangles and barycentric weights.
        """
        rows = torch.where(degrees < 0, YAW_LIMIT - degrees, degrees).long()
        B = rows.shape[0]
        triangles = torch.cat([self.contour_faces[rows], self.static_faces.expand(B, -1)], dim=1)
        weights = torch.cat([self.contour_weights[rows], self.static_weights.expand(B, -1, -1)], dim=1)
        return triangles, weights


def points_on_mesh(
    vertices: Float[Tensor, "B V 3"],
    faces: Int[Tensor, "F 3"],
    triangles: Int[Tensor, "B N"],
    weights: Float[Tensor, "B N 3"],
) -> Float[Tensor, "B N 3"]:
    """Interpolate points on the mesh from triangles and barycentric weights.

    Args:
        vertices: Vertices of each mesh.
        faces: Vertex indices of each triangle.
        triangles: Indices into `faces`.
        weights: Barycentric weights.
    """
    corners = faces[triangles]
    B, N = triangles.shape
    picked = vertices.gather(1, corners.view(B, N * 3, 1).expand(-1, -1, 3)).view(B, N, 3, 3)
    return (picked * weights[..., None]).sum(2)


def contour_yaw(rotation: Float[Tensor, "B 3"], neck: Float[Tensor, "B 3"]) -> Float[Tensor, " B"]:
    """Return the yaw in degrees by which contour landmarks are looked up, clamped to ±39°.

    Args:
        rotation: Axis-angle of the whole head, in radians.
        neck: Axis-angle of the neck joint, in radians.
    """
    yaw = yaw_of(axis_angle_to_matrix(rotation) @ axis_angle_to_matrix(neck))
    return (yaw * (180 / math.pi)).clamp(-YAW_LIMIT, YAW_LIMIT)


def five_point_weights() -> Float[Tensor, "5 68"]:
    """Return the five points of face detectors as linear combinations of the 68; rows sum to 1.

    Order: the eye on the viewer's left (the mean of its six points), the eye on the viewer's right, nose tip, mouth corner on
    the viewer's left, mouth corner on the viewer's right.
    """
    weights = torch.zeros(5, N_LANDMARKS)
    weights[0, 36:42] = 1 / 6
    weights[1, 42:48] = 1 / 6
    weights[2, 30] = 1
    weights[3, 48] = 1
    weights[4, 54] = 1
    return weights


def check_table(faces: int, static: tuple[Tensor, Tensor], contour: tuple[Tensor, Tensor]) -> LandmarkTable:
    """Check the arrays of a landmark table and build it.

    Args:
        faces: Number of faces of the mesh.
        static: Triangles `[51]` and weights `[51, 3]`.
        contour: Triangles `[79, 17]` and weights `[79, 17, 3]`.

    Raises:
        BadInput: A shape is wrong, or a triangle is not on the mesh.
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
