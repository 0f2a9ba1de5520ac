"""Filling a network from a state dict that must fit it exactly."""

from ..errors import BadFile

ONNX_FIRST_BYTE = b"\x08"  # the field `ir_version`, with which every ONNX writer begins


def load_strictly(network, state, *, file, kind, source, device=None, like=None):
    """Give a network built on the meta device its tensors.

    Args:
        network: The module; its own types are kept, so that a half file fills a float32 network.
        state: Tensors by key. They stay mapped to their file where neither type nor device changes.
        file: The file's name, for messages.
        kind: What was asked for, such as "FaceNet".
        source: Where the right file comes from.
        device: Where the tensors shall live; the CPU by default.
        like: The same network of torch's own layers, on the meta device. A host's layers may have no weights before they are
            loaded, and so cannot say which they need (ComfyUI with dynamic VRAM).

    Returns:
        The network, in evaluation mode and without gradients.

    Raises:
        BadFile: When a key is missing, unknown or of another shape.
    """
    expected = (like or network).state_dict()
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
    placed = {key: state[key].to(device=device or "cpu", dtype=tensor.dtype) for key, tensor in expected.items()}
    network.load_state_dict(placed, assign=True)
    return network.eval().requires_grad_(False)


def refuse_onnx(path, *, kind, source):
    """Name an ONNX network for what it is: the usual mix-up, as face packs are full of them.

    Raises:
        BadFile: When the file is one.
    """
    if path.is_file():
        with path.open("rb") as stream:
            if stream.read(1) == ONNX_FIRST_BYTE:
                raise BadFile(
                    f"{path.name} is an ONNX network, such as insightface's ArcFace recogniser or its detector, not {kind}. "
                    f"Expected {source}."
                )
