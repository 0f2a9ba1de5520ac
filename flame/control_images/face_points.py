"""Points of the face, drawn as the detectors draw them whose pictures other models were trained on.

Conventions: points are (x, y) in pixels, and the centre of pixel (i, j) is (j + ½, i + ½), so `floor` gives a point's pixel.
Left and right are the person's. Pictures are drawn by `drawing`, without antialiasing, at the sizes of the original code: dots
and lines do not grow with the picture.

Sources: `draw_facepose` and `encode_poses_as_dict` of comfyui_controlnet_aux (DWPose); the drawing of CrucibleAI's
ControlNetMediaPipeFace, in the same pack, with the connections of MediaPipe; `draw_kps` of InstantID.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...shapes import Float
from ..fitting import IRISES, face_mesh_places
from ..model import HeadModel, HeadParams, five_point_weights, frame_to_pixels, points_on_mesh, project
from ..render import landmark_pixels
from . import drawing

KEYPOINTS = 70
"""The 68 landmarks of 300-W, then the person's right and left pupil."""
BODY_POINTS = 18
"""Points of OpenPose's body."""
_KEYPOINT_RADIUS = 3
_FIVE_POINT_RADIUS, _LIMB_WIDTH, _LIMB_BRIGHTNESS = 10, 4, 0.6
_FIVE_POINT_COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
_NOSE = 2

