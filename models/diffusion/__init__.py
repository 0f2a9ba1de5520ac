"""CapFace, the Stable Diffusion 1.x denoiser, and CapFace's checkpoint."""

from .capface import HINT_WIDTHS, CapFace, CapFaceConfig, IdentityTokens, token_factors
from .capface_checkpoint import NETWORK, capface_tensors, load_capface
from .denoiser import Denoiser, DenoiserConfig
from .layers import Block, Projected

__all__ = [
    "HINT_WIDTHS",
    "NETWORK",
    "Block",
    "CapFace",
    "CapFaceConfig",
    "Denoiser",
    "DenoiserConfig",
    "IdentityTokens",
    "Projected",
    "capface_tensors",
    "load_capface",
    "token_factors",
]
