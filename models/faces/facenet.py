"""FaceNet, which maps a face to an identity vector of 512 values.

The network is Inception-ResNet-v1 with the layer names of the published VGGFace2 weights. Faces are RGB, 160 × 160,
standardised as `(x - 127.5) / 128` with x in 0..255 (`crops.facenet_face`). The vectors have length 1, so that a dot product
is the cosine that the paper reports as identity similarity.

Source: Szegedy et al., *Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning* (AAAI 2017),
figures 10 to 14; Schroff et al., *FaceNet* (CVPR 2015), for the unit vector.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadFile, BadInput
from ...files.boundary import reads
from ...files.catalogue import FACENET
from ...files.checkpoint import read_state_dict, unwrap
from ...files.identify import describe
from ...files.strict import load_strictly, refuse_onnx
from ...shapes import Float
from ..build import Device, Dtype, Operations
from .batchnorm import ConvUnit, FrozenBatchNorm

FACE_SIZE = 160
BATCH_NORM_EPS = 1e-3
VGGFACE2_PEOPLE = 8631  # rows of the classifier that the expected file has beside the network

Convolution = tuple[int, tuple[int, int], int]
"""Output channels, kernel height and width, and stride. Stride 1 keeps the size, stride 2 is unpadded."""
POINT, SQUARE = (1, 1), (3, 3)
BLOCK35 = ([(32, POINT, 1)], [(32, POINT, 1), (32, SQUARE, 1)], [(32, POINT, 1), (32, SQUARE, 1), (32, SQUARE, 1)])
BLOCK17 = ([(128, POINT, 1)], [(128, POINT, 1), (128, (1, 7), 1), (128, (7, 1), 1)])
BLOCK8 = ([(192, POINT, 1)], [(192, POINT, 1), (192, (1, 3), 1), (192, (3, 1), 1)])
REDUCTION_A = ([(384, SQUARE, 2)], [(192, POINT, 1), (192, SQUARE, 1), (256, SQUARE, 2)])
REDUCTION_B = (
    [(256, POINT, 1), (384, SQUARE, 2)],
    [(256, POINT, 1), (256, SQUARE, 2)],
    [(256, POINT, 1), (256, SQUARE, 1), (256, SQUARE, 2)],
)


def build_branch(inputs: int, convolutions: Sequence[Convolution], **build: Any) -> torch.nn.Module:
    """Build a branch. A single convolution is not wrapped, as the keys of the weights require."""
    units: list[torch.nn.Module] = []
    for outputs, kernel, stride in convolutions:
        padding = (kernel[0] // 2, kernel[1] // 2) if stride == 1 else 0
        units.append(ConvUnit(inputs, outputs, kernel, stride, padding, eps=BATCH_NORM_EPS, **build))
        inputs = outputs
    return units[0] if len(units) == 1 else torch.nn.Sequential(*units)


class Branches(torch.nn.Module):
    """Parallel branches `branch0`, `branch1`, … over one input, concatenated by `join`."""

    def __init__(self, inputs: int, branches: Sequence[Sequence[Convolution]], **build: Any):
        super().__init__()
        self.count = len(branches)
        self.width = sum(branch[-1][0] for branch in branches)
        for i, branch in enumerate(branches):
            setattr(self, f"branch{i}", build_branch(inputs, branch, **build))

    def join(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Concatenate the branches' outputs along the channels."""
        return torch.cat([getattr(self, f"branch{i}")(x) for i in range(self.count)], dim=1)


class ResidualBlock(Branches):
    """`x + scale · project(join(x))`, followed by ReLU except in the last block of the network."""

    def __init__(
        self,
        channels: int,
        branches: Sequence[Sequence[Convolution]],
        scale: float,
        *,
        activate: bool = True,
        device: Device,
        dtype: Dtype,
        operations: Operations,
    ):
        super().__init__(channels, branches, device=device, dtype=dtype, operations=operations)
        self.conv2d = operations.Conv2d(self.width, channels, 1, device=device, dtype=dtype)
        self.scale = scale
        self.activate = activate

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Map `[B, channels, H, W]` to the same shape."""
        x = x + self.scale * self.conv2d(self.join(x))
        return F.relu(x) if self.activate else x


class Reduction(Branches):
    """Halves height and width: the branches, and a max pool of the input beside them."""

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Map `[B, C, H, W]` to `[B, C + width, (H - 1) // 2, (W - 1) // 2]`."""
        return torch.cat([self.join(x), F.max_pool2d(x, 3, 2)], dim=1)


