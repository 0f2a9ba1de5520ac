"""A small autoencoder with the geometry of Stable Diffusion's: pictures to latents at an eighth of the size, and back.

Only the miniature uses it. Real checkpoints bring their own. Tensors are `[B, C, H, W]`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..shapes import Float


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the autoencoder."""

    latent_channels: int = 8
    widths: tuple[int, ...] = (24, 48, 80)
    """Channels at one half, one quarter and one eighth of the picture's size."""

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> "AutoencoderConfig":
        """Read the sizes from parameter shapes `{key: shape}`."""
        widths = (shapes[f"decoder.{key}.weight"] for key in ("out", "up2", "up1"))
        return cls(shapes["decoder.enter.weight"][1], tuple(shape[1] for shape in widths))


class _Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return x + self.two(F.silu(self.one(F.silu(x))))


class _Encoder(nn.Module):
    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        _, quarter, eighth = config.widths
        self.enter = nn.Conv2d(3 * 16, quarter, 3, padding=1)
        self.at4 = _Block(quarter)
        self.down = nn.Conv2d(quarter, eighth, 3, stride=2, padding=1)
        self.at8 = nn.Sequential(*(_Block(eighth) for _ in range(2)))
        self.out = nn.Conv2d(eighth, config.latent_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        h = self.at4(self.enter(F.pixel_unshuffle(x, 4)))
        return self.out(F.silu(self.at8(self.down(F.silu(h)))))


class _Decoder(nn.Module):
    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        half, quarter, eighth = config.widths
        self.enter = nn.Conv2d(config.latent_channels, eighth, 3, padding=1)
        self.at8 = nn.Sequential(*(_Block(eighth) for _ in range(2)))
        self.up1 = nn.Conv2d(eighth, 4 * quarter, 3, padding=1)
        self.at4 = nn.Sequential(*(_Block(quarter) for _ in range(2)))
        self.up2 = nn.Conv2d(quarter, 4 * half, 3, padding=1)
        self.at2 = _Block(half)
        self.out = nn.Conv2d(half, 3 * 4, 3, padding=1)

    def forward(self, z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        h = self.at8(self.enter(z))
        h = self.at4(F.pixel_shuffle(self.up1(F.silu(h)), 2))
        h = self.at2(F.pixel_shuffle(self.up2(F.silu(h)), 2))
        return F.pixel_shuffle(self.out(F.silu(h)), 2)


class Autoencoder(nn.Module):
    """Encodes pictures in -1..1 as latents of about unit variance, and decodes them."""

    def __init__(self, config: AutoencoderConfig = AutoencoderConfig()):
        """Build the network with the sizes in `config`."""
        super().__init__()
        self.scale: Tensor
        self.config = config
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.register_buffer("scale", torch.ones((), dtype=torch.float32))

    def encode(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Encode pictures as latents.

        Args:
            pictures: `[B, 3, H, W]` in -1..1. H and W are multiples of 8.

        Returns:
            `[B, C, H/8, W/8]`, of about unit variance over many pictures.
        """
        return self.encoder(pictures) * self.scale

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Decode latents.

        Args:
            latents: `[B, C, H/8, W/8]`.

        Returns:
            Pictures `[B, 3, H, W]`, in about -1..1 and not clamped.
        """
        return self.decoder(latents / self.scale)