_MESH_LINES: tuple[tuple[drawing.Color, tuple[tuple[int, ...], ...]], ...] = (
    # the oval of the face
    (
        (10, 200, 10),
        (
            (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152),
            (152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10),
        ),
    ),
    # left eye and brow
    ((10, 200, 180), ((263, 249, 390, 373, 374, 380, 381, 382, 362), (263, 466, 388, 387, 386, 385, 384, 398, 362))),
    ((10, 220, 180), ((276, 283, 282, 295, 285), (300, 293, 334, 296, 336))),
    # right eye and brow
    ((180, 200, 10), ((33, 7, 163, 144, 145, 153, 154, 155, 133), (33, 246, 161, 160, 159, 158, 157, 173, 133))),
    ((180, 220, 10), ((46, 53, 52, 65, 55), (70, 63, 105, 66, 107))),
    # lips: the outer border, then the inner
    (
        (10, 180, 10),
        (
            (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
            (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
            (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
            (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
        ),
    ),
)
"""Chains of mesh points with their colour, in the order of drawing."""
_IRIS_COLORS: tuple[drawing.Color, drawing.Color] = ((10, 200, 250), (250, 200, 10))
"""Of the person's left and right iris, in the order of `IRISES`."""
_IRIS_HALF = 2
MESH_POINTS = (*sorted({point for _, chains in _MESH_LINES for chain in chains for point in chain}), *IRISES)
"""The points of the mesh that are drawn."""


def mesh_pixels(model: HeadModel, params: HeadParams, height: int, width: int) -> Float[Tensor, "B 478 2"]:
    """Return the face mesh in a frame. Points without a place on the head (`face_mesh_places`) are NaN.

    Args:
        model: A head model with landmarks.
        params: B heads.
        height: Height of the frame in pixels.
        width: Width of the frame in pixels.

    Raises:
        BadInput: The model has no landmarks.
    """
    triangles, weights = (part.to(params.device) for part in face_mesh_places(model))
    points = points_on_mesh(
        model.vertices(params), model.faces, triangles.expand(params.batch, -1), weights.expand(params.batch, -1, -1)
    )
    pixels = frame_to_pixels(project(points, params.camera)[..., :2], height, width)
    return torch.where((weights.sum(1) > 0)[:, None], pixels, torch.nan)


def face_keypoints(model: HeadModel, params: HeadParams, height: int, width: int) -> Float[Tensor, "B 70 2"]:
    """Return the 70 points of OpenPose's face in a frame: the 68 landmarks, and the person's right and left pupil.

    The pupils of a head without eyeballs are the middles of the lids.

    Args:
        model: A head model with landmarks.
        params: B heads.
        height: Height of the frame in pixels.
        width: Width of the frame in pixels.

    Raises:
        BadInput: The model has no landmarks.
    """
    landmarks = landmark_pixels(model, params, height, width)
    left, right = mesh_pixels(model, params, height, width)[:, IRISES].unbind(1)
    middles = torch.stack([landmarks[:, 36:42].mean(1), landmarks[:, 42:48].mean(1)], dim=1)
    pupils = torch.stack([right, left], dim=1)
    return torch.cat([landmarks, torch.where(pupils.isnan(), middles, pupils)], dim=1)


def five_points(model: HeadModel, params: HeadParams, height: int, width: int) -> Float[Tensor, "B 5 2"]:
    """Return the five points of face detectors in a frame: eyes, nose and corners of the mouth, from the viewer's left."""
    return five_point_weights().to(params.device) @ landmark_pixels(model, params, height, width)


def keypoint_picture(points: Float[Tensor, "B N 2"], height: int, width: int) -> Float[Tensor, "B 3 H W"]:
    """Draw face keypoints as DWPose does: white dots on black."""

    def draw(canvas: np.ndarray, pixels: list[drawing.Pixel | None]) -> None:
        for pixel in pixels:
            if pixel is not None and pixel[0] > 0 and pixel[1] > 0:
                drawing.disc(canvas, pixel, _KEYPOINT_RADIUS, (255, 255, 255))

    return _draw(points, height, width, draw)


def mesh_picture(points: Float[Tensor, "B 478 2"], height: int, width: int) -> Float[Tensor, "B 3 H W"]:
    """Draw the face mesh as ControlNetMediaPipeFace was trained on it: coloured outlines and square pupils on black."""

    def draw(canvas: np.ndarray, pixels: list[drawing.Pixel | None]) -> None:
        for color, chains in _MESH_LINES:
            for chain in chains:
                for first, second in pairwise(chain):
                    start, end = pixels[first], pixels[second]
                    if start is not None and end is not None:
                        drawing.line(canvas, start, end, color)
        for index, color in zip(IRISES, _IRIS_COLORS, strict=True):
            if (pixel := pixels[index]) is not None:
                (x, y), half = pixel, _IRIS_HALF
                canvas[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = color

    return _draw(points, height, width, draw)


def five_point_picture(points: Float[Tensor, "B 5 2"], height: int, width: int) -> Float[Tensor, "B 3 H W"]:
    """Draw five points as InstantID does: coloured dots, and darker limbs from each to the nose. Points may be outside."""

    def draw(canvas: np.ndarray, places: np.ndarray) -> None:
        for i, color in enumerate(_FIVE_POINT_COLORS):
            if i != _NOSE:
                middle, along = (places[i] + places[_NOSE]) / 2, places[i] - places[_NOSE]
                axes = (int(np.hypot(*along) / 2), _LIMB_WIDTH)
                degrees = int(np.degrees(np.arctan2(along[1], along[0])))
                drawing.ellipse(canvas, (int(middle[0]), int(middle[1])), axes, degrees, color)
        canvas[:] = (canvas * _LIMB_BRIGHTNESS).astype(np.uint8)
        for color, (x, y) in zip(_FIVE_POINT_COLORS, places, strict=True):
            drawing.disc(canvas, (int(x), int(y)), _FIVE_POINT_RADIUS, color)

    canvases = np.zeros((len(points), height, width, 3), np.uint8)
    for canvas, places in zip(canvases, points.cpu().double().numpy(), strict=True):
        draw(canvas, places)
    return _to_picture(canvases, points.device)


def pose_keypoints(points: Float[Tensor, "B 70 2"], height: int, width: int) -> list[dict[str, Any]]:
    """Return the face keypoints of each picture in OpenPose's JSON format, as comfyui_controlnet_aux passes it between nodes.

    Body and hands are absent. A point outside the frame counts as not found: x, y and confidence are 0.

    Args:
        points: (x, y) in pixels.
        height: Height of the pictures in pixels.
        width: Width of the pictures in pixels.
    """
    return [
        {
            "people": [
                {
                    "pose_keypoints_2d": [0.0] * (3 * BODY_POINTS),
                    "face_keypoints_2d": [
                        value
                        for x, y in face
                        for value in ([x, y, 1.0] if 0 <= x < width and 0 <= y < height else [0.0, 0.0, 0.0])
                    ],
                    "hand_left_keypoints_2d": None,
                    "hand_right_keypoints_2d": None,
                }
            ],
            "canvas_height": height,
            "canvas_width": width,
        }
        for face in points.tolist()
    ]


def _draw(points: Tensor, height: int, width: int, draw: Any) -> Float[Tensor, "B 3 H W"]:
    """Draw on one black canvas for each face. `draw` gets the canvas and each point's pixel, or None for one outside it."""
    canvases = np.zeros((len(points), height, width, 3), np.uint8)
    for canvas, face in zip(canvases, points.tolist(), strict=True):
        pixels = [(int(x), int(y)) if 0 <= x < width and 0 <= y < height else None for x, y in face]
        draw(canvas, pixels)
    return _to_picture(canvases, points.device)


def _to_picture(canvases: np.ndarray, device: torch.device) -> Float[Tensor, "B 3 H W"]:
    return torch.from_numpy(canvases).to(device).movedim(3, 1).float() / 255