class FaceNet(torch.nn.Module):
    """Inception-ResNet-v1 that returns unit vectors.

    Args:
        device: Device of the parameters.
        dtype: Type of the convolutions and the linear layer; batch norms stay in float32.
        operations: A namespace with `Conv2d` and `Linear`, such as `torch.nn` or a host's casting layers.
    """

    def __init__(self, *, device: Device = None, dtype: Dtype = None, operations: Operations = torch.nn):
        super().__init__()
        build: dict[str, Any] = {"device": device, "dtype": dtype, "operations": operations}
        stem: dict[str, Any] = {**build, "eps": BATCH_NORM_EPS}
        self.conv2d_1a = ConvUnit(3, 32, 3, 2, 0, **stem)
        self.conv2d_2a = ConvUnit(32, 32, 3, 1, 0, **stem)
        self.conv2d_2b = ConvUnit(32, 64, 3, 1, 1, **stem)
        self.conv2d_3b = ConvUnit(64, 80, 1, 1, 0, **stem)
        self.conv2d_4a = ConvUnit(80, 192, 3, 1, 0, **stem)
        self.conv2d_4b = ConvUnit(192, 256, 3, 2, 0, **stem)
        self.repeat_1 = torch.nn.Sequential(*(ResidualBlock(256, BLOCK35, 0.17, **build) for _ in range(5)))
        self.mixed_6a = Reduction(256, REDUCTION_A, **build)
        self.repeat_2 = torch.nn.Sequential(*(ResidualBlock(896, BLOCK17, 0.10, **build) for _ in range(10)))
        self.mixed_7a = Reduction(896, REDUCTION_B, **build)
        self.repeat_3 = torch.nn.Sequential(*(ResidualBlock(1792, BLOCK8, 0.20, **build) for _ in range(5)))
        self.block8 = ResidualBlock(1792, BLOCK8, 1.0, activate=False, **build)
        self.last_linear = operations.Linear(1792, 512, bias=False, device=device, dtype=dtype)
        self.last_bn = FrozenBatchNorm(512, eps=BATCH_NORM_EPS, device=device)

    def forward(self, faces: Float[Tensor, "B 3 160 160"]) -> Float[Tensor, "B 512"]:
        """Compute the identity vectors of standardised faces.

        Args:
            faces: `[B, 3, 160, 160]`, RGB, `(x - 127.5) / 128`.

        Returns:
            `[B, 512]`, each of length 1, in the dtype of `faces`.

        Raises:
            BadInput: The shape is another.
        """
        if faces.ndim != 4 or tuple(faces.shape[1:]) != (3, FACE_SIZE, FACE_SIZE):
            raise BadInput(
                f"FaceNet needs faces of shape [B, 3, {FACE_SIZE}, {FACE_SIZE}], got {list(faces.shape)}. "
                "Cut them from the photo with facenet_face."
            )
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(faces)))
        x = self.conv2d_3b(F.max_pool2d(x, 3, 2))
        x = self.conv2d_4b(self.conv2d_4a(x))
        x = self.mixed_6a(self.repeat_1(x))
        x = self.mixed_7a(self.repeat_2(x))
        x = self.block8(self.repeat_3(x))
        x = self.last_bn(self.last_linear(x.mean(dim=(2, 3))))
        return F.normalize(x, dim=1)


@reads("FaceNet", f"Expected {FACENET.reference}.")
def load_facenet(
    path: str | os.PathLike[str], *, device: Device = None, dtype: Dtype = None, operations: Operations = torch.nn
) -> FaceNet:
    """Read FaceNet's published VGGFace2 weights.

    Args:
        path: `20180402-114759-vggface2.pt`, or a safetensors file with the same keys; the classifier `logits.*` is ignored.
        device: Device of the parameters; the CPU by default.
        dtype: As for `FaceNet`; float32 by default, whatever the file's type.
        operations: As for `FaceNet`.

    Returns:
        A `FaceNet` in evaluation mode and without gradients.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is broken, another network, or FaceNet trained on other people.
    """
    path = Path(path)
    refuse_onnx(path, kind="FaceNet", source=FACENET.reference)
    state = unwrap(read_state_dict(path), "conv2d_1a.")
    if "conv2d_1a.conv.weight" not in state:
        raise BadFile(
            f"{path.name} is {describe(state)}, not FaceNet (ArcFace's vectors also have 512 values, but cannot replace it). "
            f"Expected {FACENET.reference}."
        )
    classifier = state.pop("logits.weight", None)
    state.pop("logits.bias", None)
    if classifier is not None and classifier.ndim and len(classifier) != VGGFACE2_PEOPLE:
        raise BadFile(
            f"{path.name} is FaceNet trained on {len(classifier):,} people, not on VGGFace2's {VGGFACE2_PEOPLE:,}: "
            f"its vectors are incompatible with CapFace. Expected {FACENET.reference}."
        )
    network = FaceNet(device="meta", dtype=dtype, operations=operations)
    like = FaceNet(device="meta", dtype=dtype)
    return load_strictly(network, state, file=path.name, kind="FaceNet", source=FACENET.reference, device=device, like=like)
