"""The blocks of a Stable Diffusion 1.x network, with the module names of its checkpoints.

Every block takes `device, dtype, operations`: `operations` is a namespace with `Linear`, `Conv2d`, `GroupNorm` and `LayerNorm`,
`torch.nn` by default. A host may pass its own, which then cast or stream the weights.

Tensors are `[B, C, H, W]` (feature maps) or `[B, N, C]` (tokens). B batch, C channels, N tokens.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...shapes import Float, Num
from ..build import Device, Dtype, Operations

Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""`(q [B, N, C], k [B, M, C], v [B, M, C], heads) -> [B, N, C]`."""


def attention(
    q: Float[Tensor, "B N C"], k: Float[Tensor, "B M C"], v: Float[Tensor, "B M C"], heads: int
) -> Float[Tensor, "B N C"]:
    """Compute multi-head scaled dot-product attention.

    Args:
        q: Queries `[B, N, C]`.
        k: Keys `[B, M, C]`.
        v: Values `[B, M, C]`.
        heads: Number of heads; C is a multiple of it.

    Returns:
        `[B, N, C]`.
    """
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)


def timestep_embedding(timesteps: Num[Tensor, " B"], width: int, max_period: float = 10000.0) -> Float[Tensor, "B {width}"]:
    """Compute sinusoids of the timestep, cosines first.

    Args:
        timesteps: `[B]`, 0..999, fractions allowed. Computed in float32 whatever the network's type, because bfloat16 cannot
            represent 999.
        width: Even number of sinusoids.
        max_period: Period of the slowest sinusoid.

    Returns:
        float32 `[B, width]`.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half)
    phase = timesteps.float()[:, None] * frequencies[None]
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


class ResBlock(nn.Module):
    """Residual block with the timestep embedding added between its two convolutions."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        embedding: int,
        *,
        device: Device = None,
        dtype: Dtype = None,
        operations: Operations = nn,
    ):
        super().__init__()
        kw = {"device": device, "dtype": dtype}
        self.in_layers = nn.Sequential(
            operations.GroupNorm(32, channels, eps=1e-5, **kw),
            nn.SiLU(),
            operations.Conv2d(channels, out_channels, 3, padding=1, **kw),
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), operations.Linear(embedding, out_channels, **kw))
        self.out_layers = nn.Sequential(
            operations.GroupNorm(32, out_channels, eps=1e-5, **kw),
            nn.SiLU(),
            nn.Identity(),  # dropout during training
            operations.Conv2d(out_channels, out_channels, 3, padding=1, **kw),
        )
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else operations.Conv2d(channels, out_channels, 1, **kw)

    def forward(self, x: Float[Tensor, "B C H W"], embedding: Float[Tensor, "#B E"]) -> Float[Tensor, "B D H W"]:
        """Map `x` `[B, C, H, W]` and `embedding` `[B, E]` to `[B, out_channels, H, W]`."""
        h = self.in_layers(x) + self.emb_layers(embedding)[..., None, None]
        return self.skip_connection(x) + self.out_layers(h)


@dataclass(frozen=True, eq=False)
class Projected:
    """The keys and values of a context in every cross-attention of a network, for a context that many calls share."""

    of: Mapping[nn.Module, tuple[Tensor, Tensor]]
    """Keys and values, each `[B, M, C]`, by their `CrossAttention`."""

    def map(self, change: Callable[[Tensor], Tensor]) -> "Projected":
        """Apply a function to all keys and values."""
        return Projected({layer: (change(keys), change(values)) for layer, (keys, values) in self.of.items()})

    @classmethod
    def cat(cls, parts: "Sequence[Projected]") -> "Projected":
        """Concatenate the batches of contexts of the same network."""
        pairs = {layer: zip(*(part.of[layer] for part in parts), strict=True) for layer in parts[0].of}
        return cls({layer: (torch.cat(keys), torch.cat(values)) for layer, (keys, values) in pairs.items()})


