"""CLIP: image tokens, open_clip's layout, similarity scores."""

from .image_tokens import VIT_L, load_clip_tokens
from .open_clip_model import ACTIVATIONS, OpenClip, load_open_clip_model
from .similarity import cosine, is_best, prompt_scores

__all__ = ["ACTIVATIONS", "VIT_L", "OpenClip", "cosine", "is_best", "load_clip_tokens", "load_open_clip_model", "prompt_scores"]
