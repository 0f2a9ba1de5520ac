"""MediaPipe's Face Landmarker: BlazeFace, the face mesh of 478 points and 52 blendshapes."""

from .blendshapes import BLENDSHAPE_POINTS, BLENDSHAPES
from .landmarker import FaceLandmarker, FoundFace, MeshFace, load_face_landmarker

__all__ = [
    "BLENDSHAPES",
    "BLENDSHAPE_POINTS",
    "FaceLandmarker",
    "FoundFace",
    "MeshFace",
    "load_face_landmarker",
]
