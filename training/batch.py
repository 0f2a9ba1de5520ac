"""The input of the training loop: the interface between a data source and the loss."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """B samples: a picture of a person, its head maps, and identity features of a reference photo of the same person."""

    latents: Tensor
    """z_0 `[B, C, h, w]`, scaled as the denoiser expects."""
    context: Tensor
    """Text features c `[B, N, W]`."""
    null_context: Tensor
    """Text features of the empty prompt `[1, N, W]`; text dropout replaces c by them."""
    hint: Tensor
    """Head maps H `[B, 9, 8h, 8w]`: normal, albedo, Lambertian."""
    mask: Tensor
    """M_gt `[B, 1, H', W']` in 0..1, of any size: the area of the head, where CapFace may act."""
    local: Tensor
    """Local identity features `[B, N_l, C_l]`; CLIP's are `[B, 257, 1024]`."""
    global_: Tensor
    """Global identity feature `[B, 1, C_g]`; FaceNet's is `[B, 1, 512]`."""

    def __len__(self) -> int:
        return len(self.latents)

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """Return the same batch on a device."""
        return TrainingBatch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


Self = TypeVar("Self")


class Batch(Protocol):
    """A batch of any samples."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def to(self: Self, device: torch.device | str) -> Self:
        """Return the same batch on a device."""
        ...


AnyBatch = TypeVar("AnyBatch", bound=Batch)
BatchOut = TypeVar("BatchOut", bound=Batch, covariant=True)


class Data(Protocol[BatchOut]):
    """An endless source of batches that can start at any position."""

    def batches(self, start: int, rank: int, world: int) -> Iterator[BatchOut]:
        """Yield the batches of one process; equal arguments give equal batches.

        Args:
            start: Number of batches that this process has already used: the position at which a resumed run continues.
            rank: Number of this process, from 0.
            world: Number of processes that share the data.
        """
        ...
