"""Who a person is, as CapFace reads it."""

from dataclasses import dataclass

from torch import Tensor

from ..errors import BadInput


@dataclass(frozen=True)
class Identity:
    """Who: raw features, so that they can be saved, averaged and reused with any checkpoint."""

    global_: Tensor
    """FaceNet embeddings float32 `[B, 512]`, L2-normalised."""
    local: Tensor
    """CLIP ViT-L/14 tokens before the last layer norm, float32 `[B, 257, 1024]`."""

    def __post_init__(self):
        if self.global_.ndim != 2 or self.local.ndim != 3 or self.global_.shape[0] != self.local.shape[0]:
            raise BadInput(
                "Expected identity features of shapes [B, 512] and [B, 257, 1024], "
                f"got {list(self.global_.shape)} and {list(self.local.shape)}."
            )