class CrossAttention(nn.Module):
    """Attention of tokens to themselves or to a context."""

    def __init__(
        self,
        width: int,
        context_width: int,
        heads: int,
        *,
        attention: Attention,
        device: Device = None,
        dtype: Dtype = None,
        operations: Operations = nn,
    ):
        super().__init__()
        kw = {"device": device, "dtype": dtype}
        self.heads = heads
        self.attention = attention
        self.to_q = operations.Linear(width, width, bias=False, **kw)
        self.to_k = operations.Linear(context_width, width, bias=False, **kw)
        self.to_v = operations.Linear(context_width, width, bias=False, **kw)
        self.to_out = nn.Sequential(operations.Linear(width, width, **kw))

    def forward(self, x: Float[Tensor, "B N C"], context: Float[Tensor, "B M D"] | Projected) -> Float[Tensor, "B N C"]:
        """Map `x` `[B, N, C]` and `context`, tokens `[B, M, D]` or their keys and values, to `[B, N, C]`."""
        keys, values = context.of[self] if isinstance(context, Projected) else self.project(context)
        return self.to_out(self.attention(self.to_q(x), keys, values, self.heads))

    def project(self, context: Float[Tensor, "B M D"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M C"]]:
        """Return the keys and the values of a context, each `[B, M, C]`."""
        return self.to_k(context), self.to_v(context)

    def without_context(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "1 1 C"]:
        """Return the result of `forward` for an all-zero context without computing it: the output bias, `[1, 1, C]`.

        Zero keys give all tokens equal weights, and zero values then sum to zero.
        """
        return self.to_out(x.new_zeros(1, 1, x.shape[-1]))


class GEGLU(nn.Module):
    """Linear layer to twice the width; one half gates the other."""

    def __init__(self, width: int, out_width: int, *, device: Device = None, dtype: Dtype = None, operations: Operations = nn):
        super().__init__()
        self.proj = operations.Linear(width, 2 * out_width, device=device, dtype=dtype)

    def forward(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B N D"]:
        """Map `[B, N, width]` to `[B, N, out_width]`."""
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    """Position-wise network of a transformer block."""

    def __init__(self, width: int, *, device: Device = None, dtype: Dtype = None, operations: Operations = nn):
        super().__init__()
        kw = {"device": device, "dtype": dtype}
        self.net = nn.Sequential(
            GEGLU(width, 4 * width, **kw, operations=operations), nn.Identity(), operations.Linear(4 * width, width, **kw)
        )

    def forward(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Map `[B, N, C]` to the same shape."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward; each after a layer norm and added to its input."""

    def __init__(
        self,
        width: int,
        context_width: int,
        heads: int,
        *,
        attention: Attention,
        device: Device = None,
        dtype: Dtype = None,
        operations: Operations = nn,
    ):
        super().__init__()
        kw = {"device": device, "dtype": dtype}
        shared = {"attention": attention, "operations": operations, **kw}
        self.attn1 = CrossAttention(width, width, heads, **shared)
        self.ff = FeedForward(width, operations=operations, **kw)
        self.attn2 = CrossAttention(width, context_width, heads, **shared)
        self.norm1 = operations.LayerNorm(width, **kw)
        self.norm2 = operations.LayerNorm(width, **kw)
        self.norm3 = operations.LayerNorm(width, **kw)

    def forward(self, x: Float[Tensor, "B N C"], context: Float[Tensor, "B M D"] | Projected | None) -> Float[Tensor, "B N C"]:
        """Map `x` `[B, N, C]` and `context`, `[B, M, D]`, keys and values, or None for an all-zero context, to `[B, N, C]`."""
        normed = self.norm1(x)
        x = x + self.attn1(normed, normed)
        x = x + (self.attn2.without_context(x) if context is None else self.attn2(self.norm2(x), context))
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """One transformer block over the pixels of a feature map."""

    def __init__(
        self,
        channels: int,
        context_width: int,
        heads: int,
        *,
        attention: Attention,
        device: Device = None,
        dtype: Dtype = None,
        operations: Operations = nn,
    ):
        super().__init__()
        kw = {"device": device, "dtype": dtype}
        self.norm = operations.GroupNorm(32, channels, eps=1e-6, **kw)
        self.proj_in = operations.Conv2d(channels, channels, 1, **kw)
        self.transformer_blocks = nn.ModuleList(
            [TransformerBlock(channels, context_width, heads, attention=attention, operations=operations, **kw)]
        )
        self.proj_out = operations.Conv2d(channels, channels, 1, **kw)

    def forward(
        self, x: Float[Tensor, "B C H W"], context: Float[Tensor, "B M D"] | Projected | None
    ) -> Float[Tensor, "B C H W"]:
        """Map `x` `[B, C, H, W]` and `context`, as in `TransformerBlock.forward`, to `[B, C, H, W]`."""
        height, width = x.shape[-2:]
        tokens = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return x + self.proj_out(tokens.transpose(1, 2).unflatten(-1, (height, width)))


class Downsample(nn.Module):
    """Halves height and width with a strided convolution."""

    def __init__(self, channels: int, *, device: Device = None, dtype: Dtype = None, operations: Operations = nn):
        super().__init__()
        self.op = operations.Conv2d(channels, channels, 3, stride=2, padding=1, device=device, dtype=dtype)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """Map `[B, C, H, W]` to `[B, C, ceil(H/2), ceil(W/2)]`."""
        return self.op(x)


class Upsample(nn.Module):
    """Enlarges height and width, about twofold, and smooths with a convolution."""

    def __init__(self, channels: int, *, device: Device = None, dtype: Dtype = None, operations: Operations = nn):
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, padding=1, device=device, dtype=dtype)

    def forward(self, x: Float[Tensor, "B C h w"], size: Sequence[int]) -> Float[Tensor, "B C H W"]:
        """Map `[B, C, h, w]` to `[B, C, *size]`. The size is an argument because halving rounds an odd one up."""
        return self.conv(F.interpolate(x, size=tuple(size), mode="nearest"))


class Block(nn.Sequential):
    """Layers in sequence. Each gets the inputs that it needs: the timestep embedding, the context, a size, or only the map."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x: Float[Tensor, "B C H W"],
        embedding: Float[Tensor, "#B E"],
        context: Float[Tensor, "B M D"] | Projected | None,
        size: Sequence[int] | None = None,
    ) -> Float[Tensor, "B K h w"]:
        """Run the layers.

        Args:
            x: `[B, C, H, W]`.
            embedding: Of the timestep, `[B, E]`.
            context: `[B, M, D]`, its keys and values, or None for an all-zero context.
            size: Height and width that an `Upsample` enlarges to.
        """
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, embedding)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            elif isinstance(layer, Upsample):
                x = layer(x, size)
            else:
                x = layer(x)
        return x
