"""The denoiser eps_theta of Stable Diffusion 1.x: the UNet that CapFace controls and is initialised from.

Keys are those of a checkpoint's `model.diffusion_model.*` without that prefix. Inside ComfyUI the host's own network denoises;
this one is used to train CapFace, and to sample without ComfyUI.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...errors import BadFile
from ...shapes import Float, Num
from ..build import Device, Dtype, Operations
from . import layers
from .encoder import Encoder, read_encoder


@dataclass(frozen=True)
class DenoiserConfig:
    """Width and depth of the network, as in `EncoderConfig`; the defaults are Stable Diffusion 1.5's."""

    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_downsamplings: tuple[int, ...] = (1, 2, 4)
    model_channels: int = 320
    context_width: int = 768
    num_heads: int = 8
    in_channels: int = 4
    out_channels: int = 4

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]], num_heads: int = 8) -> "DenoiserConfig":
        """Read the configuration from a network's parameter shapes.

        Args:
            shapes: `{key: shape}`, keys without `model.diffusion_model.`.
            num_heads: Attention heads. No shape shows them; every SD1.x network has 8.

        Raises:
            BadFile: The keys are not a denoiser's.
        """
        if "out.2.weight" not in shapes:
            raise BadFile("Not a complete denoiser: the tensor 'out.2.weight' is missing.")
        return cls(**read_encoder(shapes, "denoiser"), num_heads=num_heads, out_channels=shapes["out.2.weight"][0])

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], num_heads: int = 8) -> "DenoiserConfig":
        """Read the configuration from a network's state dict, as `from_shapes` does."""
        return cls.from_shapes({k: v.shape for k, v in state.items()}, num_heads)


class Denoiser(Encoder):
    """The noise prediction eps_theta(z_t, t, c), optionally with a side network's residuals."""

    config: DenoiserConfig

    def __init__(
        self,
        config: DenoiserConfig,
        *,
        device: Device = None,
        dtype: Dtype = None,
        operations: Operations = nn,
        attention: layers.Attention = layers.attention,
    ):
        """Build the network.

        Args:
            config: Width and depth.
            device: Device of the parameters.
            dtype: Type of the parameters.
            operations: Namespace of the layer classes.
            attention: The attention kernel.
        """
        super().__init__(config, device=device, dtype=dtype, operations=operations, attention=attention)
        kw = {"device": device, "dtype": dtype, "operations": operations}
        conv = {"device": device, "dtype": dtype}
        base = config.model_channels
        skips, channels = list(self.widths), self.widths[-1]
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(config.channel_mult))):
            width = config.channel_mult[level] * base
            for i in range(config.num_res_blocks + 1):
                block: list[nn.Module] = [layers.ResBlock(channels + skips.pop(), width, 4 * base, **kw)]
                channels = width
                if 2**level in config.attention_downsamplings:
                    heads = (config.context_width, config.num_heads)
                    block.append(layers.SpatialTransformer(channels, *heads, attention=attention, **kw))
                if level > 0 and i == config.num_res_blocks:
                    block.append(layers.Upsample(channels, **kw))
                self.output_blocks.append(layers.Block(*block))
        self.out = nn.Sequential(
            operations.GroupNorm(32, channels, eps=1e-5, **conv),
            nn.SiLU(),
            operations.Conv2d(channels, config.out_channels, 3, padding=1, **conv),
        )

    def forward(
        self,
        x: Float[Tensor, "B C h w"],
        timesteps: Num[Tensor, " B"],
        context: Float[Tensor, "B N D"],
        residuals: Sequence[Tensor] | None = None,
    ) -> Float[Tensor, "B K h w"]:
        """Predict the noise eps in z_t.

        Args:
            x: Noisy latents z_t `[B, C, h, w]`.
            timesteps: `[B]`, 0..999, fractions allowed.
            context: Text features `[B, N, context_width]`.
            residuals: Tensors added to the encoder's outputs before the decoder reads them, in the encoder's order, and last to
                the middle block's output: the list of `CapFace.forward`, masked and scaled.

        Returns:
            `[B, out_channels, h, w]`.
        """
        embedding = self.embed_timesteps(timesteps, x.dtype)
        h = x
        skips: list[Tensor] = []
        for block in self.input_blocks:
            h = block(h, embedding, context)
            skips.append(h)
        h = self.middle_block(h, embedding, context)
        if residuals is not None:
            skips = [skip + r for skip, r in zip(skips, residuals[:-1], strict=True)]
            h = h + residuals[-1]
        for block in self.output_blocks:
            h = torch.cat([h, skips.pop()], dim=1)
            h = block(h, embedding, context, skips[-1].shape[-2:] if skips else None)
        return self.out(h)
