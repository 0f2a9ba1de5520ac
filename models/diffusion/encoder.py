"""The encoder of an SD1.x denoiser: what the denoiser itself and CapFace, which begins as its copy, have in common."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ...errors import BadFile
from ...files.budgets import MOST_LAYERS, at_most
from ...shapes import Float, Num
from ..build import Device, Dtype, Operations
from . import layers


@runtime_checkable
class EncoderConfig(Protocol):
    """The sizes that an encoder is built from; a frozen dataclass with these fields fits."""

    @property
    def channel_mult(self) -> tuple[int, ...]:
        """Channels of each level, in units of `model_channels`."""
        ...

    @property
    def num_res_blocks(self) -> int:
        """Residual blocks of each level."""
        ...

    @property
    def attention_downsamplings(self) -> tuple[int, ...]:
        """Downsampling factors (1 is latent size) of the levels that have transformers."""
        ...

    @property
    def model_channels(self) -> int:
        """Channels at latent size; a multiple of 32, the number of groups of every GroupNorm."""
        ...

    @property
    def context_width(self) -> int:
        """Width of the tokens that cross-attention reads."""
        ...

    @property
    def num_heads(self) -> int:
        """Attention heads; every level's channels are a multiple of them."""
        ...

    @property
    def in_channels(self) -> int:
        """Channels of the latents."""
        ...


def read_encoder(shapes: Mapping[str, Sequence[int]], kind: str) -> dict[str, Any]:
    """Read the fields of an `EncoderConfig` from parameter shapes, except the number of heads, which no shape shows.

    Args:
        shapes: `{key: shape}`, keys as in `Encoder`; others are ignored.
        kind: Kind of network, for messages.

    Raises:
        BadFile: A tensor of the encoder is missing, its levels differ in depth, or it has too many blocks.
    """
    count = len({key.split(".")[1] for key in shapes if key.startswith("input_blocks.")})
    at_most(count, MOST_LAYERS, "input blocks", f"A {kind}")
    try:
        model_channels, in_channels = shapes["input_blocks.0.0.weight"][:2]
        context_width = shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1]
        channels: list[int] = []
        attention: list[int] = []
        blocks, downsampling = [0], 1
        for i in range(1, count):
            if f"input_blocks.{i}.0.op.weight" in shapes:
                downsampling *= 2
                blocks.append(0)
                continue
            blocks[-1] += 1
            if len(channels) < len(blocks):
                channels.append(shapes[f"input_blocks.{i}.0.out_layers.3.weight"][0] // model_channels)
            if f"input_blocks.{i}.1.norm.weight" in shapes and downsampling not in attention:
                attention.append(downsampling)
    except KeyError as missing:
        raise BadFile(f"Not a complete {kind}: the tensor {missing} is missing.") from None
    if len(set(blocks)) != 1:
        raise BadFile(f"Expected the same number of residual blocks on every level, got {blocks}.")
    return {
        "channel_mult": tuple(channels),
        "num_res_blocks": blocks[0],
        "attention_downsamplings": tuple(attention),
        "model_channels": model_channels,
        "context_width": context_width,
        "in_channels": in_channels,
    }


class Encoder(nn.Module):
    """Timestep embedding, input blocks and middle block; a base class that leaves their use to its subclasses."""

    def __init__(
        self,
        config: EncoderConfig,
        *,
        device: Device = None,
        dtype: Dtype = None,
        operations: Operations = nn,
        attention: layers.Attention = layers.attention,
    ):
        super().__init__()
        kw = {"device": device, "dtype": dtype, "operations": operations}
        conv = {"device": device, "dtype": dtype}
        self.config = config
        base, embedding = config.model_channels, 4 * config.model_channels

        def transformer(channels: int) -> nn.Module:
            return layers.SpatialTransformer(channels, config.context_width, config.num_heads, attention=attention, **kw)

        self.time_embed = nn.Sequential(
            operations.Linear(base, embedding, **conv), nn.SiLU(), operations.Linear(embedding, embedding, **conv)
        )
        self.input_blocks = nn.ModuleList([layers.Block(operations.Conv2d(config.in_channels, base, 3, padding=1, **conv))])
        self.widths = [base]
        """Channels of each input block's output."""
        channels, downsampling = base, 1
        for level, mult in enumerate(config.channel_mult):
            if level > 0:
                self.input_blocks.append(layers.Block(layers.Downsample(channels, **kw)))
                self.widths.append(channels)
                downsampling *= 2
            for _ in range(config.num_res_blocks):
                block: list[nn.Module] = [layers.ResBlock(channels, mult * base, embedding, **kw)]
                channels = mult * base
                if downsampling in config.attention_downsamplings:
                    block.append(transformer(channels))
                self.input_blocks.append(layers.Block(*block))
                self.widths.append(channels)
        self.middle_block = layers.Block(
            layers.ResBlock(channels, channels, embedding, **kw),
            transformer(channels),
            layers.ResBlock(channels, channels, embedding, **kw),
        )

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the sizes (h, w) of the input blocks' outputs and of the middle block's, for latents of a size."""
        sizes: list[tuple[int, int]] = []
        for block in self.input_blocks:
            if any(isinstance(layer, layers.Downsample) for layer in block.children()):
                height, width = (height + 1) // 2, (width + 1) // 2
            sizes.append((height, width))
        return [*sizes, sizes[-1]]

    def residual_elements(self, height: int, width: int) -> int:
        """Return the number of values in the residuals of one latent of a size."""
        widths = [*self.widths, self.widths[-1]]
        return sum(c * h * w for c, (h, w) in zip(widths, self.sizes(height, width), strict=True))

    def embed_timesteps(self, timesteps: Num[Tensor, " B"], dtype: torch.dtype) -> Float[Tensor, "B E"]:
        """Map timesteps `[B]`, 0..999, fractions allowed, to `[B, 4 · model_channels]`."""
        return self.time_embed(layers.timestep_embedding(timesteps, self.config.model_channels).to(dtype))
