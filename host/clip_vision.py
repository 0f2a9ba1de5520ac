"""The local identity features: CLIP ViT-L/14's tokens of a portrait, by CLIP_VISION or a file of open_clip's layout."""

from pathlib import Path

import comfy.clip_vision
import comfy.model_management as mm
import torch
from torch import Tensor

from ..errors import BadFile, BadInput
from ..files.checkpoint import describe, read_state_dict
from .identity import RELEASED, Features

BATCH = 16
IMAGE_TOWER = "visual."
PATCHES = (RELEASED.local_width, 3, 14, 14)
"""Shape of ViT-L/14's patch embedding."""
SOURCE = "CLIP ViT-L/14 by OpenAI: open_clip_model.safetensors of huggingface.co/timm/vit_large_patch14_clip_224.openai"


def clip_tokens(clip_vision, portraits: list[Tensor], features: Features = RELEASED) -> Tensor:
    """Read the tokens: the last hidden state, before the last layer norm.

    Args:
        clip_vision: ComfyUI's CLIP_VISION.
        portraits: B of RGB `[3, H, W]` in 0..1, of one size; CLIP sees their middle square.
        features: What it is expected to give.

    Returns:
        float32 `[B, 257, 1024]` on the CPU.

    Raises:
        BadInput: if it is another CLIP.
    """
    tokens = []
    for start in range(0, len(portraits), BATCH):
        mm.throw_exception_if_processing_interrupted()
        images = torch.stack(portraits[start : start + BATCH]).movedim(1, -1)
        tokens.append(clip_vision.encode_image(images)["last_hidden_state"].float().cpu())
        if tuple(tokens[-1].shape[1:]) != (features.local_tokens, features.local_width):
            raise BadInput(
                f"CapFace needs the image tokens of CLIP ViT-L/14 at 224 pixels, {features.local_tokens} of "
                f"{features.local_width} numbers; this CLIP vision model gives {tokens[-1].shape[1]} of {tokens[-1].shape[2]}. "
                "Load openai/clip-vit-large-patch14 in Load CLIP Vision."
            )
    return torch.cat(tokens)


def load_open_clip(path: Path):
    """Read the image tower of a file of open_clip's layout as the host's CLIP_VISION; the text tower beside it is left alone.

    open_clip itself is not needed: the host runs the same network. It uses QuickGELU, with which OpenAI's weights were trained,
    whatever the file is called.

    Args:
        path: A safetensors file or torch pickle with `visual.*` tensors.

    Raises:
        MissingFile: if there is no such file.
        BadFile: if it is broken, or another network.
    """
    state = {key: tensor for key, tensor in read_state_dict(path).items() if key.startswith(IMAGE_TOWER)}
    patches = state.get("visual.conv1.weight")
    positions = state.get("visual.positional_embedding")
    if patches is None or positions is None:
        raise BadFile(f"{path.name} is {describe(read_state_dict(path))}, not CLIP in open_clip's layout. Expected {SOURCE}.")
    if tuple(patches.shape) != PATCHES or len(positions) != RELEASED.local_tokens:
        raise BadFile(
            f"{path.name} is another CLIP: its image tower has {len(positions)} tokens of {len(patches)} numbers, from patches "
            f"of {patches.shape[-1]} pixels; CapFace needs {RELEASED.local_tokens} of {RELEASED.local_width}, from 14. "
            f"Expected {SOURCE}."
        )
    state = comfy.clip_vision.convert_to_transformers(state, IMAGE_TOWER)
    unused = dict(state)
    clip = comfy.clip_vision.load_clipvision_from_sd(unused)  # keeps what it has no use for
    wrong = set(unused) if clip is None else set(unused) | (set(clip.get_sd()) - set(state))
    if wrong:
        raise BadFile(f"{path.name} does not fit CLIP ViT-L/14: {', '.join(sorted(wrong)[:3])}. Expected {SOURCE}.")
    return clip
