"""Batch normalisation for inference only, and a convolution unit that uses it."""

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, relu

from ...shapes import Float
from ..build import Device, Dtype, Operations


class FrozenBatchNorm(torch.nn.BatchNorm2d):
    """Batch normalisation with stored statistics, whatever mode the module is in.

    A host's `operations` have no batch norm that casts, so this one moves its few parameters to the input's device and dtype
    itself. They stay in float32 whatever the network's dtype, because half precision cannot represent small variances.

    Args:
        channels: Number of channels, C.
        eps: Value added to the variance.
        device: Device of the parameters.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, device: Device = None):
        super().__init__(channels, eps=eps, device=device, dtype=torch.float32)

    def forward(self, x: Float[Tensor, "B C *size"]) -> Float[Tensor, "B C *size"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Normalise `x`, `[B, C]` or `[B, C, H, W]`, in its own dtype."""
        # y = gamma (x - mu) / sqrt(sigma² + eps) + beta
        mean, var, weight, bias = (
            t.to(x) for t in (self.running_mean, self.running_var, self.weight, self.bias) if t is not None
        )
        return batch_norm(x, mean, var, weight, bias, training=False, eps=self.eps)


class ConvUnit(torch.nn.Module):
    """Convolution without bias, batch norm, ReLU.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        kernel: Side, or (height, width).
        stride: Stride of the convolution.
        padding: Zeros on each side, or (vertical, horizontal).
        eps: Value that the batch norm adds to the variance.
        device: Device of the parameters.
        dtype: Type of the convolution's parameters.
        operations: Namespace of the layer classes.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int,
        padding: int | tuple[int, int],
        *,
        eps: float = 1e-5,
        device: Device = None,
        dtype: Dtype = None,
        operations: Operations = torch.nn,
    ):
        super().__init__()
        self.conv = operations.Conv2d(inputs, outputs, kernel, stride, padding, bias=False, device=device, dtype=dtype)
        self.bn = FrozenBatchNorm(outputs, eps=eps, device=device)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Map `[B, inputs, H, W]` to `[B, outputs, h, w]`."""
        return relu(self.bn(self.conv(x)))
