"""Batch normalisation of a network that is only ever evaluated, and the convolution that goes with it."""

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, relu


class FrozenBatchNorm(torch.nn.BatchNorm2d):
    """Batch normalisation with stored statistics, whatever mode the module is in.

    A host's `operations` offer no batch norm that casts, so this one moves its few numbers to the input's device and dtype by
    itself; they are kept in float32 whatever the network's dtype, because a half cannot hold small variances.

    Args:
        channels: C.
        eps: Added to the variance.
        device: Where the parameters are made.
    """

    def __init__(self, channels, *, eps=1e-5, device=None):
        super().__init__(channels, eps=eps, device=device, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Normalise `x` of shape [B,C] or [B,C,H,W], in its own dtype."""
        # y = gamma (x - mu) / sqrt(sigma² + eps) + beta
        mean, var, weight, bias = (
            t.to(x) for t in (self.running_mean, self.running_var, self.weight, self.bias) if t is not None
        )
        return batch_norm(x, mean, var, weight, bias, training=False, eps=self.eps)


class ConvUnit(torch.nn.Module):
    """Convolution without bias, batch norm, ReLU.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        kernel: Side, or (height, width).
        stride: Of the convolution.
        padding: Zeros on each side, or (vertical, horizontal).
        eps: Of the batch norm.
        device: Where the parameters are made.
        dtype: Of the convolution.
        operations: Namespace of the convolution.
    """

    def __init__(self, inputs, outputs, kernel, stride, padding, *, eps=1e-5, device=None, dtype=None, operations=torch.nn):
        super().__init__()
        self.conv = operations.Conv2d(inputs, outputs, kernel, stride, padding, bias=False, device=device, dtype=dtype)
        self.bn = FrozenBatchNorm(outputs, eps=eps, device=device)

    def forward(self, x):
        """[B,inputs,H,W] to [B,outputs,H',W']."""
        return relu(self.bn(self.conv(x)))
