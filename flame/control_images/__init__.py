"""Control images of heads for other models: depth, normals, edges, and points of the face, as their controls were trained."""

from .images import BYTES_PER_PIXEL, DISTANCE, HIGH, KINDS, LOW, ControlImage, control_image

__all__ = ["BYTES_PER_PIXEL", "DISTANCE", "HIGH", "KINDS", "LOW", "ControlImage", "control_image"]
