"""CapFace, the side network pi of CapHuman: head maps and identity tokens in, residuals for a frozen denoiser out.

It is an SD1.5 encoder whose 12 blocks and middle each end in a zero convolution. The 9-channel hint enters after the first
convolution and the identity through cross-attention. A mask predicted from the hint bounds the residuals.
Keys are those of the released `control_model.*`; `tests/golden/capface_sd15.shapes.json` lists them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import BadFile, BadInput
from ...shapes import Float, Num
from ..build import Device, Dtype, Operations
from . import layers
from .denoiser import Denoiser
from .encoder import Encoder, read_encoder

HINT_WIDTHS = (16, 16, 32, 32, 96, 96, 256)
"""The released hint encoder's output channels, before its last convolution; every second one from the third on has stride 2."""


@dataclass(frozen=True)
class CapFaceConfig:
    """Width and depth of the network; the defaults are those of the released checkpoint."""

    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    """Channels of each level, in units of `model_channels`."""
    num_res_blocks: int = 2
    """Residual blocks of each level."""
    attention_downsamplings: tuple[int, ...] = (1, 2, 4)
    """Downsampling factors (1 is latent size) of the levels that have transformers."""
    model_channels: int = 320
    hint_channels: int = 9
    context_width: int = 768
    num_heads: int = 8
    """Attention heads. No shape shows them; every SD1.x network has 8."""
    in_channels: int = 4
    """Channels of the latents."""
    hint_widths: tuple[int, ...] = HINT_WIDTHS
    """Output channels of the hint encoder's convolutions, before the last one."""

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> "CapFaceConfig":
        """Read the configuration from a network's parameter shapes.

        Args:
            shapes: `{key: shape}`, keys without `control_model.`.

        Raises:
            BadFile: The keys are not CapFace's.
        """
        hint = [f"input_hint_block.{2 * i}.weight" for i in range(len(HINT_WIDTHS))]
        missing = [key for key in hint if key not in shapes]
        if missing:
            raise BadFile(f"Not a complete CapFace network: the tensor {missing[0]!r} is missing.")
        return cls(
            **read_encoder(shapes, "CapFace network"),
            hint_channels=shapes[hint[0]][1],
            hint_widths=tuple(shapes[key][0] for key in hint),
        )


