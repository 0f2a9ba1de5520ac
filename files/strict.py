"""Loading a state dict into a network that it must fit exactly."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import BadFile, quote
from .boundary import reading
from .budgets import MOST_REPEATED
from .header import LENGTH_BYTES, ONNX_BEGIN, begins_as_safetensors
from .mapped import OwnCopies
from .torch_files import repeated_bytes

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
        BadFile: A key is missing, unknown, of another shape or of another kind of numbers, a weight is not a finite number, or
            the file is being truncated.
    """
    expected: dict[str, Tensor] = (like or network).state_dict()
    problems = [f"{key} is missing" for key in expected if key not in state]
    problems += [f"{quote(key)} does not belong to it" for key in state if key not in expected]
    problems += [
        f"{key} has shape {list(state[key].shape)} instead of {list(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    problems += [
        f"{key} holds numbers of type {str(state[key].dtype).removeprefix('torch.')}"
        for key, tensor in expected.items()
        if key in state and state[key].is_floating_point() != tensor.is_floating_point()
    ]
    if problems:
        raise BadFile(f"{quote(file)} does not fit {kind}: {_some(problems)}. Expected {source}.")
    refuse_repeats({key: state[key] for key in expected}, file=file, source=source)
    target = torch.device(device or "cpu")
    with reading(file, kind):
        copies, first = OwnCopies(), target if target.type == "meta" else None
        placed = {key: copies.copy(state[key], device=first, dtype=tensor.dtype) for key, tensor in expected.items()}
        refuse_odd_numbers(placed, file=file, source=source)
        network.load_state_dict({key: tensor.to(target) for key, tensor in placed.items()}, assign=True)
    return network.eval().requires_grad_(False)


def refuse_repeats(state: Mapping[str, Tensor], *, file: str, source: str) -> None:
    """Refuse tensors that would need much more memory than the file holds, before they are copied.

    Args:
        state: Tensors by key.
        file: The file's name, for messages.
        source: The right file and its source.

    Raises:
        BadFile: Together they repeat too many bytes.
    """
    repeated = repeated_bytes(state.values())
    if repeated > MOST_REPEATED:
        raise BadFile(
            f"{quote(file)} is a stub: its tensors repeat a few numbers, to {repeated:,} bytes more than it has. "
            f"Expected {source}."
        )


def refuse_odd_numbers(state: Mapping[str, Tensor], *, file: str, source: str) -> None:
    """Refuse tensors with NaN or infinite numbers.

    Args:
        state: Tensors by key, on the CPU. Those on the meta device are not checked.
        file: The file's name, for messages.
        source: The right file and its source.

    Raises:
        BadFile: A number is not finite.
    """
    if odd := [key for key, tensor in state.items() if not _finite(tensor)]:
        raise BadFile(
            f"{quote(file)} holds weights that are NaN or infinite: {_some(odd)}. Either it is broken, or its numbers "
            f"exceed the chosen type: then load it in float32. Expected {source}."
        )


def _some(problems: Sequence[str]) -> str:
    """List the first three."""
    return "; ".join(problems[:3]) + (f" and {len(problems) - 3} more" if len(problems) > 3 else "")


def _finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite. The extremes are NaN if any number is, and need no memory beside the tensor."""
    if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
        return True
    values = tensor if tensor.dtype.itemsize > 1 else tensor.float()  # types of 8 bits have no extremes
    return all(math.isfinite(extreme) for extreme in torch.stack(values.aminmax()).tolist())


def refuse_onnx(path: Path, *, kind: str, source: str) -> None:
    """Reject an ONNX network by name, a common mistake because face packs consist of them.

    Args:
        path: The file; a missing one is left to the loader.
        kind: The expected kind of network, such as "FaceNet".
        source: The right file and its source.

    Raises:
        BadFile: The file is an ONNX network.
    """
    with reading(path, kind):
        if not path.is_file():
            return
        with path.open("rb") as stream:
            begin = stream.read(LENGTH_BYTES + 1)
    if begin[:1] == ONNX_BEGIN and not begins_as_safetensors(begin):
        raise BadFile(
            f"{quote(path.name)} is an ONNX network, such as insightface's ArcFace recogniser or its detector, not {kind}. "
            f"Expected {source}."
        )
