"""Evaluating CapFace during sampling, with caches for each step and for each run."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

import comfy.model_management as mm
import torch
from torch import Tensor

from ...flame.render import HeadCondition
from ...models.diffusion import Projected
from ..capface_model import CapFaceModel
from ..identity import Identity
from ..memory import require_memory
from .coordinates import View, coordinate_image, render_view
from .keyframes import Keyframes
from .reuse import Kept, KeptResiduals, NoiseLevel

PIXELS_PER_LATENT = 8
"""Pixels of the hint per latent pixel, along each side."""

FRAMES_AT_ONCE = 8
"""Number of frames whose hints are encoded together. This limits memory: activations at full resolution are the largest."""

MAX_CACHED_VIEWS = 64
"""Number of views whose encoded hints are cached. A picture of 4096 pixels has fewer tiles."""

MAX_HINT_BYTES = 2**30
"""Maximum size of the cached hints. The latest one is kept whatever its size."""

MAX_CACHED_RESULTS = 6
"""Number of cached results of a step. Positive and negative prompt may request several areas in turn."""

MAX_PROJECTED = 8
"""Number of identities in a sequence up to which the keys and values of their tokens are kept over the run."""

Row = tuple[View, int]
"""The view of the frame that a latent shows, and the index of its frame in the sequence."""

Found = tuple[list[Tensor], int]
"""Known residuals of a latent: tensors, and its row in them."""


@dataclass(frozen=True, eq=False)
class Request:
    """Latents of one conditioning for which residuals are wanted."""

    x: Tensor
    """float32 `[n, 4, h, w]`, scaled for the denoiser."""
    timesteps: Tensor
    """float32 `[n]`."""
    rows: list[Row]
    """View and frame of each of the n latents."""
    levels: list[NoiseLevel]
    """Noise level of each of the n latents."""
    step: Hashable = None
    """Identifies the step, and the frames of the conditioning's latents. Exact results are kept while it stays the same."""
    run: object | None = None
    """Identifies the run."""
    call: object | None = None
    """Identifies the denoiser's call. In one call, equal rows mean equal latents. None if that is not certain."""

    def keys(self) -> list[tuple]:
        """Return what identifies each latent within a run."""
        size, seen = self.x.shape[-2:], Counter()
        keys = []
        for row in self.rows:
            keys.append((*size, *row, seen[row]))
            seen[row] += 1
        return keys

    def subset(self, indices: list[int]) -> "Request":
        """Return the request for some of its latents."""
        if len(indices) == len(self.rows):
            return self
        rows, levels = ([values[i] for i in indices] for values in (self.rows, self.levels))
        return replace(self, x=self.x[indices], timesteps=self.timesteps[indices], rows=rows, levels=levels)


@dataclass(frozen=True, eq=False)
class _Result:
    """An evaluated request."""

    request: Request
    residuals: list[Tensor]

    def answers(self, other: Request) -> bool:
        """Tell whether another request of the same step is for the same latents. They are compared if that is not certain."""
        mine, its = self.request.x, other.x
        if self.request.rows != other.rows or mine.shape != its.shape:
            return False
        return (other.call is not None and self.request.call is other.call) or torch.equal(mine, its)


