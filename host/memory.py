"""Networks in ComfyUI's memory management."""

import comfy.model_patcher
import comfy.utils
import torch
from torch import nn


def managed(network: nn.Module, load_device: torch.device, offload_device: torch.device) -> comfy.model_patcher.ModelPatcher:
    """Hand a network over to the host, which from then on decides where its weights are.

    Args:
        network: On the device where it waits.
        load_device: Where it computes.
        offload_device: Where it waits.
    """
    if comfy.utils.DISABLE_MMAP:
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.data = tensor.data.clone()
    # From 0.33 on the host has a patcher of its own for its networks, which pages weights in layer by layer on GPUs. It is
    # chosen while the host starts, so it is asked for here and not once at import.
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(network, load_device, offload_device)
