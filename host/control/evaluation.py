"""Evaluating CapFace during sampling, with caches for each step and for each run."""

import comfy.model_management as mm
import torch
from torch import Tensor

from ...flame.render import HeadCondition
from ..capface_model import CapFaceModel
from ..identity import Identity
from ..memory import require_memory
from .coordinates import View, coordinate_image, render_view

PIXELS_PER_LATENT = 8
"""Pixels of the hint per latent pixel, along each side."""

FRAMES_AT_ONCE = 8
"""Number of frames whose hints are encoded together. This limits memory: activations at full resolution are the largest."""

MAX_CACHED_VIEWS = 64
"""Number of views whose encoded hints are cached. A picture of 4096 pixels has fewer tiles."""

MAX_CACHED_RESULTS = 6
"""Number of cached results of a step. Positive and negative prompt may request several areas in turn."""

Row = tuple[View, int]
"""The view of the frame that a latent shows, and the index of its frame in the sequence."""


class Evaluation:
    """Residuals of the current step, and data that stays the same over all steps: encoded hints and the identity's tokens.

    Copies of a control share it. Thus the positive and the negative prompt share it even if other controls come before them.
    """

    def __init__(self, model: CapFaceModel, condition: HeadCondition, identity: Identity | None, tau: float):
        self.model = model
        self.condition = condition
        self.identity = identity
        self.tau = tau
        self._on_devices: dict[torch.device, Evaluation] = {}
        self.clear()

    @property
    def frames(self) -> int:
        """Number of frames in the sequence of heads and identities."""
        return max(self.condition.batch, 0 if self.identity is None else len(self.identity.global_))

    def clear(self) -> None:
        """Drop all cached tensors."""
        self.hints = {}  # (h, w, view): (guided, mask), the latest last
        self.context = None
        self.step = None  # (timesteps, frames) of the results in `done`
        self.done = []  # [(x, rows, residuals)]
        self.images = {}  # size of the frame: coordinate image
        self.read = {}  # (image's id, height, width): (image, its views), the latest last

    def coordinates(self, size: tuple[int, int] | None) -> Tensor:
        """Return the coordinate image for a frame of size (H, W), or of unknown size."""
        if size not in self.images:
            self.images[size] = coordinate_image(self.frames, size)
        return self.images[size]

    def remember(self, read: tuple, key: tuple) -> None:
        """Cache the views that were recovered from an image."""
        if len(self.read) >= MAX_CACHED_VIEWS:
            del self.read[next(iter(self.read))]
        self.read[key] = read

    def on(self, device: torch.device) -> "Evaluation":
        """Return the same evaluation with its own network on another device, for ComfyUI's multi-GPU sampling."""
        if device not in self._on_devices:
            self._on_devices[device] = Evaluation(self.model.on(device), self.condition, self.identity, self.tau)
        return self._on_devices[device]

    def residuals(self, x: Tensor, timesteps: Tensor, rows: list[Row]) -> list[Tensor]:
        """Return the residuals of one chunk of latents, unmasked and unscaled. Equal latents are computed once per step.

        Args:
            x: Latents, float32 `[n, 4, h, w]`, scaled for the denoiser.
            timesteps: float32 `[n]`.
            rows: View and frame of each of the n latents.
        """
        frames = [frame for _, frame in rows]
        if self.step is None or self.step[1] != frames or not torch.equal(self.step[0], timesteps):
            self.step, self.done = (timesteps.clone(), frames), []
        for known, shown, residuals in self.done:
            if shown == rows and known.shape == x.shape and torch.equal(known, x):
                return residuals
        residuals = self._evaluate(x, timesteps, rows)
        self.done = [*self.done[1 - MAX_CACHED_RESULTS :], (x.clone(), rows, residuals)]
        return residuals

    def _evaluate(self, x: Tensor, timesteps: Tensor, rows: list[Row]) -> list[Tensor]:
        mm.throw_exception_if_processing_interrupted()
        dtype = self.model.compute_dtype
        guided = self._encode_hint(x, rows)[0]
        context = self._encode_identity(x.device)
        frames = [frame for _, frame in rows]
        # eq. 8: F†_t = F_t for t <= tau, else pi(z_t, t, H, none). The released code also keeps the identity at t = tau.
        keep = (timesteps <= self.tau) & (self.tau > 0 and context is not None)
        if context is None or keep.all() or not keep.any():
            context = select_frames(context, frames) if context is not None and keep.any() else None
            return self.model.network(x.to(dtype), timesteps, guided, context)
        return self._evaluate_mixed(x.to(dtype), timesteps, guided, select_frames(context, frames), keep)

    def _evaluate_mixed(self, x: Tensor, timesteps: Tensor, guided: Tensor, context: Tensor, keep: Tensor) -> list[Tensor]:
        """Evaluate separately the rows that keep the identity and those that drop it."""
        guided, context = guided.expand(len(x), -1, -1, -1), context.expand(len(x), -1, -1)
        with_identity = self.model.network(x[keep], timesteps[keep], guided[keep], context[keep])
        without = self.model.network(x[~keep], timesteps[~keep], guided[~keep], None)
        merged = []
        for a, b in zip(with_identity, without, strict=True):
            both = a.new_empty(len(x), *a.shape[1:])
            both[keep], both[~keep] = a, b
            merged.append(both)
        return merged

    def mask(self, x: Tensor, rows: list[Row]) -> Tensor:
        """Return the predicted mask M for latents: float32 `[n or 1, 1, h, w]` in 0..1 on the CPU."""
        return self._encode_hint(x, rows)[1]

    def _encode_hint(self, x: Tensor, rows: list[Row]) -> tuple[Tensor, Tensor]:
        """Encode the head for latents: guided features `[n or 1, C, h, w]` and the mask `[n or 1, 1, h, w]`."""
        encoded = {view: self._encode_part(x, view) for view in dict.fromkeys(view for view, _ in rows)}
        if len(encoded) == 1:
            (parts,) = encoded.values()
            guided, mask = (select_frames(part, [frame for _, frame in rows]) for part in parts)
            return guided, mask
        guided, mask = (torch.cat([select_frames(encoded[view][i], [frame]) for view, frame in rows]) for i in range(2))
        return guided, mask

    def _encode_part(self, x: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """Encode a view at the size of the latents, for all frames of the sequence."""
        height, width = x.shape[-2:]
        key = (height, width, view)
        known = self.hints.pop(key, None)
        if known is None:
            require_memory(self.condition.batch, height * PIXELS_PER_LATENT, width * PIXELS_PER_LATENT)
            hint = render_view(self.condition, view, height * PIXELS_PER_LATENT, width * PIXELS_PER_LATENT)
            parts = [
                self.model.network.encode_hint(frames.to(x.device, self.model.compute_dtype))
                for frames in hint.split(FRAMES_AT_ONCE)
            ]
            guided, mask = (torch.cat(part) for part in zip(*parts, strict=True))
            known = (guided, mask.float().cpu())
            if len(self.hints) >= MAX_CACHED_VIEWS:
                del self.hints[next(iter(self.hints))]
        self.hints[key] = known
        return known

    def _encode_identity(self, device: torch.device) -> Tensor | None:
        if self.context is None and self.identity is not None and self.identity.present.any():
            to = {"device": device, "dtype": self.model.compute_dtype}
            tokens = self.model.tokens(self.identity.local.to(**to), self.identity.global_[:, None].to(**to))
            self.context = tokens * self.identity.token_strengths().to(**to)
        return self.context


def select_frames(tensor: Tensor, frames: list[int]) -> Tensor:
    """Select a tensor's rows for frames. A single row serves all frames; fewer rows than frames repeat."""
    return tensor if tensor.shape[0] == 1 else tensor[[f % tensor.shape[0] for f in frames]]
