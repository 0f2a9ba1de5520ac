"""A small network that recognizes synthetic people: the miniature's stand-in for both FaceNet and CLIP.

Pictures are `[B, C, H, W]`, tokens `[B, N, C]`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..shapes import Float

SIZE = 64
"""Side of its input picture, in pixels."""


@dataclass(frozen=True)
class RecognizerConfig:
    """Sizes of the network."""

    widths: tuple[int, ...] = (24, 40, 64, 96)
    """Channels at 32, 16, 8 and 4 pixels. The last number is the width of the tokens."""
    global_width: int = 128

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> "RecognizerConfig":
        """Read the sizes from parameter shapes `{key: shape}`."""
        return cls(tuple(shapes[f"down.{i}.weight"][0] for i in range(4)), shapes["embed.weight"][0])


class _Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return x + self.two(F.silu(self.one(F.silu(self.norm(x)))))


class Recognizer(nn.Module):
    """Encodes a picture of a person as one global embedding and sixteen local tokens."""

    def __init__(self, config: RecognizerConfig = RecognizerConfig()):
        """Build the network with the sizes in `config`."""
        super().__init__()
        self.config = config
        channels = (3, *config.widths)
        self.down = nn.ModuleList(nn.Conv2d(channels[i], channels[i + 1], 3, stride=2, padding=1) for i in range(4))
        self.blocks = nn.ModuleList(_Block(width) for width in config.widths[1:-1])
        self.norm = nn.GroupNorm(8, config.widths[-1])
        self.embed = nn.Linear(config.widths[-1], config.global_width)

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B G"], Float[Tensor, "B 16 C"]]:
        """Recognize the people in pictures.

        Args:
            pictures: `[B, 3, H, W]` in -1..1, square, at least 64 pixels wide.

        Returns:
            Global embeddings `[B, 128]`, each of length 1, and local tokens `[B, 16, 96]`.
        """
        h = F.interpolate(pictures, size=(SIZE, SIZE), mode="bilinear", antialias=True)
        h = self.down[0](h)
        for down, block in zip(self.down[1:-1], self.blocks, strict=True):
            h = block(down(F.silu(h)))
        h = F.silu(self.norm(self.down[-1](F.silu(h))))
        return F.normalize(self.embed(h.mean((2, 3))), dim=-1), h.flatten(2).transpose(1, 2)
