"""The head model: parameters -> mesh, landmarks, camera."""

from .camera import (
    WHOLE,
    Window,
    deca_camera,
    detected_to_frame,
    frame_to_ndc,
    frame_to_pixels,
    half_side,
    ndc_in_window,
    project,
)
from .head import FacesAround, HeadModel, faces_around
from .landmarks import CONTOUR, CONTOUR_ROWS, N_LANDMARKS, YAW_LIMIT, contour_yaw, five_point_weights, points_on_mesh
from .params import LIMITS, NEUTRAL_SCALE, SIZES, HeadParams
from .rotation import axis_angle_to_matrix, matrix_to_axis_angle, slerp
from .skinning import Rig
from .spherical_harmonics import SH_FACTORS, directional_light, frontal_light, sh_basis, shade

__all__ = [
    "CONTOUR",
    "CONTOUR_ROWS",
    "LIMITS",
    "NEUTRAL_SCALE",
    "N_LANDMARKS",
    "SH_FACTORS",
    "SIZES",
    "WHOLE",
    "YAW_LIMIT",
    "FacesAround",
    "HeadModel",
    "HeadParams",
    "Rig",
    "Window",
    "axis_angle_to_matrix",
    "contour_yaw",
    "deca_camera",
    "detected_to_frame",
    "directional_light",
    "faces_around",
    "five_point_weights",
    "frame_to_ndc",
    "frame_to_pixels",
    "frontal_light",
    "half_side",
    "matrix_to_axis_angle",
    "ndc_in_window",
    "points_on_mesh",
    "project",
    "sh_basis",
    "shade",
    "slerp",
]
