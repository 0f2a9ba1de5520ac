"""A small autoencoder with Stable Diffusion's geometry: pictures to latents at an eighth of the size, and back.

It is the miniature's; real checkpoints bring their own. Tensors are `[B, C, H, W]`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DOWNSCALE = 8


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the autoencoder."""

    latent_channels: int = 8
    widths: tuple[int, ...] = (24, 48, 80)
    """Channels at a half, a quarter and an eighth of the picture's size."""

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> "AutoencoderConfig":
        """Read the sizes from parameter shapes `{key: shape}`."""
        widths = (shapes[f"decoder.{key}.weight"] for key in ("out", "up2", "up1"))
        return cls(shapes["decoder.enter.weight"][1], tuple(shape[1] for shape in widths))


class _Block(nn.Module):
    def __init__(self, width: int, operations, kw):
        super().__init__()
        self.one = operations.Conv2d(width, width, 3, padding=1, **kw)
        self.two = operations.Conv2d(width, width, 3, padding=1, **kw)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(F.silu(self.one(F.silu(x))))


class _Encoder(nn.Module):
    def __init__(self, config: AutoencoderConfig, operations, kw):
        super().__init__()
        _, quarter, eighth = config.widths
        self.enter = operations.Conv2d(3 * 16, quarter, 3, padding=1, **kw)
        self.at4 = _Block(quarter, operations, kw)
        self.down = operations.Conv2d(quarter, eighth, 3, stride=2, padding=1, **kw)
        self.at8 = nn.Sequential(*(_Block(eighth, operations, kw) for _ in range(2)))
        self.out = operations.Conv2d(eighth, config.latent_channels, 3, padding=1, **kw)

    def forward(self, x: Tensor) -> Tensor:
        h = self.at4(self.enter(F.pixel_unshuffle(x, 4)))
        return self.out(F.silu(self.at8(self.down(F.silu(h)))))


class _Decoder(nn.Module):
    def __init__(self, config: AutoencoderConfig, operations, kw):
        super().__init__()
        half, quarter, eighth = config.widths
        self.enter = operations.Conv2d(config.latent_channels, eighth, 3, padding=1, **kw)
        self.at8 = nn.Sequential(*(_Block(eighth, operations, kw) for _ in range(2)))
        self.up1 = operations.Conv2d(eighth, 4 * quarter, 3, padding=1, **kw)
        self.at4 = nn.Sequential(*(_Block(quarter, operations, kw) for _ in range(2)))
        self.up2 = operations.Conv2d(quarter, 4 * half, 3, padding=1, **kw)
        self.at2 = _Block(half, operations, kw)
        self.out = operations.Conv2d(half, 3 * 4, 3, padding=1, **kw)

    def forward(self, z: Tensor) -> Tensor:
        h = self.at8(self.enter(z))
        h = self.at4(F.pixel_shuffle(self.up1(F.silu(h)), 2))
        h = self.at2(F.pixel_shuffle(self.up2(F.silu(h)), 2))
        return F.pixel_shuffle(self.out(F.silu(h)), 2)


class Autoencoder(nn.Module):
    """Pictures in -1..1 to latents of about unit variance, and back."""

    def __init__(self, config: AutoencoderConfig = AutoencoderConfig(), *, device=None, dtype=None, operations=nn):
        """Build the network; `operations` is the namespace of its layer classes."""
        super().__init__()
        kw = {"device": device, "dtype": dtype}
        self.scale: Tensor
        self.config = config
        self.encoder = _Encoder(config, operations, kw)
        self.decoder = _Decoder(config, operations, kw)
        self.register_buffer("scale", torch.ones((), device=device, dtype=torch.float32))

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents of pictures.

        Args:
            pictures: `[B, 3, H, W]` in -1..1; H and W multiples of 8.

        Returns:
            `[B, C, H/8, W/8]`, of about unit variance over many pictures.
        """
        return self.encoder(pictures) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures `[B, 3, H, W]`, about -1..1 and not clamped, of latents `[B, C, H/8, W/8]`."""
        return self.decoder(latents / self.scale)
