"""Networks in ComfyUI's memory management."""

import comfy.model_patcher
import comfy.utils
import torch
from torch import nn


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
