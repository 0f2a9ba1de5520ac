"""CapFace's checkpoint: the released file, or a safetensors file made from it."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import BadFile
from ...files.checkpoint import read_state_dict
from ...files.identify import describe
from ...files.strict import load_strictly
from . import layers
from .capface import CapFace, CapFaceConfig, IdentityTokens

NETWORK = "control_model."
TOKENS = ("img_linear.", "id_linear.")
SOURCE = "the released caphuman.ckpt (github.com/VamosC/CapHuman), or a safetensors file made from it"


def load_capface(
    path_or_state_dict: str | os.PathLike | Mapping[str, Tensor],
    *,
    device=None,
    dtype: torch.dtype | None = None,
    operations=nn,
    attention: layers.Attention = layers.attention,
) -> tuple[CapFace, IdentityTokens]:
    """Load CapFace and its two projections from a checkpoint.

    Only CapFace's tensors are touched; a base model, VAE or text encoder beside them costs nothing. Without a change of type or
    device the parameters stay mapped to the file.

    Args:
        path_or_state_dict: A file (torch pickle, bare or under `state_dict`, or safetensors), or its tensors by key.
        device: Where the parameters shall live; the CPU by default.
        dtype: Their type; the file's own by default.
        operations: Namespace of the layer classes.
        attention: The attention kernel.

    Returns:
        The network and the token projections, in evaluation mode and without gradients.

    Raises:
        MissingFile: if there is no such file.
        BadFile: if the file is broken, or is something else; the message says what it looks like.
    """
    if isinstance(path_or_state_dict, Mapping):
        name, state = "The state dict", dict(path_or_state_dict)
    else:
        name, state = Path(path_or_state_dict).name, read_state_dict(path_or_state_dict)
    network = {k[len(NETWORK) :]: v for k, v in state.items() if k.startswith(NETWORK)}
    tokens = {k: v for k, v in state.items() if k.startswith(TOKENS)}
    if "mask_predict.0.weight" not in network or not tokens:
        raise BadFile(f"{name} is {describe(state)}. Expected a CapFace checkpoint: {SOURCE}.")

    if not {"img_linear.weight", "id_linear.weight"} <= set(tokens):
        raise BadFile(f"{name} is an incomplete CapFace checkpoint: expected img_linear and id_linear, got {sorted(tokens)}.")
    widths = (tokens["img_linear.weight"].shape[1], tokens["id_linear.weight"].shape[1])
    config = CapFaceConfig.from_shapes({k: v.shape for k, v in network.items()})
    dtype = dtype or tokens["id_linear.weight"].dtype
    plain = {"device": "meta", "dtype": dtype}
    build = {**plain, "operations": operations}
    fit = {"file": name, "kind": "CapFace", "source": SOURCE, "device": device}
    return (
        load_strictly(CapFace(config, **build, attention=attention), network, **fit, like=CapFace(config, **plain)),
        load_strictly(
            IdentityTokens(*widths, config.context_width, **build),
            tokens,
            **fit,
            like=IdentityTokens(*widths, config.context_width, **plain),
        ),
    )


def capface_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint that CapFace uses, by their full keys, mapped to the file.

    Raises:
        MissingFile, BadFile: as `load_capface`.
    """
    load_capface(path)  # refuses what is no CapFace, by name
    return {k: v for k, v in read_state_dict(path).items() if k.startswith((NETWORK, *TOKENS))}
