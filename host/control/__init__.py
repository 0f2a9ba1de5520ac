"""CapFace inside ComfyUI's sampler."""

from .apply import OVERLAPS, HeadControl, apply_capface
from .region import EDGES

__all__ = ["EDGES", "OVERLAPS", "HeadControl", "apply_capface"]
