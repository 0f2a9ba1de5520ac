"""The file that a training run is for: it loads in Load CapFace as it is."""

from pathlib import Path

import torch
from safetensors.torch import save

from ..files.atomic import write_atomically
from .objective import TrainedCapFace


def write_capface(path: Path, trained: TrainedCapFace, *, dtype: torch.dtype | None = None, about: dict[str, str]) -> None:
    """Write a trained CapFace as safetensors, whole or not at all.

    Args:
        path: The file; one of that name is replaced.
        trained: The weights.
        dtype: Type to store, such as float16; the weights' own by default.
        about: What is said of it in the file's metadata.
    """
    tensors = {k: v.detach().to("cpu", dtype or v.dtype).contiguous() for k, v in trained.checkpoint().items()}
    content = save(tensors, metadata={"format": "pt", "model": "capface", **about})
    write_atomically(path, lambda part: part.write_bytes(content))
