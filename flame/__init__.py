"""A parametric head in plain torch: parameters -> mesh -> condition maps. Imports neither ComfyUI nor `models`."""

from .fitting import HeadFit, fit_landmarks
from .io import convert_flame, load_flame
from .model import HeadModel, HeadParams
from .render import Fragments, HeadMaps, landmark_pixels, rasterize, render_head

__all__ = [
    "Fragments",
    "HeadFit",
    "HeadMaps",
    "HeadModel",
    "HeadParams",
    "convert_flame",
    "fit_landmarks",
    "landmark_pixels",
    "load_flame",
    "rasterize",
    "render_head",
]