class Evaluation:
    """Residuals of the current step, and data that stays the same over all steps: encoded hints and the identity's tokens.

    Copies of a control share it. Thus the positive and the negative prompt share it even if other controls come before them.
    """

    def __init__(
        self,
        model: CapFaceModel,
        condition: HeadCondition,
        identity: Identity | None,
        tau: float,
        likeness: float = 1.0,
        steps: int = 1,
        keyframes: Keyframes | None = None,
    ):
        """Make an evaluation.

        Args:
            model: The checkpoint.
            condition: The head.
            identity: The person. With None, only the head is controlled.
            tau: ID dropout tau in 0..1000 (equation 8).
            likeness: Factor gamma of the identity's effect: F_null + gamma · (F_id - F_null). 1 is the paper's.
            steps: Number of steps for which residuals are kept. With 1, every step is evaluated.
            keyframes: tau over steps or frames, which takes the place of tau. Their strength is the control's.
        """
        self.model = model
        self.condition = condition
        self.identity = identity
        self.tau = tau
        self.likeness = likeness
        self.keyframes = keyframes
        self.has_identity = identity is not None and bool(identity.present.any())
        self.kept: KeptResiduals[Found] = KeptResiduals(steps)
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
        self.projected = None  # (the weights' version, keys and values of the context)
        self.step = None  # of the results in `done`
        self.done = []  # results of the current step
        self.kept.clear()
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
            settings = (self.tau, self.likeness, self.kept.steps, self.keyframes)
            self._on_devices[device] = Evaluation(self.model.on(device), self.condition, self.identity, *settings)
        return self._on_devices[device]

    def keeps_identity(self, level: NoiseLevel, frame: int) -> bool:
        """Tell whether the identity acts at a noise level in a frame.

        eq. 8: F†_t = F_t for t <= tau, else pi(z_t, t, H, none). The released code also keeps the identity at t = tau.
        """
        tau = self.tau if self.keyframes is None else self.keyframes.tau(level.timestep, frame, self.tau)
        return self.has_identity and self.likeness != 0 and tau > 0 and level.timestep <= tau

    def residuals(self, x: Tensor, timesteps: Tensor, rows: list[Row]) -> list[Tensor]:
        """Return the residuals of one chunk of latents outside a run of the sampler, unmasked and unscaled.

        Args:
            x: Latents, float32 `[n, 4, h, w]`, scaled for the denoiser.
            timesteps: float32 `[n]`.
            rows: View and frame of each of the n latents.
        """
        levels = [NoiseLevel(t, t) for t in timesteps.tolist()]
        step = (tuple(levels), tuple(frame for _, frame in rows))
        return evaluate([(self, Request(x, timesteps, rows, levels, step))])[0]

    def find(self, request: Request) -> "list[Found | None]":
        """Return the known residuals of each latent."""
        self.kept.begin(request.run)
        found: list[Found | None] = [None] * len(request.rows)
        positions = self._positions(request)
        if positions is not None:
            for i, (key, position) in enumerate(zip(request.keys(), positions, strict=True)):
                found[i] = self.kept.find(key, position, self.keeps_identity(request.levels[i], request.rows[i][1]))
            if any(found):
                return found
        if self.step != request.step:
            self.step, self.done = request.step, []
        for result in self.done:
            if result.answers(request):
                return [(result.residuals, i) for i in range(len(request.rows))]
        return found

    def add(self, request: Request, residuals: list[Tensor]) -> None:
        """Cache a request's residuals: for the next steps, or else for the current one."""
        positions = self._positions(request)
        if positions is not None:
            identity = [
                self.keeps_identity(level, frame) for level, (_, frame) in zip(request.levels, request.rows, strict=True)
            ]
            rows = enumerate(zip(request.keys(), positions, identity, strict=True))
            own = [_own(r) for r in residuals]
            size = sum(r[0].numel() * r.element_size() for r in own)
            if self.kept.keep({key: Kept(position, state, (own, i), size) for i, (key, position, state) in rows}):
                return
        request = replace(request, x=request.x.clone())
        self.done = [*self.done[1 - MAX_CACHED_RESULTS :], _Result(request, residuals)]

    def _positions(self, request: Request) -> list[float] | None:
        """Return the positions in the schedule by which residuals are kept, or None if they are kept only for this step."""
        if self.kept.steps == 1 or request.call is None:
            return None
        positions = [level.position for level in request.levels if level.position is not None]
        return positions if len(positions) == len(request.levels) else None

    def mask(self, x: Tensor, rows: list[Row]) -> Tensor:
        """Return the predicted mask M for latents: float32 `[n or 1, 1, h, w]` in 0..1 on the CPU."""
        return self.encode_hint(x, rows)[1]

    def encode_hint(self, x: Tensor, rows: list[Row]) -> tuple[Tensor, Tensor]:
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
            while self.hints and (len(self.hints) >= MAX_CACHED_VIEWS or self._hint_bytes(known) > MAX_HINT_BYTES):
                del self.hints[next(iter(self.hints))]
        self.hints[key] = known
        return known

    def _hint_bytes(self, new: tuple[Tensor, Tensor]) -> int:
        """Return the size of the cached hints and a new one, in bytes."""
        return sum(part.numel() * part.element_size() for parts in (new, *self.hints.values()) for part in parts)

    @property
    def context_kind(self) -> tuple[int, bool]:
        """The number of the identity's tokens, and whether their keys and values are kept. Contexts of a kind can be joined."""
        assert self.identity is not None
        return self.identity.local.shape[1], len(self.identity.global_) <= MAX_PROJECTED

    def encode_identity(self, device: torch.device, frames: list[int]) -> Tensor | Projected:
        """Return the identity's tokens for frames, `[n or 1, N, C]`, or their keys and values, computed once per run."""
        assert self.identity is not None
        if self.context is None:
            to = {"device": device, "dtype": self.model.compute_dtype}
            tokens = self.model.tokens(self.identity.local.to(**to), self.identity.global_[:, None].to(**to))
            self.context = tokens * self.identity.token_strengths().to(**to)
        if not self.context_kind[1]:
            return select_frames(self.context, frames)
        version = getattr(self.model.patcher, "patches_uuid", None)
        if self.projected is None or self.projected[0] != version:
            self.projected = (version, self.model.network.project_identity(self.context))
        return self.projected[1].map(lambda tensor: select_frames(tensor, frames))


