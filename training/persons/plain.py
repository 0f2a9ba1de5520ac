"""A person's file on the miniature without ComfyUI: the same networks as its loaders make of it."""

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ...errors import BadFile, quote
from ...miniature.networks import Miniature
from .tunable import lora_layers

NAME = "person"
"""Name of the learned word: prompts say `embedding:person`."""


@torch.no_grad()
def with_person(miniature: Miniature, tensors: Mapping[str, Tensor]) -> Miniature:
    """Return the miniature with the contents of a person's file.

    Args:
        miniature: The networks; not changed.
        tensors: From `Adaptation.file`, or read from the file.

    Raises:
        BadFile: A tensor belongs to no weight of the miniature.
    """
    if "emb_params" in tensors:
        return replace(miniature, text_encoder=miniature.text_encoder.with_learned({NAME: tensors["emb_params"]}))
    denoiser = copy.deepcopy(miniature.denoiser)
    weights = dict(denoiser.named_parameters())
    layers = lora_layers(denoiser)
    for key, tensor in tensors.items():
        name, _, kind = key.removeprefix("diffusion_model.").rpartition(".")
        layer = key.partition(".")[0]
        if kind in ("diff", "diff_b") and (weight := f"{name}.{'bias' if kind == 'diff_b' else 'weight'}") in weights:
            weights[weight].add_(tensor)
        elif layer not in layers:
            raise BadFile(f"{quote(key)} belongs to no weight of the miniature: the file was made for another base.")
        elif key.endswith(".lora_up.weight"):
            down = tensors[f"{layer}.lora_down.weight"]
            layers[layer].weight.add_(tensors[f"{layer}.alpha"] / len(down) * tensor @ down)
    return replace(miniature, denoiser=denoiser)
