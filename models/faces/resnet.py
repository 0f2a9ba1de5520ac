"""ResNet without its classifier, as DECA's encoder (50 layers) and the face parser (18 layers) use it.

Source: He et al., *Deep Residual Learning for Image Recognition* (CVPR 2016), table 1 and figure 5.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...shapes import Float
from .batchnorm import FrozenBatchNorm

WIDTHS, STRIDES = (64, 128, 256, 512), (1, 2, 2, 2)
"""Width and stride of the four stages."""


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, build: dict[str, Any]) -> torch.nn.Module:
    """Build a convolution without bias, padded so that only its stride changes the size."""
    kept = {"device": build["device"], "dtype": build["dtype"]}
    return build["operations"].Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False, **kept)


class _Block(torch.nn.Module):
    """Base of both kinds of blocks: convolutions with batch norms, and a shortcut that changes shape where needed."""

    conv1: torch.nn.Module
    bn1: torch.nn.Module
    conv2: torch.nn.Module
    bn2: torch.nn.Module

    def __init__(self, convolutions: list[tuple[int, int, int, int]], build: dict[str, Any]):
        """Add `conv1`, `bn1`, … and `downsample`.

        Args:
            convolutions: Inputs, outputs, kernel and stride of each.
            build: Device, dtype and operations.
        """
        super().__init__()
        for number, (inputs, outputs, kernel, stride) in enumerate(convolutions, start=1):
            setattr(self, f"conv{number}", _convolution(inputs, outputs, kernel, stride, build))
            setattr(self, f"bn{number}", FrozenBatchNorm(outputs, device=build["device"]))
        inputs, outputs = convolutions[0][0], convolutions[-1][1]
        stride = max(stride for *_, stride in convolutions)
        self.downsample: torch.nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shortcut = _convolution(inputs, outputs, 1, stride, build)
            self.downsample = torch.nn.Sequential(shortcut, FrozenBatchNorm(outputs, device=build["device"]))

    def _add(self, x: Tensor, y: Tensor) -> Tensor:
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class BasicBlock(_Block):
    """Two 3×3 convolutions; the first carries the stride."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, **build: Any):
        """Build a block.

        Args:
            inputs: Input channels.
            width: Output channels.
            stride: Stride of the block.
            **build: Device, dtype and operations.
        """
        super().__init__([(inputs, width, 3, stride), (width, width, 3, 1)], build)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Map `[B, inputs, H, W]` to `[B, width, H/stride, W/stride]`."""
        return self._add(x, self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Bottleneck(_Block):
    """1×1, 3×3 and 1×1 convolutions; the 3×3 carries the stride."""

    conv3: torch.nn.Module
    bn3: torch.nn.Module

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, **build: Any):
        """Build a block.

        Args:
            inputs: Input channels.
            width: A quarter of the output channels.
            stride: Stride of the block.
            **build: Device, dtype and operations.
        """
        outputs = self.expansion * width
        super().__init__([(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)], build)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Map `[B, inputs, H, W]` to `[B, 4 width, H/stride, W/stride]`."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return self._add(x, self.bn3(self.conv3(y)))


class ResNet(torch.nn.Module):
    """A 7×7 convolution and a pooling, followed by four stages."""

    layer1: torch.nn.Module
    layer2: torch.nn.Module
    layer3: torch.nn.Module
    layer4: torch.nn.Module

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, int, int, int], **build: Any):
        """Build the network.

        Args:
            block: The kind of block.
            depths: Blocks of each stage: (2, 2, 2, 2) for ResNet-18, (3, 4, 6, 3) for ResNet-50.
            **build: Device, dtype and operations.
        """
        super().__init__()
        self.conv1 = _convolution(3, 64, 7, 2, build)
        self.bn1 = FrozenBatchNorm(64, device=build["device"])
        inputs = 64
        for number, (width, stride, depth) in enumerate(zip(WIDTHS, STRIDES, depths, strict=True), start=1):
            first, inputs = block(inputs, width, stride, **build), block.expansion * width
            rest = (block(inputs, width, 1, **build) for _ in range(depth - 1))
            setattr(self, f"layer{number}", torch.nn.Sequential(first, *rest))

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features at 1/8, 1/16 and 1/32 of the image: 128, 256 and 512 channels times the block's expansion."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)
