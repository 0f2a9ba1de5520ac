"""A parametric head: parameters to mesh to condition maps, in plain torch. Knows neither ComfyUI nor `models`."""

from .head import HeadModel
from .params import HeadParams

__all__ = ["HeadModel", "HeadParams"]
