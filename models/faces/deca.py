"""DECA's coarse encoder, which maps a face crop to the parameters of a head, its camera and its light.

Crops are RGB in 0..1 without normalisation, 224 × 224, cut by `crops.deca_crop`.

Source: Feng et al., *Learning an Animatable Detailed 3D Face Model from In-the-Wild Images* (SIGGRAPH 2021), coarse branch; the
trunk is ResNet-50 (He et al., CVPR 2016, table 1).
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...errors import BadFile, BadInput
from ...files.boundary import reads
from ...files.catalogue import DECA
from ...files.checkpoint import read_state_dict, unwrap
from ...files.identify import describe
from ...files.strict import load_strictly, refuse_onnx
from ...shapes import Float, Num
from ..build import Device, Dtype, Operations
from .resnet import WIDTHS, Bottleneck, ResNet

CROP_SIZE = 224
CODE_SPLIT = {"shape": 100, "texture": 50, "expression": 50, "rotation": 3, "jaw": 3, "camera": 3, "light": 27}
CODE_SIZE = sum(CODE_SPLIT.values())
PREFIX = "E_flame."


class DecaEncoder(torch.nn.Module):
    """DECA's `E_flame`: ResNet-50, then two linear layers.

    Args:
        device: Device of the parameters.
        dtype: Type of the convolutions and linear layers; batch norms stay in float32.
        operations: A namespace with `Conv2d` and `Linear`, such as `torch.nn` or a host's casting layers.
    """

    def __init__(self, *, device: Device = None, dtype: Dtype = None, operations: Operations = torch.nn):
        super().__init__()
        self.encoder = ResNet(Bottleneck, (3, 4, 6, 3), device=device, dtype=dtype, operations=operations)
        self.layers = torch.nn.Sequential(
            operations.Linear(Bottleneck.expansion * WIDTHS[-1], 1024, device=device, dtype=dtype),
            torch.nn.ReLU(),
            operations.Linear(1024, CODE_SIZE, device=device, dtype=dtype),
        )

    def forward(self, crops: Float[Tensor, "B 3 224 224"]) -> Float[Tensor, "B 236"]:
        """Compute the codes of face crops; `split_code` names their parts.

        Args:
            crops: `[B, 3, 224, 224]`, RGB in 0..1.

        Returns:
            `[B, 236]`.

        Raises:
            BadInput: The shape is another.
        """
        if crops.ndim != 4 or tuple(crops.shape[1:]) != (3, CROP_SIZE, CROP_SIZE):
            raise BadInput(
                f"DECA needs crops of shape [B, 3, {CROP_SIZE}, {CROP_SIZE}], got {list(crops.shape)}. "
                "Cut them from the photo with deca_crop."
            )
        *_, features = self.encoder(crops)
        return self.layers(features.mean(dim=(2, 3)))


@dataclass(frozen=True, eq=False)
class DecaCode:
    """DECA's parameters of B heads, in FLAME's bases (the first 100 shape and 50 expression components).

    Attributes:
        shape: `[B, 100]`.
        texture: `[B, 50]`.
        expression: `[B, 50]`.
        rotation: `[B, 3]`, of the root, axis-angle in radians.
        jaw: `[B, 3]`, axis-angle in radians.
        camera: `[B, 3]`: scale s and translation, crop NDC = s · (x + tx, y + ty), then y negated.
        light: `[B, 9, 3]`, spherical-harmonic coefficients by colour.
    """

    shape: Num[Tensor, "B 100"]
    texture: Num[Tensor, "B 50"]
    expression: Num[Tensor, "B 50"]
    rotation: Num[Tensor, "B 3"]
    jaw: Num[Tensor, "B 3"]
    camera: Num[Tensor, "B 3"]
    light: Num[Tensor, "B 9 3"]


def split_code(code: Num[Tensor, "B 236"]) -> DecaCode:
    """Name the parts of an encoder's output.

    Args:
        code: `[B, 236]`.

    Returns:
        A `DecaCode` of views.

    Raises:
        BadInput: The shape is another.
    """
    if code.ndim != 2 or code.shape[1] != CODE_SIZE:
        raise BadInput(f"A DECA code has shape [B, {CODE_SIZE}], got {list(code.shape)}. Pass the encoder's output as it is.")
    parts = dict(zip(CODE_SPLIT, code.split(list(CODE_SPLIT.values()), dim=1), strict=True))
    parts["light"] = parts["light"].unflatten(1, (9, 3))
    return DecaCode(**parts)


@reads("DECA's encoder", f"Expected {DECA.reference}.")
def load_deca(
    path: str | os.PathLike[str], *, device: Device = None, dtype: Dtype = None, operations: Operations = torch.nn
) -> DecaEncoder:
    """Read the coarse encoder from DECA's checkpoint; the detail encoder and decoder beside it are not loaded.

    Args:
        path: `deca_model.tar`, or a safetensors file with its `E_flame.*` tensors.
        device: Device of the parameters; the CPU by default.
        dtype: As for `DecaEncoder`; float32 by default, whatever the file's type.
        operations: As for `DecaEncoder`.

    Returns:
        A `DecaEncoder` in evaluation mode and without gradients.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is broken or another network.
    """
    path = Path(path)
    refuse_onnx(path, kind="DECA", source=DECA.reference)
    state = unwrap(read_state_dict(path), PREFIX)
    wanted = {key.removeprefix(PREFIX): tensor for key, tensor in state.items() if key.startswith(PREFIX)}
    if not wanted:
        raise BadFile(f"{path.name} is {describe(state)}, without DECA's {PREFIX}*. Expected {DECA.reference}.")
    network = DecaEncoder(device="meta", dtype=dtype, operations=operations)
    like = DecaEncoder(device="meta", dtype=dtype)
    return load_strictly(
        network, wanted, file=path.name, kind="DECA's encoder", source=DECA.reference, device=device, like=like
    )
