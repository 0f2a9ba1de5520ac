"""Control images of heads by their kind."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from ...errors import BadInput
from ...shapes import Float
from ..model import HeadModel, HeadParams
from ..render import render_head
from .edges import canny_edges, edge_source, shape_mask, soft_edges
from .face_points import (
    face_keypoints,
    five_point_picture,
    five_points,
    keypoint_picture,
    mesh_picture,
    mesh_pixels,
    pose_keypoints,
)
from .surface import NORMALS, depth_picture, head_surface, normal_picture

Drawn = tuple[Callable[..., Tensor], Callable[[Tensor, int, int], Tensor]]
_POINTS: dict[str, Drawn] = {
    "face keypoints": (face_keypoints, keypoint_picture),
    "face mesh": (mesh_pixels, mesh_picture),
    "five points": (five_points, five_point_picture),
}
"""How the points of a kind are found, and drawn."""
KINDS = ("depth", *NORMALS, "canny", "soft edge", *_POINTS)
"""The kinds of control images."""
DISTANCE = 0.3
"""Metres from the camera to a head: a close portrait, whose ears have seven tenths of the nose's brightness."""
LOW, HIGH = 0.15, 0.3
"""Thresholds that also find nose, brows and lips. Heads have less contrast than photos."""
BYTES_PER_PIXEL = 220
"""Memory that one picture takes for each of its pixels."""


class ControlImage(NamedTuple):
    """A control image with what other nodes need beside it."""

    picture: Float[Tensor, "B 3 H W"]
    """RGB in 0..1."""
    mask: Float[Tensor, "B 1 H W"]
    """1 where the head is, grown and faded out as asked for."""
    alpha: Float[Tensor, "B 1 H W"]
    """1 where the head is, 0 elsewhere."""
    keypoints: list[dict[str, Any]]
    """The face in OpenPose's JSON format, one entry a picture."""


def control_image(
    kind: str,
    model: HeadModel,
    params: HeadParams,
    height: int,
    width: int,
    *,
    distance: float = DISTANCE,
    low: float = LOW,
    high: float = HIGH,
    grow: int = 0,
    feather: int = 0,
) -> ControlImage:
    """Make control images of heads.

    Args:
        kind: One of KINDS.
        model: A head model with landmarks; edges also need its UVs and texture.
        params: B heads on the model's device.
        height: Height of the pictures in pixels.
        width: Width of the pictures in pixels.
        distance: Distance of the camera for depth, see `depth_picture`.
        low: Lower threshold of Canny's edges, see `canny_edges`.
        high: Upper threshold.
        grow: Pixels by which the mask grows, see `shape_mask`.
        feather: Width of the mask's border in pixels.

    Raises:
        BadInput: The kind is unknown, or as the functions of the kind.
        MissingPackage: The kind, or the mask, needs kornia, which is not installed.
    """
    if kind not in KINDS:
        raise BadInput(f"Expected a control image among {', '.join(KINDS)}; got {kind}.")
    surface = head_surface(model, params, height, width)
    if kind == "depth":
        picture = depth_picture(surface, distance)
    elif kind in NORMALS:
        picture = normal_picture(surface, NORMALS[kind])
    elif kind in _POINTS:
        find, draw = _POINTS[kind]
        picture = draw(find(model, params, height, width), height, width)
    else:
        grey = edge_source(render_head(model, params, height, width))
        picture = soft_edges(grey) if kind == "soft edge" else canny_edges(grey, low, high)
    keypoints = pose_keypoints(face_keypoints(model, params, height, width), height, width)
    return ControlImage(picture, shape_mask(surface.alpha, grow, feather), surface.alpha, keypoints)
