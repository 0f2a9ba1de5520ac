"""What the training loop is fed: the contract between data of any kind and the loss."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """B people, each with a picture of them, its head maps, and features of a reference photo of the same person."""

    latents: Tensor
    """z_0 `[B, C, h, w]`, scaled as the denoiser's input."""
    context: Tensor
    """Text features c `[B, N, W]`."""
    null_context: Tensor
    """Text features of the empty prompt `[1, N, W]`, which text dropout puts in place of c."""
    hint: Tensor
    """Head maps H `[B, 9, 8h, 8w]`: normal, albedo, Lambertian."""
    mask: Tensor
    """M_gt `[B, 1, H', W']` in 0..1, of any size: where the head is and CapFace may act."""
    local: Tensor
    """Local identity features `[B, N_l, C_l]`; CLIP's are `[B, 257, 1024]`."""
    global_: Tensor
    """Global identity feature `[B, 1, C_g]`; FaceNet's is `[B, 1, 512]`."""

    def __len__(self) -> int:
        return len(self.latents)

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """The same batch on a device."""
        return TrainingBatch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


class Data(Protocol):
    """An endless source of batches that can go on from any place."""

    def batches(self, start: int, rank: int, world: int) -> Iterator[TrainingBatch]:
        """Batches of one process, the same for the same arguments.

        Args:
            start: How many batches this process has had: where a resumed run goes on.
            rank: Number of this process.
            world: How many processes share the data.
        """
        ...
