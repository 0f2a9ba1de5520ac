"""The local identity features without a host: CLIP's image tower run by open_clip, from a file of either usual layout.

The tokens are what CLIP_VISION of ComfyUI gives as `last_hidden_state`: the last layer's output, before the last layer norm,
of an image prepared as ComfyUI does. Files are transformers' (`vision_model.*`) or open_clip's (`visual.*`); sizes are
read from shapes, nothing is downloaded. The activation is QuickGELU, with which OpenAI's weights were trained.

Source: Radford et al., *Learning Transferable Visual Models From Natural Language Supervision* (ICML 2021).
"""

import re
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadFile, BadInput, MissingPackage, how_to_install
from ...files.checkpoint import read_state_dict
from ...files.identify import describe
from ...files.strict import load_strictly, refuse_onnx
from .open_clip_model import DEVIATION, HEAD_WIDTH, MEAN

VIT_L = (257, 1024)
"""Tokens and their width of CLIP ViT-L/14 at 224 pixels, the one that the released CapFace was trained with."""
SOURCE = (
    "CLIP ViT-L/14 by OpenAI: model.safetensors of huggingface.co/openai/clip-vit-large-patch14, or "
    "open_clip_model.safetensors of huggingface.co/timm/vit_large_patch14_clip_224.openai"
)
OPEN_CLIP, TRANSFORMERS = "visual.", "vision_model."
BLOCK = "transformer.resblocks."
UNUSED = ("ln_post.", "proj", "post_layernorm.", "embeddings.position_ids")  # behind the tokens, or no weights
RENAMED = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm": "ln_pre",  # spelled so in every file
    "encoder.layers.": BLOCK,
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
"""Parts of transformers' keys, in open_clip's words."""


class ClipTokens(torch.nn.Module):
    """Portraits to tokens.

    Attributes:
        shape: How many tokens there are, the first for the whole image, and how wide they are.
    """

    def __init__(self, tower):
        super().__init__()
        self.tower = tower
        self.image_size = tower.image_size[0]
        self.shape = tuple(tower.positional_embedding.shape)

    def forward(self, portraits: Tensor) -> Tensor:
        """Tokens of portraits.

        Args:
            portraits: Shape [B,3,H,W], RGB in 0..1; their middle square is seen.

        Returns:
            Shape [B, *self.shape].

        Raises:
            BadInput: For any other shape.
        """
        if portraits.ndim != 4 or portraits.shape[1] != 3:
            raise BadInput(f"Expected RGB portraits [B,3,H,W], got {list(portraits.shape)}.")
        x = prepare(portraits, self.image_size)
        layers = {"indices": 1, "intermediates_only": True, "output_fmt": "NLC", "output_extra_tokens": True}
        found = self.tower.forward_intermediates(x, **layers)
        return torch.cat([found["image_intermediates_prefix"][0], found["image_intermediates"][0]], dim=1)


def prepare(images: Tensor, side: int) -> Tensor:
    """Images [B,3,H,W] in 0..1 as ComfyUI gives them to CLIP: [B,3,side,side], 8-bit values with CLIP's mean and deviation.

    The short side is resized to `side`, the middle is cut out.
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


def load_clip_tokens(path, *, device=None) -> ClipTokens:
    """Read CLIP's image tower; a text tower beside it is left alone.

    Args:
        path: A safetensors file or torch pickle with `vision_model.*` or `visual.*` tensors.
        device: Where the parameters shall live; the CPU by default.

    Returns:
        `ClipTokens` in float32, in evaluation mode and without gradients.

    Raises:
        MissingFile: When there is no such file.
        MissingPackage: When open_clip is not installed.
        BadFile: When it is broken or something else.
    """
    path = Path(path)
    refuse_onnx(path, kind="CLIP", source=SOURCE)
    everything = read_state_dict(path)
    state = {k.removeprefix(OPEN_CLIP): v for k, v in everything.items() if k.startswith(OPEN_CLIP)}
    state = state or _renamed({k.removeprefix(TRANSFORMERS): v for k, v in everything.items() if k.startswith(TRANSFORMERS)})
    state = {k: v for k, v in state.items() if not k.startswith(UNUSED)}
    layers = len({k[len(BLOCK) :].partition(".")[0] for k in state if k.startswith(BLOCK)})
    patches, positions = state.get("conv1.weight"), state.get("positional_embedding")
    if patches is None or positions is None or not layers:
        raise BadFile(f"{path.name} is {describe(everything)}, not CLIP's image encoder. Expected {SOURCE}.")
    try:
        from open_clip.transformer import QuickGELU, VisionTransformer
    except ImportError as error:
        raise MissingPackage(how_to_install("open_clip_torch") + f" ({error})") from None
    width, _, patch, _ = patches.shape
    side = patch * round((len(positions) - 1) ** 0.5)
    mlp = state.get(f"{BLOCK}0.mlp.c_fc.weight", patches)
    sizes = {"image_size": side, "patch_size": patch, "width": width, "layers": layers, "mlp_ratio": len(mlp) / width}
    with torch.device("meta"):
        tower = VisionTransformer(**sizes, heads=max(width // HEAD_WIDTH, 1), act_layer=QuickGELU)
    tower.ln_post, tower.proj = torch.nn.Identity(), None
    tower = load_strictly(tower, state, file=path.name, kind="CLIP's image encoder", source=SOURCE, device=device)
    return ClipTokens(tower).eval()


def _renamed(state):
    """Transformers' tensors under open_clip's keys: query, key and value of each layer become one."""
    renamed = {}
    for key, tensor in state.items():
        if "self_attn.q_proj." in key:
            parts = [state.get(key.replace("q_proj", f"{part}_proj")) for part in "qkv"]
            kind = key.rpartition(".")[2]
            key = re.sub(r"^encoder\.layers\.(\d+)\..*", rf"{BLOCK}\1.attn.in_proj_{kind}", key)
            if all(part is not None for part in parts):
                renamed[key] = torch.cat(parts)
        elif not re.search(r"self_attn\.[kv]_proj\.", key):
            for old, new in RENAMED.items():
                key = key.replace(old, new)
            renamed[key] = tensor
    return renamed
