"""Export of trained networks to files that ComfyUI's loaders and Load CapFace can read."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

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
    write_tensors(path, trained.checkpoint(), dtype=dtype, about={"model": "capface", **about})


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, dtype: torch.dtype | None = None, about: dict[str, str]
) -> None:
    """Write tensors atomically to a safetensors file.

    Args:
        path: The file; an existing one is replaced.
        tensors: The tensors by key.
        dtype: Stored type of floating-point tensors; by default their own.
        about: Metadata of the file, beside its format.
    """
    stored = {
        key: tensor.detach().to("cpu", dtype if dtype and tensor.is_floating_point() else tensor.dtype).contiguous()
        for key, tensor in tensors.items()
    }
    write_atomically(path, lambda part: save_file(stored, part, {"format": "pt", **about}))
