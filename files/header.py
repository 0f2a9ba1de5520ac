"""What a checkpoint holds, by the names of its tensors alone: no tensor is read and nothing is unpickled."""

import json
import zipfile
from pathlib import Path

LARGEST_HEADER = 100_000_000
PICKLE_BYTES = 8_000_000  # the formats before torch 1.6 name all tensors first


def tensor_names(path):
    """The part of a file that names its tensors.

    Args:
        path: Any file.

    Returns:
        Bytes in which the names stand as they are; empty where there are none, or the file is broken.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(9)
            if head[:4] == b"PK\x03\x04":
                with zipfile.ZipFile(path) as archive:
                    pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
                    return archive.read(pickles[0]) if pickles else b""
            if head[8:] == b"{":
                return b"{" + file.read(min(int.from_bytes(head[:8], "little"), LARGEST_HEADER) - 1)
            return head + file.read(PICKLE_BYTES) if head[:1] == b"\x80" else b""
    except (OSError, zipfile.BadZipFile):
        return b""


def tensor_shapes(path):
    """Shapes by name in a safetensors file.

    Args:
        path: Any file.

    Returns:
        A dict, empty for files of other formats and broken ones.
    """
    names = tensor_names(path)
    if not names.startswith(b"{"):
        return {}
    try:
        return {name: entry["shape"] for name, entry in json.loads(names).items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError):
        return {}


def is_clip_vit_l(path):
    """Whether a safetensors file holds CLIP ViT-L/14's image encoder for 224 pixels, in the layout of ComfyUI's CLIP_VISION."""
    return tensor_shapes(path).get("vision_model.embeddings.position_embedding.weight") == [257, 1024]


def is_sd15(path):
    """Whether a safetensors file is a whole Stable Diffusion 1.x checkpoint: denoiser, text encoder and autoencoder."""
    shapes = tensor_shapes(path)
    attention = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    parts = {name.partition(".")[0] for name in shapes}
    return shapes.get(attention) == [320, 768] and {"cond_stage_model", "first_stage_model"} <= parts
