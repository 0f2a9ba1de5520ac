"""The local identity features in ComfyUI: CLIP ViT-L/14's tokens, by a CLIP_VISION or a file in open_clip's layout."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import comfy.clip_vision
import comfy.model_management as mm
import torch
from torch import Tensor

from ..errors import BadFile, BadInput
from ..files.catalogue import OPEN_CLIP
from ..files.checkpoint import read_state_dict
from ..files.identify import describe
from ..files.mapped import own_copies
from ..photos.encoding import RELEASED

BATCH = 16
IMAGE_TOWER = "visual."
PATCHES = (RELEASED.local_width, 3, 14, 14)
"""Shape of ViT-L/14's patch embedding."""
EXPECTED = f"CLIP ViT-L/14 by OpenAI: {OPEN_CLIP.reference}"


@runtime_checkable
class ClipVision(Protocol):
    """The part of ComfyUI's CLIP_VISION that is used here."""

    def encode_image(self, image: Tensor) -> dict[str, Tensor]:
        """Encode images `[B, H, W, 3]` in 0..1; "last_hidden_state" is `[B, N, L]`."""
        ...


def clip_tokens(clip_vision: ClipVision, portraits: list[Tensor]) -> Tensor:
    """Encode portraits as tokens: the last hidden state, before the last layer norm.

    Args:
        clip_vision: ComfyUI's CLIP_VISION.
        portraits: B of RGB `[3, H, W]` in 0..1, all of one size; CLIP sees their middle square.

    Returns:
        float32 `[B, 257, 1024]` on the CPU.

    Raises:
        BadInput: It is another CLIP.
    """
    tokens = []
    for start in range(0, len(portraits), BATCH):
        mm.throw_exception_if_processing_interrupted()
        images = torch.stack(portraits[start : start + BATCH]).movedim(1, -1)
        tokens.append(clip_vision.encode_image(images)["last_hidden_state"].float().cpu())
        if tuple(tokens[-1].shape[1:]) != (RELEASED.local_tokens, RELEASED.local_width):
            raise BadInput(
                f"CapFace needs the image tokens of CLIP ViT-L/14 at 224 pixels, {RELEASED.local_tokens} of "
                f"{RELEASED.local_width} values; this CLIP vision model gives {tokens[-1].shape[1]} of {tokens[-1].shape[2]}. "
                "Load openai/clip-vit-large-patch14 in Load CLIP Vision."
            )
    return torch.cat(tokens)


def load_open_clip(path: Path) -> comfy.clip_vision.ClipVisionModel:
    """Load the image tower of a file in open_clip's layout as a CLIP_VISION. A text tower in the same file is ignored.

    The package open_clip is not needed, because ComfyUI runs the same network. It uses QuickGELU, with which OpenAI's weights
    were trained, regardless of the file's name.

    Args:
        path: A safetensors file or torch pickle with `visual.*` tensors.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is broken, or holds another network.
    """
    state = {key: tensor for key, tensor in read_state_dict(path).items() if key.startswith(IMAGE_TOWER)}
    patches = state.get("visual.conv1.weight")
    positions = state.get("visual.positional_embedding")
    if patches is None or positions is None:
        raise BadFile(f"{path.name} is {describe(read_state_dict(path))}, not CLIP in open_clip's layout. Expected {EXPECTED}.")
    if tuple(patches.shape) != PATCHES or len(positions) != RELEASED.local_tokens:
        raise BadFile(
            f"{path.name} is another CLIP: its image tower has {len(positions)} tokens of {len(patches)} values, from patches "
            f"of {patches.shape[-1]} pixels; CapFace needs {RELEASED.local_tokens} of {RELEASED.local_width}, from 14. "
            f"Expected {EXPECTED}."
        )
    state = comfy.clip_vision.convert_to_transformers(own_copies(state), IMAGE_TOWER)
    unused = dict(state)
    clip = comfy.clip_vision.load_clipvision_from_sd(unused)  # removes the tensors that it uses
    wrong = set(unused) if clip is None else set(unused) | (set(clip.get_sd()) - set(state))
    if wrong:
        raise BadFile(f"{path.name} does not fit CLIP ViT-L/14: {', '.join(sorted(wrong)[:3])}. Expected {EXPECTED}.")
    return clip
