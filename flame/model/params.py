"""The parameters of a head.

Conventions: rotations are axis-angle in radians (see `rotation.py`). The camera `(s, tx, ty)` is weak perspective in frame
units: origin at the frame's centre, one unit is half the frame's short side, u right, v down: `u = s·x + tx`,
`v = -s·y + ty` for a vertex (x, y, z) in metres. It does not depend on pixels, so the same head fits a frame of any size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float
from .spherical_harmonics import frontal_light

NEUTRAL_SCALE = 5.0
"""Camera scale at which a head of 0.25 m fills five eighths of the frame's short side."""

SIZES: dict[str, tuple[int, ...]] = {
    "shape": (100,),
    "expression": (50,),
    "texture": (50,),
    "rotation": (3,),
    "neck": (3,),
    "jaw": (3,),
    "eyes": (6,),
    "camera": (3,),
    "light": (9, 3),
}
"""Shape of each field without its batch dimension."""


LIMITS = {"texture": 1e4, "camera": 1e18, "light": 1e4}
"""Largest magnitude of each field's numbers, far beyond any head that can be seen. Beyond them maps overflow. Rotations may be
any finite number, and shape and expression are limited by the renderer, which knows the model."""


@dataclass(frozen=True, eq=False)
class HeadParams:
    """A batch of heads: identity, expression, skin, pose, camera and light. All fields are float32 on one device.

    A head model uses the first coefficients, as many as it has components.

    Raises:
        BadInput: A field is not a finite float32 tensor of its shape or exceeds `LIMITS`, the batch sizes or devices of the
            fields differ, the batch is empty, or a camera's scale is not above 0.
    """

    shape: Float[Tensor, "B 100"]
    """Identity coefficients, in standard deviations."""
    expression: Float[Tensor, "B 50"]
    """Expression coefficients, in standard deviations."""
    texture: Float[Tensor, "B 50"]
    """Skin coefficients, in standard deviations."""
    rotation: Float[Tensor, "B 3"]
    """Rotation of the whole head."""
    neck: Float[Tensor, "B 3"]
    """Rotation of the head on the neck."""
    jaw: Float[Tensor, "B 3"]
    """Rotation of the jaw; positive x opens the mouth."""
    eyes: Float[Tensor, "B 6"]
    """Rotations of the two eyeballs, in the order of the model's joints."""
    camera: Float[Tensor, "B 3"]
    """(s, tx, ty) in frame units; s > 0."""
    light: Float[Tensor, "B 9 3"]
    """Spherical-harmonic coefficients of RGB light."""

    def __post_init__(self):
        batch = None
        for name, size in SIZES.items():
            value = getattr(self, name)
            wanted = f"a float32 tensor [B, {', '.join(map(str, size))}]"
            if not isinstance(value, Tensor):
                raise BadInput(f"HeadParams.{name}: expected {wanted}, got {type(value).__name__}.")
            if value.dtype != torch.float32 or value.dim() != 1 + len(size) or tuple(value.shape[1:]) != size:
                raise BadInput(f"HeadParams.{name}: expected {wanted}, got {value.dtype} {list(value.shape)}.")
            if value.layout != torch.strided or value.is_meta:
                raise BadInput(f"HeadParams.{name}: expected {wanted} with its numbers in memory, got a sparse or meta tensor.")
            batch = value.shape[0] if batch is None else batch
            if value.shape[0] != batch:
                raise BadInput(
                    f"HeadParams.{name}: expected a batch of {batch} like the shape's, got {value.shape[0]}; "
                    "expand() brings heads to one batch size."
                )
            if value.device != self.shape.device:
                raise BadInput(
                    f"HeadParams.{name}: is on {value.device}, the shape on {self.shape.device}; to() moves all of them."
                )
            if not torch.isfinite(value).all():
                raise BadInput(f"HeadParams.{name}: holds NaN or infinite numbers.")
            if name in LIMITS and value.numel() and (largest := value.abs().max().item()) > LIMITS[name]:
                limit = LIMITS[name]
                raise BadInput(f"HeadParams.{name}: expected numbers from -{limit:g} to {limit:g}, got {largest:g}.")
        if batch == 0:
            raise BadInput("HeadParams: expected at least one head, got a batch of 0.")
        if (self.camera[:, 0] <= 0).any():
            raise BadInput(f"HeadParams.camera: expected scales above 0, got {self.camera[:, 0].tolist()}.")

    @classmethod
    def neutral(cls, batch: int = 1, device: torch.device | str | None = None) -> "HeadParams":
        """Return the average head, facing the viewer at the frame's centre under the default light."""
        if batch < 1:
            raise BadInput(f"HeadParams: expected at least one head, got a batch of {batch}.")
        values = {name: torch.zeros(batch, *size, device=device) for name, size in SIZES.items()}
        values["camera"][:, 0] = NEUTRAL_SCALE
        values["light"] += frontal_light().to(values["light"])
        return cls(**values)

    @classmethod
    def cat(cls, heads: Sequence["HeadParams"]) -> "HeadParams":
        """Concatenate batches in order, on the first one's device."""
        if not heads:
            raise BadInput("HeadParams.cat: expected at least one head, got none.")
        device = heads[0].device
        return cls(**{name: torch.cat([getattr(head, name).to(device) for head in heads]) for name in SIZES})

    @property
    def batch(self) -> int:
        """Number of heads."""
        return self.shape.shape[0]

    def __len__(self) -> int:
        return self.batch

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.shape.device

    def to(self, device: torch.device | str) -> "HeadParams":
        """Return the same heads on another device."""
        return self._each(lambda value: value.to(device))

    def replace(self, **changes: Tensor) -> "HeadParams":
        """Return the same heads with some fields changed.

        Raises:
            BadInput: A name is not a field of HeadParams, or a value is invalid.
        """
        unknown = set(changes) - set(SIZES)
        if unknown:
            raise BadInput(f"HeadParams has the fields {', '.join(SIZES)}; got {', '.join(sorted(unknown))}.")
        return replace(self, **changes)

    def expand(self, batch: int) -> "HeadParams":
        """Return exactly `batch` heads: cut, or repeated from the first, as ComfyUI does with latents."""
        if batch < 1:
            raise BadInput(f"HeadParams.expand: expected a batch of at least 1, got {batch}.")
        if batch == self.batch:
            return self
        return self[torch.arange(batch, device=self.device) % self.batch]

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "HeadParams":
        """Select heads by index, slice, list or index tensor; the batch dimension stays."""
        if isinstance(index, int):
            if not -self.batch <= index < self.batch:
                raise IndexError(f"head {index} of a batch of {self.batch}")
            index = [index]
        return self._each(lambda value: value[index])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "HeadParams":
        return HeadParams(**{field.name: change(getattr(self, field.name)) for field in fields(self)})
