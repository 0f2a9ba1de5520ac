"""Heads as images: normals, albedo, shading, mask and landmarks, and the condition made of them."""

from .condition import HeadCondition, cut, sample
from .maps import BACKENDS, BUILT_IN, HeadMaps, landmark_pixels, render_head, sample_texture, vertex_normals
from .pictures import landmark_picture, normal_colors, overlay, portraits
from .rasterizer import Fragments, rasterize

__all__ = [
    "BACKENDS",
    "BUILT_IN",
    "Fragments",
    "HeadCondition",
    "HeadMaps",
    "cut",
    "landmark_picture",
    "landmark_pixels",
    "normal_colors",
    "overlay",
    "portraits",
    "rasterize",
    "render_head",
    "sample",
    "sample_texture",
    "vertex_normals",
]
