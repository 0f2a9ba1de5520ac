"""Recognition of a checkpoint by the names and shapes of its tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import quote
from .bundle import member_names
from .header import tensor_shapes

if TYPE_CHECKING:  # the downloads use this module without torch
    from torch import Tensor

_DIFFUSION = "a diffusion model"
_SIGNS = (
    ("a LoRA", ("lora_up", "lora_down", "lora_A", "lora_B", ".lokr_", ".hada_")),
    ("a ControlNet", ("control_model.zero_convs.", "zero_convs.0.", "controlnet_cond_embedding.", "controlnet_blocks.")),
    ("an SDXL model", ("conditioner.embedders.", "add_embedding.linear_1")),
    ("a Flux or SD3 model", ("double_blocks.", "joint_blocks.")),
    (_DIFFUSION, ("model.diffusion_model.", "input_blocks.", "down_blocks.0.attentions.")),
    ("an IP-Adapter", ("ip_adapter.", "image_proj.")),
    ("a face kept by an insightface tool", ("landmark_3d_68", "landmark_2d_106")),
    ("a DECA checkpoint", ("E_flame.",)),
    ("MediaPipe's Face Landmarker as ComfyUI keeps it", ("detector_short.stem.",)),
    ("a FaceNet checkpoint", ("conv2d_1a.", "last_linear.")),
    ("a CLIP vision model", ("vision_model.encoder.", "visual.transformer.")),
    ("a VAE", ("first_stage_model.", "decoder.up")),
    ("a text encoder", ("text_model.encoder.", "transformer.resblocks.")),
)
"""Kinds of checkpoint, each with parts of its tensors' names. The first kind that matches is taken."""
_BY_CONTEXT_WIDTH = {
    768: "a Stable Diffusion 1.x checkpoint",
    1024: "a Stable Diffusion 2.x checkpoint",
    2048: "an SDXL model",
}


def describe(state: Mapping[str, Tensor]) -> str:
    """Describe a state dict in a few words, for error messages.

    Args:
        state: Tensors by key.

    Returns:
        A noun phrase such as "a LoRA (192 tensors, the first is lora_unet_…)".
    """
    if not state:
        return "a file without tensors"
    kind = next((kind for kind, signs in _SIGNS if any(sign in key for key in state for sign in signs)), "an unknown file")
    if kind == _DIFFUSION:
        width = next((v.shape[-1] for k, v in state.items() if k.endswith("attn2.to_k.weight")), 0)
        kind = _BY_CONTEXT_WIDTH.get(width, kind)
    return f"{kind} ({len(state)} tensors, the first is {quote(next(iter(state)))})"


def is_clip_vit_l(path: str | os.PathLike[str]) -> bool:
    """Whether a safetensors file holds the image encoder of CLIP ViT-L/14 for 224 pixels, in the layout of CLIP_VISION."""
    return tensor_shapes(path).get("vision_model.embeddings.position_embedding.weight") == [257, 1024]


def is_face_landmarker(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds the three networks of MediaPipe's Face Landmarker, as Google's `.task` or ComfyUI's safetensors."""
    if {"face_detector.tflite", "face_landmarks_detector.tflite", "face_blendshapes.tflite"} <= set(member_names(Path(path))):
        return True
    shapes = tensor_shapes(path)
    return {"detector_short.stem.weight", "mesh.stem.weight", "blendshapes.cls_token"} <= shapes.keys()


def is_sd15(path: str | os.PathLike[str]) -> bool:
    """Whether a safetensors file is a complete Stable Diffusion 1.x checkpoint: denoiser, text encoder and autoencoder."""
    shapes = tensor_shapes(path)
    attention = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    parts = {name.partition(".")[0] for name in shapes}
    return shapes.get(attention) == [320, 768] and {"cond_stage_model", "first_stage_model"} <= parts
