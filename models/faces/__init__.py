"""Networks that look at faces: detection, FaceNet, ArcFace, DECA, parsing, and the crops that they take."""

from .arcface import ArcFace
from .crops import (
    ALIGNED_SIZE,
    deca_crop,
    deca_square,
    deca_square_from_box,
    deca_transform,
    facenet_face,
    ffhq_crop,
    level_square,
    move_box,
    transform_points,
    turned_back,
    warp,
)
from .deca import DecaCode, DecaEncoder, load_deca, split_code
from .detection import (
    FaceDetection,
    InsightFaceDetector,
    MtcnnDetector,
    choose_face,
    detector_problems,
    face_of_mesh,
    five_points,
    open_detector,
)
from .face_landmarker import (
    BLENDSHAPE_POINTS,
    BLENDSHAPES,
    FaceLandmarker,
    FoundFace,
    MeshFace,
    load_face_landmarker,
)
from .facenet import FaceNet, load_facenet
from .parsing import FACE, FaceParser, keep_face, load_parser

__all__ = [
    "ALIGNED_SIZE",
    "BLENDSHAPES",
    "BLENDSHAPE_POINTS",
    "FACE",
    "ArcFace",
    "DecaCode",
    "DecaEncoder",
    "FaceDetection",
    "FaceLandmarker",
    "FaceNet",
    "FaceParser",
    "FoundFace",
    "InsightFaceDetector",
    "MeshFace",
    "MtcnnDetector",
    "choose_face",
    "deca_crop",
    "deca_square",
    "deca_square_from_box",
    "deca_transform",
    "detector_problems",
    "face_of_mesh",
    "facenet_face",
    "ffhq_crop",
    "five_points",
    "keep_face",
    "level_square",
    "load_deca",
    "load_face_landmarker",
    "load_facenet",
    "load_parser",
    "move_box",
    "open_detector",
    "split_code",
    "transform_points",
    "turned_back",
    "warp",
]
