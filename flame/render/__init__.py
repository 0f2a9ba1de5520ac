"""Heads as images: normals, albedo, shading, mask and landmarks, and the condition made of them."""

from .condition import HeadCondition, crop_to_window, sample
from .maps import (
    BACKENDS,
    BUILT_IN_BACKEND,
    BYTES_PER_PIXEL,
    HeadMaps,
    landmark_pixels,
    place_mesh,
    render_head,
    sample_texture,
    vertex_normals,
)
from .pictures import landmark_picture, normal_colors, overlay, portraits
from .rasterizer import Fragments, rasterize

__all__ = [
    "BACKENDS",
    "BUILT_IN_BACKEND",
    "BYTES_PER_PIXEL",
    "Fragments",
    "HeadCondition",
    "HeadMaps",
    "crop_to_window",
    "landmark_picture",
    "landmark_pixels",
    "normal_colors",
    "overlay",
    "place_mesh",
    "portraits",
    "rasterize",
    "render_head",
    "sample",
    "sample_texture",
    "vertex_normals",
]
