"""What judges the miniature's portraits: a small network that took no part in making them, trained on drawn pictures.

It reads from a picture who is seen, how the head is held and lit, and what the prompt asked for. Tensors are `[B, C, H, W]`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..flame.edit import angles_of
from ..flame.params import HeadParams
from ..flame.people import BACKGROUNDS, SHIRTS, Setting
from .recognizer import Recognizer, RecognizerConfig

CONFIG = RecognizerConfig(widths=(16, 24, 40, 48))
ANGLE = 30.0
"""Degrees that count as one in the network's output."""
_SIZES = {"angles": 3, "position": 3, "light": 9, "background": len(BACKGROUNDS), "shirt": len(SHIRTS)}


@dataclass(frozen=True, eq=False)
class Facts:
    """What is true of a batch of pictures, or what the judge reads from them."""

    angles: Tensor
    """Yaw, pitch and roll in degrees `[B, 3]`."""
    position: Tensor
    """Camera in frame units `[B, 3]`, the size divided by 5."""
    light: Tensor
    """Spherical-harmonic coefficients, mean of the colours `[B, 9]`."""
    background: Tensor
    """`[B, 8]` scores of BACKGROUNDS, or their number `[B]` where they are true."""
    shirt: Tensor
    """`[B, 6]` scores of SHIRTS, or their number `[B]`."""

    @classmethod
    def of(cls, heads: HeadParams, settings: Sequence[Setting]) -> "Facts":
        """The truth about drawn pictures."""
        return cls(
            angles_of(heads.rotation),
            torch.cat([heads.camera[:, :1] / 5, heads.camera[:, 1:]], dim=1),
            heads.light.mean(-1),
            torch.tensor([BACKGROUNDS.index(s.background) for s in settings]),
            torch.tensor([list(SHIRTS).index(s.shirt) for s in settings]),
        )

    def errors(self, truth: "Facts") -> dict[str, Tensor]:
        """How far what was read is from the truth, one number a picture `[B]`.

        Returns:
            `pose` in degrees and `position` in frame units, the root of the mean square over their three numbers; `light`
            likewise over its nine coefficients; `prompt`, 1 where background and shirt are both as asked for, else 0.
        """
        right = (self.background.argmax(1) == truth.background) & (self.shirt.argmax(1) == truth.shirt)
        distances = {
            "pose": self.angles - truth.angles, "position": self.position - truth.position, "light": self.light - truth.light
        }  # fmt: skip
        return {name: d.pow(2).mean(1).sqrt() for name, d in distances.items()} | {"prompt": right.float()}


class Judge(nn.Module):
    """Reads who is seen, and Facts, from pictures `[B, 3, H, W]` in −1..1."""

    def __init__(self, config: RecognizerConfig = CONFIG):
        """Build the network."""
        super().__init__()
        self.eye = Recognizer(config)
        self.tell = nn.Linear(16 * config.widths[-1], sum(_SIZES.values()))

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> "Judge":
        """One with the sizes of parameter shapes `{key: shape}`."""
        return cls(RecognizerConfig.from_shapes({k.removeprefix("eye."): v for k, v in shapes.items()}))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Facts]:
        """Look at pictures: embeddings `[B, 128]`, each of length 1, and what is read."""
        embedding, tokens = self.eye(pictures)
        parts = self.tell(tokens.flatten(1)).split(list(_SIZES.values()), dim=1)
        return embedding, Facts(parts[0] * ANGLE, *parts[1:])
