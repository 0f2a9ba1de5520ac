"""CapFace inside ComfyUI's sampler."""

from .apply import OVERLAPS, HeadControl, apply_capface
from .keyframes import read_keyframes
from .other_controls import keep_controls
from .region import EDGES

__all__ = ["EDGES", "OVERLAPS", "HeadControl", "apply_capface", "keep_controls", "read_keyframes"]
