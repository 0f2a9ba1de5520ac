"""The CapFace checkpoint in ComfyUI's memory management."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import comfy.ldm.modules.attention
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files.atomic import write_atomically
from ..models.diffusion import CapFace, IdentityTokens, capface_tensors, load_capface
from .memory import managed

SUPPORTED_DTYPES = [torch.float16, torch.bfloat16, torch.float32]
"""Weight types among which ComfyUI chooses."""


class _Networks(nn.Module):
    """The network and its projections as one module, so that ComfyUI moves them together."""

    def __init__(self, network: CapFace, tokens: IdentityTokens):
        super().__init__()
        self.network = network
        self.tokens = tokens


@dataclass(frozen=True, eq=False)
class CapFaceModel:
    """A loaded CapFace checkpoint in ComfyUI's memory management."""

    patcher: comfy.model_patcher.ModelPatcher
    compute_dtype: torch.dtype
    """Type in which the network computes."""
    name: str
    """The file's name, for messages."""

    def on(self, device: torch.device) -> "CapFaceModel":
        """Return a copy on another device with its own weights. ComfyUI has unloaded this model before the call."""
        networks = copy.deepcopy(self.patcher.model)
        patcher = comfy.model_patcher.ModelPatcher(networks, device, mm.unet_offload_device())
        return CapFaceModel(patcher, self.compute_dtype, self.name)

    @property
    def network(self) -> CapFace:
        """The side network."""
        return self.patcher.model.network

    @property
    def tokens(self) -> IdentityTokens:
        """The projections of the identity features."""
        return self.patcher.model.tokens


def load_model(path_or_state_dict: Path | Mapping[str, Tensor], name: str, dtype: torch.dtype | None = None) -> CapFaceModel:
    """Load a CapFace checkpoint into ComfyUI's memory management.

    Args:
        path_or_state_dict: As for `load_capface`.
        name: The file's name, for messages.
        dtype: Type of the weights. With None, ComfyUI chooses it as for a ControlNet.

    Raises:
        MissingFile, BadFile: As `load_capface`.
    """
    load_device = mm.get_torch_device()
    offload_device = mm.unet_offload_device()
    stored: torch.dtype = dtype or mm.unet_dtype(device=load_device, model_params=-1, supported_dtypes=SUPPORTED_DTYPES)
    manual_cast_dtype = mm.unet_manual_cast(stored, load_device, SUPPORTED_DTYPES)
    network, tokens = load_capface(
        path_or_state_dict,
        device=offload_device,
        dtype=stored,
        operations=comfy.ops.pick_operations(stored, manual_cast_dtype),
        attention=comfy.ldm.modules.attention.optimized_attention,
    )
    if mm.force_channels_last():  # as ComfyUI does with its denoisers
        for parameter in network.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return wrap_networks(network, tokens, name, manual_cast_dtype or stored)


def wrap_networks(network: CapFace, tokens: IdentityTokens, name: str, compute_dtype: torch.dtype) -> CapFaceModel:
    """Put existing networks into ComfyUI's memory management.

    Args:
        network: The side network, on the offload device.
        tokens: Its projections, on the same device.
        name: Name for messages.
        compute_dtype: Type in which the network computes.
    """
    patcher = managed(_Networks(network, tokens), mm.get_torch_device(), mm.unet_offload_device())
    return CapFaceModel(patcher, compute_dtype, name)


def convert_checkpoint(source: Path, target: Path, dtype: torch.dtype | None = None, *, replace: bool = True) -> Path:
    """Write CapFace's tensors of a checkpoint to a safetensors file, atomically.

    Args:
        source: Path of a checkpoint that `load_capface` can load.
        target: Path of the new file.
        dtype: Type to store. By default, the tensors keep their types.
        replace: Whether an existing file is replaced.

    Returns:
        The target.

    Raises:
        MissingFile, BadFile: As `load_capface`.
        CannotWrite: As `write_atomically`.
    """
    tensors = {k: v.to(dtype or v.dtype).contiguous() for k, v in capface_tensors(source).items()}
    metadata = {"format": "pt", "model": "capface", "source": source.name}
    write_atomically(target, lambda partial: save_file(tensors, partial, metadata=metadata), replace=replace)
    return target
