"""A parametric head: parameters to mesh to condition maps, in plain torch. Knows neither ComfyUI nor `models`."""

from .assets import convert_flame, load_flame
from .fit import HeadFit, fit_landmarks
from .head import HeadModel
from .params import HeadParams
from .rasterize import Fragments, rasterize
from .render import HeadMaps, landmark_pixels, render_head

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
