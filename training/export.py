"""Export of a trained CapFace to a file that the node Load CapFace can read."""

from pathlib import Path

import torch
from safetensors.torch import save

from ..files.atomic import write_atomically
from .objective import TrainedCapFace


def write_capface(path: Path, trained: TrainedCapFace, *, dtype: torch.dtype | None = None, about: dict[str, str]) -> None:
    """Write a trained CapFace atomically to a safetensors file.

    Args:
        path: The file; an existing one is replaced.
        trained: The trained networks.
        dtype: Stored type, such as float16; by default the type of the weights.
        about: Further metadata of the file.
    """
    tensors = {k: v.detach().to("cpu", dtype or v.dtype).contiguous() for k, v in trained.checkpoint().items()}
    content = save(tensors, metadata={"format": "pt", "model": "capface", **about})
    write_atomically(path, lambda part: part.write_bytes(content))
