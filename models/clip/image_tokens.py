"""Local identity features without a host: CLIP's image encoder, run by open_clip from a file of either common layout.

The tokens equal `last_hidden_state` of ComfyUI's CLIP_VISION: the output of the last layer, before the last layer norm, for an
image prepared as in ComfyUI. Files are transformers' (`vision_model.*`) or open_clip's (`visual.*`); sizes are
read from shapes, and nothing is downloaded. The activation is QuickGELU, with which OpenAI's weights were trained.

Source: Radford et al., *Learning Transferable Visual Models From Natural Language Supervision* (ICML 2021).
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadFile, BadInput, MissingPackage, how_to_install
from ...files.boundary import reads
from ...files.budgets import LONGEST_CONTEXT, MOST_LAYERS, at_most
from ...files.catalogue import CLIP_VISION, OPEN_CLIP
from ...files.checkpoint import read_state_dict, unwrap
from ...files.identify import describe
from ...files.strict import load_strictly, refuse_onnx, refuse_repeats
from ...shapes import Float
from ..build import Device
from .open_clip_model import DEVIATION, HEAD_WIDTH, MEAN

VIT_L = (257, 1024)
"""Number and width of the tokens of CLIP ViT-L/14 at 224 pixels, with which the released CapFace was trained."""
EXPECTED = f"CLIP ViT-L/14 by OpenAI: {CLIP_VISION.reference}, or {OPEN_CLIP.reference}"
OPEN_CLIP_PREFIX, TRANSFORMERS_PREFIX = "visual.", "vision_model."
BLOCK = "transformer.resblocks."
UNUSED = (
    "ln_post.",
    "proj",
    "post_layernorm.",
    "embeddings.position_ids",
)  # layers after the tokens, and tensors that are not weights
RENAMED = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm": "ln_pre",  # spelled this way in every file
    "encoder.layers.": BLOCK,
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
"""Parts of transformers' keys -> the same parts in open_clip's."""


class ClipTokens(torch.nn.Module):
    """Maps portraits to tokens.

    Attributes:
        shape: Number of tokens, of which the first is for the whole image, and their width.
    """

    def __init__(self, tower: Any):
        super().__init__()
        self.tower = tower
        self.image_size: int = tower.image_size[0]
        self.shape: tuple[int, int] = tuple(tower.positional_embedding.shape)

    def forward(self, portraits: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N C"]:
        """Compute the tokens of portraits.

        Args:
            portraits: `[B, 3, H, W]`, RGB in 0..1; the central square is used.

        Returns:
            `[B, *self.shape]`.

        Raises:
            BadInput: The shape is another.
        """
        if portraits.ndim != 4 or portraits.shape[1] != 3:
            raise BadInput(f"Expected RGB portraits [B, 3, H, W], got {list(portraits.shape)}.")
        x = preprocess(portraits, self.image_size)
        layers = {"indices": 1, "intermediates_only": True, "output_fmt": "NLC", "output_extra_tokens": True}
        found = self.tower.forward_intermediates(x, **layers)
        return torch.cat([found["image_intermediates_prefix"][0], found["image_intermediates"][0]], dim=1)


def preprocess(images: Float[Tensor, "B 3 H W"], side: int) -> Float[Tensor, "B 3 {side} {side}"]:
    """Prepare images for CLIP as ComfyUI does.

    Args:
        images: `[B, 3, H, W]`, RGB in 0..1. The shorter side is resized to `side`, and the centre is cropped.
        side: Side of the result in pixels.

    Returns:
        `[B, 3, side, side]`: 8-bit values, normalised with CLIP's mean and deviation.
    """
    if images.shape[-2:] != (side, side):
        scale = side / min(images.shape[-2:])
        size = [round(scale * length) for length in images.shape[-2:]]
        images = F.interpolate(images, size, mode="bicubic", antialias=True)
        top, left = ((length - side) // 2 for length in size)
        images = images[..., top : top + side, left : left + side]
    images = (255 * images).clamp(0, 255).round() / 255
    mean, deviation = (images.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (images - mean) / deviation


@reads("CLIP's image encoder", f"Expected {EXPECTED}.")
def load_clip_tokens(path: str | os.PathLike[str], *, device: Device = None) -> ClipTokens:
    """Read CLIP's image encoder; a text encoder beside it is ignored.

    Args:
        path: A safetensors file or torch pickle with `vision_model.*` or `visual.*` tensors.
        device: Device of the parameters; the CPU by default.

    Returns:
        `ClipTokens` in float32, in evaluation mode and without gradients.

    Raises:
        MissingFile: The file does not exist.
        MissingPackage: open_clip is not installed.
        BadFile: The file is broken or another network.
    """
    path = Path(path)
    refuse_onnx(path, kind="CLIP", source=EXPECTED)
    everything = unwrap(unwrap(read_state_dict(path), f"{OPEN_CLIP_PREFIX}conv1."), f"{TRANSFORMERS_PREFIX}embeddings.")
    refuse_repeats(everything, file=path.name, source=EXPECTED)
    state = {k.removeprefix(OPEN_CLIP_PREFIX): v for k, v in everything.items() if k.startswith(OPEN_CLIP_PREFIX)}
    state = state or _renamed(
        {k.removeprefix(TRANSFORMERS_PREFIX): v for k, v in everything.items() if k.startswith(TRANSFORMERS_PREFIX)}
    )
    state = {k: v for k, v in state.items() if not k.startswith(UNUSED)}
    layers = len({k[len(BLOCK) :].partition(".")[0] for k in state if k.startswith(BLOCK)})
    at_most(layers, MOST_LAYERS, "layers", path.name)
    patches, positions = state.get("conv1.weight"), state.get("positional_embedding")
    if patches is None or positions is None or not layers:
        raise BadFile(f"{path.name} is {describe(everything)}, not CLIP's image encoder. Expected {EXPECTED}.")
    try:
        from open_clip.transformer import QuickGELU, VisionTransformer
    except ImportError as error:
        raise MissingPackage(how_to_install("open_clip_torch") + f" ({error})") from None
    width, _, patch, _ = patches.shape
    at_most(len(positions), LONGEST_CONTEXT, "positions", path.name)
    side = patch * round((len(positions) - 1) ** 0.5)
    mlp = state.get(f"{BLOCK}0.mlp.c_fc.weight", patches)
    sizes = {"image_size": side, "patch_size": patch, "width": width, "layers": layers, "mlp_ratio": len(mlp) / width}
    with torch.device("meta"):
        tower = VisionTransformer(**sizes, heads=max(width // HEAD_WIDTH, 1), act_layer=QuickGELU)
    tower.ln_post, tower.proj = torch.nn.Identity(), None
    tower = load_strictly(tower, state, file=path.name, kind="CLIP's image encoder", source=EXPECTED, device=device)
    return ClipTokens(tower).eval()


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename transformers' tensors to open_clip's keys, and join query, key and value of each layer."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if "self_attn.q_proj." in key:
            parts = [state.get(key.replace("q_proj", f"{part}_proj")) for part in "qkv"]
            kind = key.rpartition(".")[2]
            key = re.sub(r"^encoder\.layers\.(\d+)\..*", rf"{BLOCK}\1.attn.in_proj_{kind}", key)
            present = [part for part in parts if part is not None]
            if len(present) == len(parts):
                renamed[key] = torch.cat(present)
        elif not re.search(r"self_attn\.[kv]_proj\.", key):
            for old, new in RENAMED.items():
                key = key.replace(old, new)
            renamed[key] = tensor
    return renamed
