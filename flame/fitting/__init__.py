"""Fit heads to landmarks, DECA codes and photos, and measure the difference between heads."""

from .deca_codes import DECA_KINDS, deca_heads
from .face_mesh import IRISES, face_mesh_places, face_mesh_points
from .landmark_fit import HeadFit, fit_landmarks, landmark_error
from .light_estimation import light_from_photo, reduce_photo
from .metrics import ERROR_GROUPS, face_size, head_difference, head_rmse
from .point_sets import PointSet, five_points, fixed_landmarks, sliding_landmarks
from .smoothing import smooth

__all__ = [
    "DECA_KINDS",
    "ERROR_GROUPS",
    "IRISES",
    "HeadFit",
    "PointSet",
    "deca_heads",
    "face_mesh_places",
    "face_mesh_points",
    "face_size",
    "fit_landmarks",
    "five_points",
    "fixed_landmarks",
    "head_difference",
    "head_rmse",
    "landmark_error",
    "light_from_photo",
    "reduce_photo",
    "sliding_landmarks",
    "smooth",
]
