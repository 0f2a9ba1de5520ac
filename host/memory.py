"""Networks in ComfyUI's memory management, and the memory for pictures of heads."""

import comfy.model_management as mm
import comfy.model_patcher
import comfy.utils
import torch
from torch import nn

from ..errors import BadInput
from ..files.sizes import size_text
from ..flame.render import BYTES_PER_PIXEL


def managed(network: nn.Module, load_device: torch.device, offload_device: torch.device) -> comfy.model_patcher.ModelPatcher:
    """Wrap a network for ComfyUI, which then decides which device holds its weights.

    Args:
        network: The network, on the offload device.
        load_device: Device for computing.
        offload_device: Device for an unloaded network.
    """
    if comfy.utils.DISABLE_MMAP:
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.data = tensor.data.clone()
    # Since 0.33, ComfyUI has a separate patcher for its own networks, which loads weights layer by layer on GPUs. It is chosen
    # while ComfyUI starts, so it must be looked up here and not at import.
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(network, load_device, offload_device)


def require_memory(heads: int, height: int, width: int, bytes_per_pixel: int = BYTES_PER_PIXEL) -> None:
    """Refuse pictures of heads that do not fit into the computer's free memory, before anything is allocated.

    Args:
        heads: Number of heads, each in a picture of its own.
        height: Height of a picture in pixels.
        width: Width of a picture in pixels.
        bytes_per_pixel: Memory for each pixel of each head.

    Raises:
        BadInput: The pictures need more memory than is free.
    """
    needed, free = heads * height * width * bytes_per_pixel, mm.get_free_memory(torch.device("cpu"))
    if needed > free:
        raise BadInput(
            f"{heads} heads of {width} × {height} pixels need about {size_text(needed)} of memory, but {size_text(int(free))} "
            "are free. Choose a smaller width and height, or fewer heads."
        )