def select_frames(tensor: Tensor, frames: list[int]) -> Tensor:
    """Select a tensor's rows for frames. A single row serves all frames; fewer rows than frames repeat."""
    if len(tensor) == 1 or frames == list(range(len(tensor))):
        return tensor
    return tensor[[f % len(tensor) for f in frames]]


def _own(tensor: Tensor) -> Tensor:
    """Return the tensor, or a copy if it is a part of a larger one, which it would keep in memory."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size() else tensor.clone()


@dataclass(eq=False)
class _Job:
    """Rows of a request that the network computes with an identity, or without one."""

    evaluation: Evaluation
    request: Request
    with_identity: bool
    context: tuple[int, bool] | None
    """The kind of context that the batch has. Rows without identity that gamma needs beside others get zeros for theirs."""
    results: list[Tensor] = field(default_factory=list)

    @property
    def model(self) -> CapFaceModel:
        return self.evaluation.model

    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor | Projected | None]:
        """Return the network's arguments: latents, timesteps, guided features and context."""
        r = self.request
        context = self.evaluation.encode_identity(r.x.device, [f for _, f in r.rows]) if self.with_identity else None
        return r.x.to(self.model.compute_dtype), r.timesteps, self.evaluation.encode_hint(r.x, r.rows)[0], context


def evaluate(asked: Sequence[tuple[Evaluation, Request]]) -> list[list[Tensor]]:
    """Return the residuals of requests, unmasked and unscaled. Known ones are not computed again, and others together.

    Args:
        asked: Requests, each with the person's evaluation. Those of one network are computed in one batch if memory allows.

    Returns:
        The residuals of each request, tensors `[n, C, h, w]`. Callers must not write to them.
    """
    found = [evaluation.find(request) for evaluation, request in asked]
    plans = []
    for (evaluation, request), known in zip(asked, found, strict=True):
        missing = [i for i, rows in enumerate(known) if rows is None]
        plans.append((missing, _jobs(evaluation, request, missing)))
    _compute([job for _, jobs in plans for job, _ in jobs])
    answers = []
    for (evaluation, request), known, (missing, jobs) in zip(asked, found, plans, strict=True):
        if missing:
            residuals = _combine(jobs, missing, evaluation.likeness)
            evaluation.add(request.subset(missing), residuals)
            for row, i in enumerate(missing):
                known[i] = (residuals, row)
        answers.append(_assemble([rows for rows in known if rows is not None]))
    return answers


def _jobs(evaluation: Evaluation, request: Request, missing: list[int]) -> list[tuple[_Job, list[int]]]:
    """Return the evaluations that the missing rows of a request need, each with the indices of its rows."""
    acting = [i for i in missing if evaluation.keeps_identity(request.levels[i], request.rows[i][1])]
    both = evaluation.likeness != 1 and bool(acting)
    without = missing if both else [i for i in missing if i not in acting]
    kind = evaluation.context_kind if acting else None
    jobs = []
    if acting:
        jobs.append((_Job(evaluation, request.subset(acting), True, kind), acting))
    if without:
        jobs.append((_Job(evaluation, request.subset(without), False, kind if both else None), without))
    return jobs


def _combine(jobs: list[tuple[_Job, list[int]]], missing: list[int], likeness: float) -> list[Tensor]:
    """Return the residuals of the missing rows: F, or F_null + gamma · (F_id - F_null) where the identity acts."""
    if len(jobs) == 1:
        return jobs[0][0].results
    (first, acting), (second, without) = jobs
    if acting == without:
        return [torch.lerp(b, a, likeness) for a, b in zip(first.results, second.results, strict=True)]
    at = {i: row for row, i in enumerate(missing)}
    rows, others = [at[i] for i in acting], [at[i] for i in without]
    merged = []
    for a, b in zip(first.results, second.results, strict=True):
        out = a.new_empty(len(missing), *a.shape[1:])
        out[others] = b
        out[rows] = a if likeness == 1 else torch.lerp(out[rows], a, likeness)
        merged.append(out)
    return merged


