"""A small network that says who a synthetic person is: the miniature's stand-in for both FaceNet and CLIP.

Tensors are `[B, C, H, W]` pictures and `[B, N, C]` tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 64
"""Side of the picture that it looks at, in pixels."""


@dataclass(frozen=True)
class RecognizerConfig:
    """Sizes of the network."""

    widths: tuple[int, ...] = (24, 40, 64, 96)
    """Channels at 32, 16, 8 and 4 pixels; the last are the tokens'."""
    global_width: int = 128

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> "RecognizerConfig":
        """Read the sizes from parameter shapes `{key: shape}`."""
        return cls(tuple(shapes[f"down.{i}.weight"][0] for i in range(4)), shapes["embed.weight"][0])


class _Block(nn.Module):
    def __init__(self, width: int, operations, kw):
        super().__init__()
        self.norm = operations.GroupNorm(8, width, **kw)
        self.one = operations.Conv2d(width, width, 3, padding=1, **kw)
        self.two = operations.Conv2d(width, width, 3, padding=1, **kw)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(F.silu(self.one(F.silu(self.norm(x)))))


class Recognizer(nn.Module):
    """A picture of a person to a global embedding and sixteen local tokens."""

    def __init__(self, config: RecognizerConfig = RecognizerConfig(), *, device=None, dtype=None, operations=nn):
        """Build the network; `operations` is the namespace of its layer classes."""
        super().__init__()
        kw = {"device": device, "dtype": dtype}
        self.config = config
        channels = (3, *config.widths)
        self.down = nn.ModuleList(
            operations.Conv2d(channels[i], channels[i + 1], 3, stride=2, padding=1, **kw) for i in range(4)
        )
        self.blocks = nn.ModuleList(_Block(width, operations, kw) for width in config.widths[1:-1])
        self.norm = operations.GroupNorm(8, config.widths[-1], **kw)
        self.embed = operations.Linear(config.widths[-1], config.global_width, **kw)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Read who is in pictures.

        Args:
            pictures: `[B, 3, H, W]` in -1..1; square, at least 64 pixels wide.

        Returns:
            The global embedding `[B, 128]`, each of length 1, and the local tokens `[B, 16, 96]`.
        """
        h = F.interpolate(pictures, size=(SIZE, SIZE), mode="bilinear", antialias=True)
        h = self.down[0](h)
        for down, block in zip(self.down[1:-1], self.blocks, strict=True):
            h = block(down(F.silu(h)))
        h = F.silu(self.norm(self.down[-1](F.silu(h))))
        return F.normalize(self.embed(h.mean((2, 3))), dim=-1), h.flatten(2).transpose(1, 2)
