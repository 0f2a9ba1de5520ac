"""Loading a state dict into a network that it must fit exactly."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import BadFile
from .header import ONNX_BEGIN
from .mapped import OwnCopies

Network = TypeVar("Network", bound=nn.Module)


def load_strictly(
    network: Network,
    state: Mapping[str, Tensor],
    *,
    file: str,
    kind: str,
    source: str,
    device: torch.device | str | None = None,
    like: nn.Module | None = None,
) -> Network:
    """Load tensors into a network that was built on the meta device.

    Args:
        network: The module. It keeps its own types: a file in half precision is converted for a float32 network.
        state: Tensors by key. They are copied, so that the network does not depend on the file that they may be mapped to.
        file: The file's name, for messages.
        kind: The expected kind of network, such as "FaceNet".
        source: The right file and its source, for messages.
        device: Device of the tensors; the CPU by default.
        like: The same network of torch's own layers, on the meta device. It is needed if a host's layers have no weights before
            they are loaded (ComfyUI with dynamic VRAM) and therefore cannot list the tensors that they need.

    Returns:
        The network, in evaluation mode and without gradients.

    Raises:
        BadFile: A key is missing, unknown or of another shape, or the file is being truncated.
    """
    expected: dict[str, Tensor] = (like or network).state_dict()
    problems = [f"{key} is missing" for key in expected if key not in state]
    problems += [f"{key} does not belong to it" for key in state if key not in expected]
    problems += [
        f"{key} has shape {list(state[key].shape)} instead of {list(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise BadFile(f"{file} does not fit {kind}: {'; '.join(problems[:3])}{more}. Expected {source}.")
    copies = OwnCopies()
    placed = {key: copies.copy(state[key], device=device, dtype=tensor.dtype) for key, tensor in expected.items()}
    network.load_state_dict(placed, assign=True)
    return network.eval().requires_grad_(False)


def refuse_onnx(path: Path, *, kind: str, source: str) -> None:
    """Reject an ONNX network by name, a common mistake because face packs consist of them.

    Args:
        path: The file; a missing one is left to the loader.
        kind: The expected kind of network, such as "FaceNet".
        source: The right file and its source.

    Raises:
        BadFile: The file is an ONNX network.
    """
    if path.is_file():
        with path.open("rb") as stream:
            if stream.read(1) == ONNX_BEGIN:
                raise BadFile(
                    f"{path.name} is an ONNX network, such as insightface's ArcFace recogniser or its detector, not {kind}. "
                    f"Expected {source}."
                )
