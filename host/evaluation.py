"""Evaluating CapFace during sampling: what a step computes once, and what a run computes once."""

import comfy.model_management as mm
import torch
from torch import Tensor

from ..flame.condition import HeadCondition, HintImages
from .identity import Identity
from .model import CapFaceModel

LATENT_SCALE = 8
"""Pixels of the hint for one of the latent, along each side."""

FRAMES_AT_ONCE = 8
"""Frames of a sequence whose hints are encoded together: at full resolution, where activations are largest."""


class Evaluation:
    """One step's residuals and what does not change over the steps: the encoded hint and the identity's tokens.

    Copies of one control share it, so that the positive and the negative prompt do even where other controls come before them.
    """

    def __init__(self, model: CapFaceModel, condition: HeadCondition | HintImages, identity: Identity | None, tau: float):
        self.model = model
        self.condition = condition
        self.identity = identity
        self.tau = tau
        self.clear()

    def clear(self):
        """Drop all tensors."""
        self.hints = {}  # (h, w): (guided, mask)
        self.context = None
        self.step = None  # (timesteps, frames) that `done` belongs to
        self.done = []  # [(x, residuals)]

    def residuals(self, x: Tensor, timesteps: Tensor, frames: list[int]) -> list[Tensor]:
        """Return the residuals of one chunk of latents, unmasked and unscaled, computed once per content.

        Args:
            x: float32 `[n, 4, h, w]`, scaled as the denoiser's input.
            timesteps: float32 `[n]`.
            frames: The n frames of the sequence that the latents stand for.
        """
        if self.step is None or self.step[1] != frames or not torch.equal(self.step[0], timesteps):
            self.step, self.done = (timesteps.clone(), frames), []
        for known, residuals in self.done:
            if known.shape == x.shape and torch.equal(known, x):
                return residuals
        residuals = self._evaluate(x, timesteps, frames)
        self.done.append((x.clone(), residuals))
        return residuals

    def _evaluate(self, x: Tensor, timesteps: Tensor, frames: list[int]) -> list[Tensor]:
        mm.throw_exception_if_processing_interrupted()
        dtype = self.model.compute_dtype
        guided = rows(self._encode_hint(x)[0], frames)
        context = self._encode_identity(x.device)
        # eq. 8: F†_t = F_t where t ≤ τ, else π(z_t, t, H, ∅); the released code keeps t = τ
        keep = (timesteps <= self.tau) & (self.tau > 0 and context is not None)
        if keep.all() or not keep.any():
            context = rows(context, frames) if keep.any() else None
            return self.model.network(x.to(dtype), timesteps, guided, context)
        return self._evaluate_mixed(x.to(dtype), timesteps, guided, rows(context, frames), keep)

    def _evaluate_mixed(self, x: Tensor, timesteps: Tensor, guided: Tensor, context: Tensor, keep: Tensor) -> list[Tensor]:
        """Evaluate the rows that keep the identity apart from those that have dropped it."""
        guided, context = guided.expand(len(x), -1, -1, -1), context.expand(len(x), -1, -1)
        with_identity = self.model.network(x[keep], timesteps[keep], guided[keep], context[keep])
        without = self.model.network(x[~keep], timesteps[~keep], guided[~keep], None)
        merged = []
        for a, b in zip(with_identity, without, strict=True):
            both = a.new_empty(len(x), *a.shape[1:])
            both[keep], both[~keep] = a, b
            merged.append(both)
        return merged

    def mask(self, x: Tensor) -> Tensor:
        """Return the predicted mask M for latents of a size: float32 `[B or 1, 1, h, w]` in 0..1 on the CPU."""
        return self._encode_hint(x)[1]

    def _encode_hint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = tuple(x.shape[-2:])  # conditionings with areas bring sizes of their own
        if size not in self.hints:
            hint = self.condition.hint(size[0] * LATENT_SCALE, size[1] * LATENT_SCALE)
            parts = [
                self.model.network.encode_hint(frames.to(x.device, self.model.compute_dtype))
                for frames in hint.split(FRAMES_AT_ONCE)
            ]
            guided, mask = (torch.cat(part) for part in zip(*parts, strict=True))
            self.hints[size] = (guided, mask.float().cpu())
        return self.hints[size]

    def _encode_identity(self, device: torch.device) -> Tensor | None:
        if self.context is None and self.identity is not None and self.identity.present.any():
            to = {"device": device, "dtype": self.model.compute_dtype}
            tokens = self.model.tokens(self.identity.local.to(**to), self.identity.global_[:, None].to(**to))
            self.context = tokens * self.identity.token_strengths().to(**to)
        return self.context


def rows(tensor: Tensor, frames: list[int]) -> Tensor:
    """Pick a tensor's rows for these frames; one row serves them all, fewer rows than frames repeat."""
    return tensor if tensor.shape[0] == 1 else tensor[[f % tensor.shape[0] for f in frames]]