def _assemble(rows: list[tuple[list[Tensor], int]]) -> list[Tensor]:
    """Join rows of residuals. If they are all rows of the same tensors, in order, these are returned."""
    first = rows[0][0]
    if [row for _, row in rows] == list(range(len(first[0]))) and all(residuals is first for residuals, _ in rows):
        return first
    return [torch.cat([residuals[level][row : row + 1] for residuals, row in rows]) for level in range(len(first))]


def _compute(jobs: list[_Job]) -> None:
    """Fill in the results of jobs. Equal jobs are computed once, and those of one network in one batch if memory allows."""
    unique: dict[tuple, _Job] = {}
    same = {}
    for job in jobs:
        r = job.request
        person = job.evaluation if job.with_identity else job.evaluation.condition
        key = (id(job.model), id(person), job.with_identity, id(r.call or r.x), r.x.shape, tuple(r.rows))
        known = same[job] = unique.setdefault(key, job)
        known.context = known.context or job.context
    groups: dict[tuple, list[_Job]] = {}
    for job in unique.values():
        groups.setdefault((id(job.model), job.request.x.shape[1:], job.context), []).append(job)
    for group in groups.values():
        for batch in [group] if _fits(group) else [[job] for job in group]:
            try:
                _compute_batch(batch)
            except mm.InterruptProcessingException:  # an OOM_EXCEPTION in the host's own fallback for an old torch
                raise
            except mm.OOM_EXCEPTION:  # other programs use the device, too
                if len(batch) == 1:
                    raise
                mm.soft_empty_cache()
                for job in batch:
                    _compute_batch([job])
    for job, known in same.items():
        job.results = known.results


def _fits(group: list[_Job]) -> bool:
    """Tell whether the device has memory for a group in one batch. A single job is computed in any case."""
    if len(group) == 1:
        return True
    x = group[0].request.x
    rows = sum(len(job.request.rows) for job in group)
    needed = encoder_memory(rows * x.shape[-2] * x.shape[-1], mm.dtype_size(group[0].model.compute_dtype))
    return needed < mm.get_free_memory(x.device)


def encoder_memory(latent_pixels: int, size: int) -> float:
    """Estimate the memory of the encoder's activations in bytes, with ComfyUI's own factor for a denoiser of this kind."""
    return latent_pixels * size * 0.01 * 1024**2


def _compute_batch(batch: list[_Job]) -> None:
    mm.throw_exception_if_processing_interrupted()
    network = batch[0].model.network
    inputs = [job.inputs() for job in batch]
    if len(batch) == 1:
        batch[0].results = network(*inputs[0])
        return
    counts = [len(x) for x, *_ in inputs]
    guided = [g.expand(n, -1, -1, -1) for (_, _, g, _), n in zip(inputs, counts, strict=True)]
    context = _join_contexts([context for *_, context in inputs], counts)
    results = network(*(torch.cat(parts) for parts in ([x for x, *_ in inputs], [t for _, t, *_ in inputs], guided)), context)
    split = [level.split(counts) for level in results]
    for i, job in enumerate(batch):
        job.results = [parts[i] for parts in split]


def _join_contexts(contexts: Sequence[Tensor | Projected | None], counts: list[int]) -> Tensor | Projected | None:
    """Join the contexts of a batch's jobs. Where there is none, zeros take its place: the dropped identity."""
    given = [context for context in contexts if context is not None]
    if not given:
        return None
    zeros = _map(given[0], torch.zeros_like)
    filled = [
        _map(zeros if context is None else context, lambda t, n=n: t[:1].expand(n, -1, -1) if len(t) != n else t)
        for context, n in zip(contexts, counts, strict=True)
    ]
    projected = [context for context in filled if isinstance(context, Projected)]
    return Projected.cat(projected) if projected else torch.cat([c for c in filled if isinstance(c, Tensor)])


def _map(context: Tensor | Projected, change: Callable[[Tensor], Tensor]) -> Tensor | Projected:
    return context.map(change) if isinstance(context, Projected) else change(context)
