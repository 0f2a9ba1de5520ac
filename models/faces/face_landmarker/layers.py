"""Layers that MediaPipe's networks share.

A host's `operations` have no PReLU and no layer norm without offset that casts, so these move their few parameters to the
input's device and dtype themselves.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ....shapes import Float
from ...build import Device, Dtype, Operations


class PReLU(torch.nn.Module):
    """`max(x, 0) + weight · min(x, 0)` with one weight for each channel."""

    def __init__(self, channels: int, *, device: Device = None, dtype: Dtype = None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((channels,), 0.25, device=device, dtype=dtype))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Map `[B, C, H, W]` to the same shape."""
        return F.prelu(x, self.weight.to(x))


class ScaleNorm(torch.nn.Module):
    """Layer norm over the last axis with a scale and without an offset."""

    EPS = 1e-6

    def __init__(self, width: int, *, device: Device = None, dtype: Dtype = None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(width, device=device, dtype=dtype))

    def forward(self, x: Float[Tensor, "*N C"]) -> Float[Tensor, "*N C"]:
        """Map `[..., C]` to the same shape."""
        return F.layer_norm(x, self.weight.shape, self.weight.to(x), None, self.EPS)


def depthwise(channels: int, stride: int, *, device: Device, dtype: Dtype, operations: Operations) -> torch.nn.Module:
    """Build a 3 × 3 convolution of each channel for itself; with stride 2 it needs `pad_same` before it."""
    padding = 1 if stride == 1 else 0
    return operations.Conv2d(channels, channels, 3, stride, padding, groups=channels, device=device, dtype=dtype)


def pad_same(x: Float[Tensor, "B C H W"], kernel: int, stride: int = 2) -> Float[Tensor, "B C h w"]:
    """Pad with zeros as TensorFlow's padding "SAME" does: an odd row or column goes to the bottom or right.

    Args:
        x: `[B, C, H, W]`.
        kernel: Side of the convolution that follows.
        stride: Its stride. With stride 1 and an odd kernel the convolution's own padding is the same.

    Returns:
        The padded input, of which the convolution makes `ceil(H / stride)` × `ceil(W / stride)`.
    """
    # p = max((ceil(n / s) - 1) s + k - n, 0)
    tall, wide = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
    return F.pad(x, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))


def add_channels(x: Float[Tensor, "B C H W"], channels: int) -> Float[Tensor, "B {channels} H W"]:
    """Append channels of zeros, so that there are `channels`."""
    return F.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))


def filtered(layer: torch.nn.Module, x: Float[Tensor, "B C H W"], stride: int) -> Float[Tensor, "B C h w"]:
    """Apply a layer of `depthwise` with its padding."""
    return layer(pad_same(x, 3) if stride == 2 else x)


def shortcut(x: Float[Tensor, "B C H W"], channels: int, stride: int) -> Float[Tensor, "B {channels} h w"]:
    """Bring a block's input to its output's shape: 2 × 2 maximum where the block halves, zeros for further channels."""
    return add_channels(F.max_pool2d(x, 2) if stride == 2 else x, channels)
