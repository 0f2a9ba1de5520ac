"""CapFace's checkpoint: the released file, or a safetensors file made from it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...errors import BadFile, quote
from ...files.boundary import reading
from ...files.catalogue import CAPHUMAN
from ...files.checkpoint import read_state_dict, unwrap
from ...files.identify import describe
from ...files.mapped import own_copies
from ...files.strict import load_strictly, refuse_odd_numbers
from ..build import Device, Dtype, Operations
from . import layers
from .capface import CapFace, CapFaceConfig, IdentityTokens

NETWORK = "control_model."
TOKENS = ("img_linear.", "id_linear.")
EXPECTED = f"the released {CAPHUMAN.reference}, or a safetensors file made from it"


def load_capface(
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Tensor],
    *,
    device: Device = None,
    dtype: Dtype = None,
    operations: Operations = nn,
    attention: layers.Attention = layers.attention,
) -> tuple[CapFace, IdentityTokens]:
    """Load CapFace and its two projections from a checkpoint.

    Only CapFace's tensors are read; a base model, VAE or text encoder beside them costs nothing. The parameters do not stay
    mapped to the file, which may be replaced or removed afterwards.

    Args:
        path_or_state_dict: A file (torch pickle, bare or under `state_dict`, or safetensors), or its tensors by key.
        device: Device of the parameters; the CPU by default.
        dtype: Type of the parameters; the file's own by default.
        operations: Namespace of the layer classes.
        attention: The attention kernel.

    Returns:
        The network and the token projections, in evaluation mode and without gradients.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is broken or another network; the message states which.
    """
    if isinstance(path_or_state_dict, Mapping):
        name, state = "The state dict", dict(path_or_state_dict)
    else:
        name, state = Path(path_or_state_dict).name, _read(path_or_state_dict)
    network = {k[len(NETWORK) :]: v for k, v in state.items() if k.startswith(NETWORK)}
    tokens = {k: v for k, v in state.items() if k.startswith(TOKENS)}
    if "mask_predict.0.weight" not in network or not tokens:
        raise BadFile(f"{quote(name)} is {describe(state)}. Expected a CapFace checkpoint: {EXPECTED}.")

    if not {"img_linear.weight", "id_linear.weight"} <= set(tokens):
        held = ", ".join(quote(key) for key in sorted(tokens)[:4])
        raise BadFile(f"{quote(name)} is an incomplete CapFace checkpoint: expected img_linear and id_linear, got {held}.")
    for key, tensor in {**network, **tokens}.items():
        if not tensor.numel() or not tensor.is_floating_point():
            raise BadFile(
                f"{quote(name)}: expected floating-point weights, got {quote(key)} of type "
                f"{str(tensor.dtype).removeprefix('torch.')} and shape {list(tensor.shape)}. Expected {EXPECTED}."
            )
    with reading(name, "CapFace", f"Expected {EXPECTED}."):
        local, global_ = (tokens[key].shape for key in ("img_linear.weight", "id_linear.weight"))
        config = CapFaceConfig.from_shapes({k: v.shape for k, v in network.items()})
        dtype = dtype or tokens["id_linear.weight"].dtype
        plain: dict[str, Any] = {"device": "meta", "dtype": dtype}
        build: dict[str, Any] = {**plain, "operations": operations}
        fit: dict[str, Any] = {"file": name, "kind": "CapFace", "source": EXPECTED, "device": device}
        widths = (local[1], global_[1], config.context_width)
        return (
            load_strictly(CapFace(config, **build, attention=attention), network, **fit, like=CapFace(config, **plain)),
            load_strictly(IdentityTokens(*widths, **build), tokens, **fit, like=IdentityTokens(*widths, **plain)),
        )


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    return unwrap(read_state_dict(path), f"{NETWORK}mask_predict.")


def capface_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return copies of the tensors of a checkpoint that CapFace uses, by their full keys.

    Raises:
        MissingFile: As for `load_capface`.
        BadFile: As for `load_capface`.
    """
    load_capface(path, device="meta")  # rejects other networks by name, and reads no tensor
    tensors = own_copies({k: v for k, v in _read(path).items() if k.startswith((NETWORK, *TOKENS))})
    refuse_odd_numbers(tensors, file=Path(path).name, source=EXPECTED)
    return tensors