class CapFace(Encoder):
    """The side network pi(z_t, t, H, f_id) of equation 6."""

    config: CapFaceConfig

    def __init__(
        self,
        config: CapFaceConfig,
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
            operations: Namespace of the layer classes; ComfyUI's own cast and offload the weights.
            attention: The attention kernel.

        Raises:
            BadInput: There is not one width for each of the hint encoder's convolutions.
        """
        if len(config.hint_widths) != len(HINT_WIDTHS):
            raise BadInput(f"CapFace's hint encoder needs {len(HINT_WIDTHS)} widths, got {config.hint_widths}.")
        super().__init__(config, device=device, dtype=dtype, operations=operations, attention=attention)
        conv = {"device": device, "dtype": dtype}
        self.zero_convs = nn.ModuleList([nn.Sequential(operations.Conv2d(w, w, 1, **conv)) for w in self.widths])
        base, channels = config.model_channels, self.widths[-1]
        hint: list[nn.Module] = []
        previous = config.hint_channels
        for i, width in enumerate(config.hint_widths):
            stride = 2 if i in (2, 4, 6) else 1
            hint += [operations.Conv2d(previous, width, 3, padding=1, stride=stride, **conv), nn.SiLU()]
            previous = width
        self.input_hint_block = nn.Sequential(*hint, operations.Conv2d(previous, base, 3, padding=1, **conv))

        self.middle_block_out = nn.Sequential(operations.Conv2d(channels, channels, 1, **conv))
        self.mask_predict = nn.Sequential(operations.Conv2d(base, 1, 3, padding=1, **conv))

    @classmethod
    def from_denoiser(
        cls, denoiser: Denoiser, *, hint_channels: int = 9, hint_widths: Sequence[int] = HINT_WIDTHS
    ) -> "CapFace":
        """Make an untrained CapFace whose encoder is a copy of a denoiser's.

        The zero convolutions, and therefore the residuals, are zero. The hint encoder's last convolution is also zero, as in a
        ControlNet, so that the features start as the denoiser's own. The other hint layers and the mask have torch's default
        initialisation.

        Args:
            denoiser: The base model; CapFace has its sizes, device and type, and shares no memory with it.
            hint_channels: Channels of the head maps.
            hint_widths: Output channels of the hint encoder's convolutions, before the last one.
        """
        base = denoiser.config
        shared = {f.name: getattr(base, f.name) for f in fields(CapFaceConfig) if hasattr(base, f.name)}
        config = CapFaceConfig(**shared, hint_channels=hint_channels, hint_widths=tuple(hint_widths))
        like = next(denoiser.time_embed.parameters())
        network = cls(config, device=like.device, dtype=like.dtype)
        for part in ("time_embed", "input_blocks", "middle_block"):
            getattr(network, part).load_state_dict(getattr(denoiser, part).state_dict())
        for layer in (network.zero_convs, network.middle_block_out, network.input_hint_block[-1]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        return network

    def encode_hint(self, hint: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B D h w"], Float[Tensor, "B 1 h w"]]:
        """Encode the head maps. The result depends only on them, so it is computed once per hint.

        Args:
            hint: `[B, 9, H, W]`: normal (-1..1), albedo (0..1), Lambertian (about 0..1, not clamped); H, W multiples of 8.

        Returns:
            guided: `[B, C, H/8, W/8]`, an argument of `forward`.
            mask: `[B, 1, H/8, W/8]` in 0..1, the predicted head region M of equation 7.

        Raises:
            BadInput: The hint has another number of channels, or a size that is not a multiple of 8.
        """
        if hint.ndim != 4 or hint.shape[1] != self.config.hint_channels:
            raise BadInput(
                f"CapFace needs a hint of shape [B, {self.config.hint_channels}, H, W] (normal, albedo and Lambertian maps), "
                f"got {list(hint.shape)}. An RGB control image is not a head condition: use Render Head."
            )
        if hint.shape[2] % 8 or hint.shape[3] % 8:
            raise BadInput(f"CapFace needs a hint whose height and width are multiples of 8, got {tuple(hint.shape[2:])}.")
        guided = self.input_hint_block(hint)
        return guided, torch.sigmoid(self.mask_predict(guided))

    def project_identity(self, context: Float[Tensor, "B N W"]) -> layers.Projected:
        """Compute the keys and values of identity tokens, which do not change over the steps.

        Args:
            context: Identity tokens `[B, N, context_width]`.

        Returns:
            An argument of `forward`.
        """
        blocks = (module for module in self.modules() if isinstance(module, layers.TransformerBlock))
        return layers.Projected({block.attn2: block.attn2.project(context) for block in blocks})

    def forward(
        self,
        x: Float[Tensor, "B C h w"],
        timesteps: Num[Tensor, " B"],
        guided: Float[Tensor, "#B D h w"],
        context: Float[Tensor, "#B N W"] | layers.Projected | None,
    ) -> list[Tensor]:
        """Compute the residuals F_t = pi(z_t, t, H, f_id) of equation 6, neither masked nor scaled.

        Args:
            x: Noisy latents z_t `[B, in_channels, h, w]`, scaled as the denoiser's own input.
            timesteps: `[B]`, 0..999, fractions allowed.
            guided: `[B or 1, C, h, w]` from `encode_hint`.
            context: Identity tokens `[B or 1, N, context_width]`, or their keys and values from `project_identity`, or None for
                the dropped identity (equal to all-zero tokens, but its cross-attention is not computed).

        Returns:
            The residuals in the encoder's order, followed by the middle block's.
        """
        embedding = self.embed_timesteps(timesteps, x.dtype)
        rows = x.shape[0]
        if isinstance(context, layers.Projected):
            context = context.map(lambda t: t if t.shape[0] == rows else t.expand(rows, -1, -1))
        elif context is not None and context.shape[0] != rows:
            context = context.expand(rows, -1, -1)
        residuals: list[Tensor] = []
        h = x
        for i, (block, zero_conv) in enumerate(zip(self.input_blocks, self.zero_convs, strict=True)):
            h = block(h, embedding, context)
            if i == 0:
                h = h + guided
            residuals.append(zero_conv(h))
        h = self.middle_block(h, embedding, context)
        return [*residuals, self.middle_block_out(h)]

    @staticmethod
    def resize_mask(mask: Float[Tensor, "B 1 h w"], size: Sequence[int]) -> Float[Tensor, "B 1 H W"]:
        """Resize a mask `[B, 1, h, w]` in 0..1 to `size`: bilinear, half-pixel centres, antialiased. Some GPUs lack it."""
        return F.interpolate(mask, size=tuple(size), mode="bilinear", antialias=True)

    @staticmethod
    def mask_residuals(residuals: Sequence[Tensor], mask: Float[Tensor, "B 1 h w"]) -> list[Tensor]:
        """Bound the residuals to the head: F * M.

        The mask is resized to each residual (`resize_mask`) and thresholded at > 0.5.

        Args:
            residuals: Tensors `[B, C_i, h_i, w_i]`.
            mask: `[B or 1, 1, h, w]` in 0..1, on any device.
        """
        hard = {size: CapFace.resize_mask(mask, size) > 0.5 for size in {r.shape[-2:] for r in residuals}}
        return [r * hard[r.shape[-2:]].to(r.device) for r in residuals]


def token_factors(local: Tensor, global_: Tensor, local_tokens: int) -> Tensor:
    """Return the factor of each identity token, in the order of `IdentityTokens`.

    Args:
        local: Factor of the local tokens `[B]`.
        global_: Factor of the global token `[B]`.
        local_tokens: N, the number of local tokens.

    Returns:
        `[B, N + 1, 1]`, the local tokens first.
    """
    return torch.cat([local[:, None].expand(-1, local_tokens), global_[:, None]], dim=1)[..., None]


class IdentityTokens(nn.Module):
    """Projects the identity features to the tokens that CapFace attends to."""

    def __init__(
        self,
        local_width: int = 1024,
        global_width: int = 512,
        context_width: int = 768,
        *,
        device: Device = None,
        dtype: Dtype = None,
        operations: Operations = nn,
    ):
        super().__init__()
        self.img_linear = operations.Linear(local_width, context_width, device=device, dtype=dtype)
        self.id_linear = operations.Linear(global_width, context_width, device=device, dtype=dtype)

    def forward(self, local: Float[Tensor, "B N L"], global_: Float[Tensor, "B M G"]) -> Float[Tensor, "B K C"]:
        """Compute f_id = [img_linear(local); id_linear(global)].

        Args:
            local: CLIP ViT-L/14 tokens before the last layer norm `[B, 257, 1024]`.
            global_: FaceNet embedding `[B, 1, 512]`, L2-normalised.

        Returns:
            `[B, 258, 768]`, the image tokens first.
        """
        return torch.cat([self.img_linear(local), self.id_linear(global_)], dim=1)
