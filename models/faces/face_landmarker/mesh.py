"""The face mesh: 478 points in three dimensions from a crop of one face, and whether the crop shows a face.

There are two networks: the one of 256 pixels in Google's `face_landmarker.task`, and the one of 192 pixels in ComfyUI's file.
The last ten points are the irises: centre and four points of the image-left one (468 to 472) and of the other (473 to 477).

Source: Kartynnik et al., *Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs* (2019); Grishchenko et al.,
*Attention Mesh* (2020), for the irises; the graph of MediaPipe's `face_landmarks_detector.tflite`, and the layout of ComfyUI's
file, whose keys the smaller network has.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ....shapes import Float
from ...build import Device, Dtype, Operations
from .layers import PReLU, depthwise, filtered, pad_same, shortcut

POINTS = 478
SKIN_POINTS = 468
"""Points of the canonical face. The irises' follow."""
LEFT_EYE, RIGHT_EYE = (33, 133), (362, 263)
"""Corners of the eyes, from the image's left to its right."""
STEM = 16


class Bottleneck(torch.nn.Module):
    """`prelu(shortcut(x) + project(depthwise(prelu(expand(x)))))`: half the channels in between.

    Where the block halves, `expand` is a 2 × 2 convolution with stride 2.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, device: Device, dtype: Dtype, operations: Operations):
        super().__init__()
        self.outputs, self.stride = outputs, stride
        inner, build = outputs // 2, {"device": device, "dtype": dtype}
        self.expand = operations.Conv2d(inputs, inner, stride, stride, **build)
        self.prelu_inner = PReLU(inner, **build)
        self.depthwise = depthwise(inner, 1, operations=operations, **build)
        self.project = operations.Conv2d(inner, outputs, 1, **build)
        self.prelu_out = PReLU(outputs, **build)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Map `[B, inputs, H, W]` to `[B, outputs, H / stride, W / stride]`."""
        y = self.project(self.depthwise(self.prelu_inner(self.expand(x))))
        return self.prelu_out(shortcut(x, self.outputs, self.stride) + y)


class SeparableBlock(torch.nn.Module):
    """`prelu(shortcut(x) + pointwise(prelu(depthwise(x))))`, of the smaller network."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, device: Device, dtype: Dtype, operations: Operations):
        super().__init__()
        self.outputs, self.stride = outputs, stride
        build = {"device": device, "dtype": dtype}
        self.depthwise = depthwise(inputs, stride, operations=operations, **build)
        self.prelu_dwise = PReLU(inputs, **build)
        self.pointwise = operations.Conv2d(inputs, outputs, 1, **build)
        self.prelu_out = PReLU(outputs, **build)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Map `[B, inputs, H, W]` to `[B, outputs, H / stride, W / stride]`."""
        y = self.pointwise(self.prelu_dwise(filtered(self.depthwise, x, self.stride)))
        return self.prelu_out(shortcut(x, self.outputs, self.stride) + y)


class FaceMesh(torch.nn.Module):
    """The mesh network of `face_landmarker.task`.

    Args:
        device: Device of the parameters.
        dtype: Type of the parameters.
        operations: Namespace of `Conv2d`.
    """

    SIZE = 256
    """Side of the input in pixels."""
    STAGES = ((16, 4), (32, 5), (64, 5), (128, 5), (128, 5), (128, 5), (128, 5))
    """Channels and blocks of each stage; the first block of each but the first stage halves."""

    def __init__(self, *, device: Device = None, dtype: Dtype = None, operations: Operations = torch.nn):
        super().__init__()
        build = {"device": device, "dtype": dtype}
        self.stem = operations.Conv2d(3, STEM, 3, 2, **build)
        self.prelu_stem = PReLU(STEM, **build)
        self.blocks = _blocks(Bottleneck, self.STAGES, operations=operations, **build)
        inputs, _ = self.STAGES[-1]
        self.head_presence = operations.Conv2d(inputs, 1, 2, **build)
        self.head_landmarks = operations.Conv2d(inputs, POINTS * 3, 2, **build)

    def forward(self, crops: Float[Tensor, "B 3 256 256"]) -> tuple[Float[Tensor, "B 478 3"], Float[Tensor, " B"]]:
        """Compute the points of level faces.

        Args:
            crops: `[B, 3, 256, 256]`, RGB in 0..1: a level face in the middle two thirds.

        Returns:
            `[B, 478, 3]`: x to the right, y down, z away from the camera, in pixels of the crop counted from its corner; and
            `[B]`: the probability that the crop shows a face.
        """
        x = self.prelu_stem(self.stem(pad_same(crops, 3)))
        return _outputs(self, self.blocks(x))


class FaceMesh192(torch.nn.Module):
    """The mesh network of ComfyUI's `mediapipe_face_fp32.safetensors`.

    Args:
        device: Device of the parameters.
        dtype: Type of the parameters.
        operations: Namespace of `Conv2d`.
    """

    SIZE = 192
    """Side of the input in pixels."""
    STAGES = ((16, 2), (32, 3), (64, 3), (128, 3), (128, 3), (128, 3))
    """As for `FaceMesh`."""
    REDUCED = 8

    def __init__(self, *, device: Device = None, dtype: Dtype = None, operations: Operations = torch.nn):
        super().__init__()
        build = {"device": device, "dtype": dtype}
        self.stem = operations.Conv2d(3, STEM, 3, 2, **build)
        self.prelu_stem = PReLU(STEM, **build)
        self.blocks = _blocks(SeparableBlock, self.STAGES, operations=operations, **build)
        inputs, _ = self.STAGES[-1]
        self.head_reduce = operations.Conv2d(inputs, self.REDUCED, 1, **build)
        self.prelu_head_reduce = PReLU(self.REDUCED, **build)
        self.head_block = SeparableBlock(self.REDUCED, self.REDUCED, 1, operations=operations, **build)
        self.head_presence = operations.Conv2d(self.REDUCED, 1, 3, **build)
        self.head_landmarks = operations.Conv2d(self.REDUCED, POINTS * 3, 3, **build)

    def forward(self, crops: Float[Tensor, "B 3 192 192"]) -> tuple[Float[Tensor, "B 478 3"], Float[Tensor, " B"]]:
        """Compute the points of level faces: as `FaceMesh`, from crops `[B, 3, 192, 192]`."""
        x = self.blocks(self.prelu_stem(self.stem(pad_same(crops, 3))))
        return _outputs(self, self.head_block(self.prelu_head_reduce(self.head_reduce(x))))


def _blocks(
    block: type[Bottleneck] | type[SeparableBlock],
    stages: Sequence[tuple[int, int]],
    *,
    device: Device,
    dtype: Dtype,
    operations: Operations,
) -> torch.nn.Sequential:
    """Build the blocks of stages, as `FaceMesh.STAGES` lists them."""
    blocks: list[torch.nn.Module] = []
    inputs = STEM
    for stage, (width, count) in enumerate(stages):
        for number in range(count):
            stride = 2 if stage > 0 and number == 0 else 1
            blocks.append(block(inputs, width, stride, device=device, dtype=dtype, operations=operations))
            inputs = width
    return torch.nn.Sequential(*blocks)


def _outputs(
    network: FaceMesh | FaceMesh192, x: Float[Tensor, "B C H W"]
) -> tuple[Float[Tensor, "B 478 3"], Float[Tensor, " B"]]:
    presence = F.sigmoid(network.head_presence(x)).flatten()
    return network.head_landmarks(x).flatten(1).unflatten(1, (POINTS, 3)), presence
