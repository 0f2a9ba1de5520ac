"""CapFace as a control of ComfyUI's sampler.

ComfyUI asks a control for residuals once per batch of conditionings, or once per conditioning if it does not batch them. The
residuals of CapFace depend on the latents, the timestep, the head and the identity, but not on the text. Equal latents are
therefore evaluated once, however ComfyUI groups them.

A request covers a part of the frame and some frames of a sequence. `sampling_context.py` collects what the sampler knows about
them, and `coordinates.py` recovers them from control images that other packs have cropped.
"""

from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import comfy.controlnet
import comfy.model_management as mm
import torch
from comfy.utils import common_upscale
from torch import Tensor

from ...errors import BadInput
from ...flame.model import WHOLE, Window
from ...flame.render import HeadCondition
from ..capface_model import CapFaceModel
from ..identity import Identity
from .coordinates import View, read_coordinates
from .evaluation import MAX_CACHED_VIEWS, PIXELS_PER_LATENT, Evaluation, Request, Row, encoder_memory, evaluate
from .keyframes import Keyframes
from .region import Region
from .reuse import MOST_KEPT
from .sampling_context import KEY, ModelSampling, SamplingContext, canvas_size_of_caller, noise_levels, sampling_hooks

_NOTHING = torch.empty(0)


@dataclass(frozen=True, eq=False)
class _Part:
    """One chunk of a request."""

    request: Request
    """The latents at which the person acts."""
    acting: list[int]
    """Their indices in the chunk."""
    count: int
    """Number of the chunk's latents."""
    factors: dict[torch.Size, Tensor] | None
    """The region's factors `[n or 1, 1, h, w]` for the chunk's latents, by size. None: the person acts everywhere."""
    scale: Tensor | None = None
    """The keyframes' factors of the strength `[count, 1, 1, 1]`. None: 1 for all."""


@dataclass(frozen=True, eq=False)
class _Asked:
    """A request of the sampler to one control."""

    latents: Tensor
    """The sampler's own tensor."""
    parts: list[_Part]
    order: list[int] | None
    """The order in which the parts hold the latents, if it is not the sampler's."""


class CapFaceControl(comfy.controlnet.ControlNet):
    """A person, a head and a strength, as a control in ComfyUI's chain.

    It subclasses ComfyUI's ControlNet because some packs tile only that class. It uses only the chain of it.

    Attributes:
        strength: Scale of all residuals. 0 disables the control.
        timestep_percent_range: Start and end of its effect, as fractions of the schedule.
        region: Where it acts. None means everywhere.
        cond_hint_original: A coordinate image (`coordinates.py`) for packs that crop it, or the image that a pack has set.
        cond_hint: The image that a pack has set for the next latents.
        latent: Size (h, w) of the sampled latents. None before a run.
        sub_idxs: Required and written by AnimateDiff-Evolved. Not used, since `ad_params` has the same indices.
    """

    made_by = KEY
    upscale_algorithm = "nearest-exact"

    def __init__(
        self,
        model: CapFaceModel,
        condition: HeadCondition,
        identity: Identity | None,
        *,
        tau: float = 1000.0,
        strength: float = 1.0,
        timestep_percent_range: tuple[float, float] = (0.0, 1.0),
        region: Region | None = Region(),  # noqa: B008  frozen
        likeness: float = 1.0,
        every: int = 1,
        keyframes: Keyframes | None = None,
    ):
        """Make a control.

        Args:
            model: The checkpoint.
            condition: The head, for one frame or for a sequence.
            identity: The person, or None to control only the head.
            tau: ID dropout tau in 0..1000 (equation 8): the identity acts at timesteps up to tau. 1000 means always, 0 never.
            strength: Scale of the residuals.
            timestep_percent_range: (start, end) in 0..1.
            region: Where it acts: by default in the head's own mask. None means everywhere.
            likeness: Factor gamma of the identity's effect.
            every: Number of steps for which residuals are kept.
            keyframes: Factors of the strength, and tau, over steps and frames.
        """
        self._replaced: Tensor | None = None  # an image that another pack has set
        super().__init__(manual_cast_dtype=torch.float32)
        # Packs cast the image to this type. Half precision would round the coordinates.
        self.control_model = SimpleNamespace(dtype=torch.float32)
        self.extra_hooks = sampling_hooks()
        self.sub_idxs = None
        self.evaluation = Evaluation(model, condition, identity, tau, likeness, every, keyframes)
        self.strength = strength
        self.timestep_percent_range = timestep_percent_range
        self.region = region
        self.factors: dict[tuple, tuple[dict[torch.Size, Tensor], list[int]]] = {}  # by size and rows; see _factors
        self.asked: _Asked | None = None  # the current request, if the control after this one has already prepared it
        self.model_sampling: ModelSampling | None = None
        self.evaluated = False  # whether this run has asked for residuals
        self.latent: tuple[int, int] | None = None
        self.frame_size: tuple[int, int] | None = None  # (H, W) of the picture for which the coordinate image was made

    @property
    def frames(self) -> int:
        """Number of frames in the sequence."""
        return self.evaluation.frames

    @property
    def device(self) -> torch.device:
        """The device to which packs move a cropped control image."""
        return mm.get_torch_device()

    @property
    def cond_hint_original(self) -> Tensor:
        """A coordinate image, made on first access, or the image that a pack has set."""
        if self._replaced is not None:
            return self._replaced
        if self.latent:
            self.frame_size = (PIXELS_PER_LATENT * self.latent[0], PIXELS_PER_LATENT * self.latent[1])
        else:
            self.frame_size = canvas_size_of_caller()
        return self.evaluation.coordinates(self.frame_size)

    @cond_hint_original.setter
    def cond_hint_original(self, image: Tensor | None) -> None:
        self._replaced = image

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond, batched_number: int, transformer_options: dict[str, Any]
    ) -> dict[str, list[Tensor]] | None:
        """Return the residuals for `batched_number` chunks of latents, merged with those of the controls before this one.

        Args:
            x_noisy: Latents `[batched_number · n, 4, h, w]`, not scaled.
            t: Sigmas `[batched_number · n]`.
            cond: ComfyUI's conditioning. Not used.
            batched_number: Number of chunks (conditionings) in the batch.
            transformer_options: ComfyUI's options, with the `SamplingContext` of this request.
        """
        self.evaluated = True
        arguments = (x_noisy, t, batched_number, transformer_options)
        asked, self.asked = self.asked, None
        if asked is None or asked.latents is not x_noisy:
            asked = self._ask(*arguments)
            self._evaluate_together(asked, arguments)
        previous = None
        if self.previous_controlnet is not None:
            previous = self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
        if asked is None:
            return previous
        chunks = [self._masked(part) for part in asked.parts]
        # ComfyUI scales residuals in place, and the denoiser empties their lists. The cached tensors must not be returned.
        merged = [torch.cat(parts) for parts in zip(*_with_zeros(chunks, asked.parts), strict=True)]
        if asked.order is not None:
            back = torch.tensor(asked.order).argsort().tolist()
            merged = [r[back] for r in merged]
        return self.control_merge({"output": merged[:-1], "middle": merged[-1:]}, previous, None)

    def _ask(self, x_noisy: Tensor, t: Tensor, batched_number: int, transformer_options: dict[str, Any]) -> _Asked | None:
        """Prepare a request of the sampler. None if the person does not act at this noise level."""
        sampling = transformer_options.get(KEY) or SamplingContext()
        if self.strength == 0:
            return None
        assert self.model_sampling is not None, "ComfyUI calls pre_run before it samples"
        level = sampling.level
        levels = noise_levels(t, self.model_sampling, sampling.schedule) if level is None else [level] * len(t)
        if not self._acts_at(levels[0].sigma):
            return None
        rows, certain = self._rows(x_noisy, batched_number, transformer_options)
        if getattr(self, "get_control_orig", self.get_control) != self.get_control:
            # Tiled Diffusion has wrapped this method. If it finds an image here, it reuses the tiles that it cut in an earlier
            # run, possibly for another control.
            self.cond_hint = None
        x = self.model_sampling.calculate_input(t, x_noisy).float()
        timesteps = self.model_sampling.timestep(t).float()
        order = _by_chunk(rows, batched_number)
        if order is not None:
            x, timesteps, rows, levels = x[order], timesteps[order], [rows[i] for i in order], [levels[i] for i in order]
        n = len(x) // batched_number
        parts = []
        call = sampling.call if certain else None
        for start in range(0, len(x), n):
            p = slice(start, start + n)
            step = (tuple(level.sigma for level in levels[p]), tuple(frame for _, frame in rows[p]))
            request = Request(x[p], timesteps[p], rows[p], levels[p], step, sampling.run, call)
            factors, acting = (None, list(range(n))) if self.region is None else self._factors(self.region, x[p], rows[p])
            scale = self._scale(request)
            if scale is not None:
                acting = [i for i in acting if scale[i] != 0]
            if acting:
                request = request.subset(acting)
            parts.append(_Part(request, acting, n, factors, scale))
        return _Asked(x_noisy, parts, order)

    def _evaluate_together(self, asked: _Asked | None, arguments: tuple) -> None:
        """Evaluate this person and those before it in one batch, if they have the same network."""
        people = [] if asked is None else [(self, asked)]
        link = self.previous_controlnet
        while link is not None:
            if isinstance(link, CapFaceControl):
                if "get_control" in vars(link) or "get_control" in vars(self):
                    return  # another pack has wrapped it, and sets its image only when it is called
                made = link._ask(*arguments)
                if made is not None:
                    link.asked = made
                    people.insert(0, (link, made))
            link = link.previous_controlnet
        if len(people) > 1:
            for i in range(len(people[0][1].parts)):
                evaluate([(c.evaluation, a.parts[i].request) for c, a in people if a.parts[i].acting])

    def _masked(self, part: _Part) -> list[Tensor] | None:
        """Return a chunk's residuals within the region. None if the person does not act on any of its latents."""
        if not part.acting:
            return None
        (residuals,) = evaluate([(self.evaluation, part.request)])
        if part.factors is None and part.scale is None:
            return residuals
        masked = []
        for r in residuals:
            factor = r.new_ones(1, 1, 1, 1) if part.factors is None else part.factors[r.shape[-2:]].to(r.dtype)
            if part.scale is not None:
                factor = factor * part.scale.to(factor)
            if len(part.acting) == part.count:
                masked.append(r * factor)
            else:
                whole = r.new_zeros(part.count, *r.shape[1:])
                whole[part.acting] = r * (factor if len(factor) == 1 else factor[part.acting])
                masked.append(whole)
        return masked

    def _rows(self, x: Tensor, batched_number: int, transformer_options: dict[str, Any]) -> tuple[list[Row], bool]:
        """Return the view and the frame number of each latent, and whether equal ones mean equal latents in this evaluation."""
        sampling = transformer_options.get(KEY) or SamplingContext()
        n, size = len(x) // batched_number, (x.shape[-2], x.shape[-1])
        window = sampling.window_frames(transformer_options, n)
        numbers = list(range(n)) if window is None else window
        if sampling.frames is not None:
            numbers = [sampling.frames[i] if i < len(sampling.frames) else i for i in numbers]
        uuids = transformer_options.get("uuids") or ()
        areas = [sampling.area(uuid) for uuid in uuids] if len(uuids) == batched_number else [None] * batched_number

        whole = sampling.latent or size
        certain = True
        canvas: list[tuple[View, int | None]] = [(WHOLE, None)]
        if self._replaced is not None:
            canvas = self._read(self._replaced, whole, sampling)
        parts = None if self.cond_hint is None else self._read(self.cond_hint, size, sampling)
        rows = []
        for i in range(len(x)):
            chunk, image = divmod(i, n)
            base, number = _row_of(canvas, i, numbers[image], n, len(x))
            view = base
            if parts is not None:
                view, number = _row_of(parts, i, numbers[image], n, len(x))
            area = areas[chunk]
            if area is not None:
                view = _in_area(view if parts is not None else WHOLE, base, area, whole, size)
                certain &= parts is not None or sampling.areas[uuids[chunk]][:2] == size
            elif parts is None and sampling.latent not in (None, size):
                self._warn_unknown_part(sampling, size)
            certain &= view != WHOLE or size == whole
            rows.append((view, numbers[image] if number is None or window is not None else number))
        return rows, certain and (window is not None or parts is not None or n == sampling.count)

    def _read(self, image: Tensor, size: tuple[int, int], sampling: SamplingContext) -> list[tuple[View, int | None]]:
        """Recover the views from an image that a pack has set, for latents of a size."""
        height, width = (PIXELS_PER_LATENT * side for side in size)
        known = self.evaluation.read.get((id(image), height, width))
        if known is None or known[0] is not image:
            fitting = image
            if tuple(image.shape[-2:]) != (height, width):
                fitting = common_upscale(image, width, height, self.upscale_algorithm, "center")
            known = (image, read_coordinates(fitting, self.frames, self.frame_size))
            self.evaluation.remember(known, (id(image), height, width))
        if None in known[1]:
            sampling.warn(
                "Another pack has replaced CapFace's control image with an unrelated one. The head is rendered as in the whole "
                "picture."
            )
        several = self.frames > 1
        return [(WHOLE, None) if row is None else (row[0], row[1] if several else None) for row in known[1]]

    def _warn_unknown_part(self, sampling: SamplingContext, size: tuple[int, int]) -> None:
        """Warn about latents that differ in size from the picture's, and whose position is unknown."""
        whole, part = (f"{PIXELS_PER_LATENT * w} x {PIXELS_PER_LATENT * h}" for h, w in (sampling.latent or size, size))
        sampling.warn(
            f"{sampling.evaluator or 'A pack'} samples {part} pixels of a picture of {whole} without giving their position. "
            "The head is rendered as in the whole picture. If these are tiles, use a tiled sampler that crops control images, "
            "such as Tiled Diffusion or Ultimate SD Upscale, or use Crop Head with a region for each tile."
        )

    def _factors(self, region: Region, x: Tensor, rows: list[Row]) -> tuple[dict[torch.Size, Tensor], list[int]]:
        """Return the region's factors, and the indices of the latents for which they are not all 0.

        They are computed again only for other sizes and rows.
        """
        key = (x.shape[-2:], tuple(rows))
        known = self.factors.get(key)
        if known is None:
            sizes = [torch.Size(size) for size in self.evaluation.model.network.sizes(*x.shape[-2:])]
            factors = region.factors(self.evaluation, x, rows, sizes)
            acting = torch.stack([f.flatten(1).amax(1).expand(len(rows)) > 0 for f in factors.values()]).any(0).tolist()
            if len(self.factors) >= MAX_CACHED_VIEWS:
                del self.factors[next(iter(self.factors))]
            on_device = {size: factor.to(x.device) for size, factor in factors.items()}
            known = self.factors[key] = (on_device, [i for i, acts in enumerate(acting) if acts])
        return known

    def _scale(self, request: Request) -> Tensor | None:
        """Return the keyframes' factors of the strength for a request's latents, `[n, 1, 1, 1]`. None if all are 1."""
        keyframes = self.evaluation.keyframes
        if keyframes is None:
            return None
        rows = zip(request.levels, request.rows, strict=True)
        scale = torch.tensor([keyframes.strength(level.timestep, frame) for level, (_, frame) in rows])
        return None if bool((scale == 1).all()) else scale[:, None, None, None]

    def _acts_at(self, sigma: float) -> bool:
        return self.timestep_range is None or self.timestep_range[1] <= sigma <= self.timestep_range[0]

    def copy(self) -> "CapFaceControl":
        """Return a control with the same settings that shares the network and its evaluations."""
        return self._copy_with(self.evaluation, self.region)

    def _copy_with(self, evaluation: Evaluation, region: Region | None) -> "CapFaceControl":
        e = evaluation
        c = CapFaceControl(
            e.model,
            e.condition,
            e.identity,
            tau=e.tau,
            region=region,
            likeness=e.likeness,
            every=e.kept.steps,
            keyframes=e.keyframes,
        )
        c.evaluation = e
        self.copy_to(c)
        return c

    def copy_to(self, c):
        """Copy ComfyUI's own settings, and the image that a pack has set, if any."""
        replaced, self._replaced = self._replaced, _NOTHING  # otherwise copying would make a coordinate image
        try:
            super().copy_to(c)
        finally:
            self._replaced = c._replaced = replaced
        c.frame_size = self.frame_size

    def deepclone_multigpu(self, load_device, autoregister=False):
        """Return a copy with its own network on another device, for ComfyUI's multi-GPU sampling.

        Args:
            load_device: The device.
            autoregister: Whether to add the copy to `multigpu_clones`, where ComfyUI finds it.
        """
        region = self.region if self.region is None else self.region.on(load_device)
        c = self._copy_with(self.evaluation.on(load_device), region)
        if autoregister:
            self.multigpu_clones[load_device] = c
        return c

    def get_extra_hooks(self):
        """Return the hooks of the controls before this one.

        This control's own hooks apply to the whole run. As hooks of one conditioning, they would keep ComfyUI from batching it.
        """
        return [] if self.previous_controlnet is None else self.previous_controlnet.get_extra_hooks()

    def get_models(self):
        """Return the models that ComfyUI must load before sampling."""
        return [*comfy.controlnet.ControlBase.get_models(self), self.evaluation.model.patcher]

    def pre_run(self, model, percent_to_timestep_function):
        """Prepare for sampling with a base model.

        Raises:
            BadInput: The base model is not of the Stable Diffusion 1.x family, or does not have the size for this CapFace.
        """
        _check_base(model, self.evaluation.model)
        super().pre_run(model, percent_to_timestep_function)
        self.model_sampling = model.model_sampling
        self.release()  # an interrupted run was not cleaned up

    def cleanup(self):
        """Drop everything that belongs to one run."""
        # Tiled Diffusion, if installed, also calls this before each run. An image that was set for that run is kept.
        waiting = None if self.evaluated else self.cond_hint
        super().cleanup()
        self.cond_hint, self.evaluated = waiting, False
        self.model_sampling = None
        self.sub_idxs = None
        self.release()

    def release(self) -> None:
        """Drop the tensors of a run, also of one that failed."""
        self.factors = {}
        self.asked = None
        self.latent = None
        self.evaluation.clear()

    def inference_memory_requirements(self, dtype):
        """Estimate the memory of an evaluation in bytes, for frames of 768 × 768. ComfyUI asks before it gives a size."""
        e = self.evaluation
        frames = max(e.condition.batch, 1)
        pixels = frames * 768 * 768
        size = mm.dtype_size(e.model.compute_dtype)
        evaluations = 2 if e.likeness != 1 and e.has_identity else 1
        encoder = evaluations * encoder_memory(pixels // PIXELS_PER_LATENT**2, size)
        hint_encoder = pixels * size * (9 + 3 * 16)
        kept = min(frames * e.model.network.residual_elements(96, 96) * size, MOST_KEPT) if e.kept.steps > 1 else 0
        return max(encoder, hint_encoder) + kept + super().inference_memory_requirements(dtype)


def _with_zeros(chunks: list[list[Tensor] | None], parts: list[_Part]) -> list[list[Tensor]]:
    """Put zeros in the place of chunks on which the person does not act. If there are no others, residuals are left out."""
    like = next((chunk for chunk in chunks if chunk is not None), [])
    return [
        [r.new_zeros(part.count, *r.shape[1:]) for r in like] if chunk is None else chunk
        for chunk, part in zip(chunks, parts, strict=True)
    ]


def _row_of(read: list[tuple[View, int | None]], i: int, number: int, n: int, total: int) -> tuple[View, int | None]:
    """Return the view of latent i. There is one view per latent, per latent of a chunk or per frame, or one for all latents."""
    if len(read) == total:
        return read[i]
    return read[i % n if len(read) == n else number % len(read)]


def _in_area(view: View, base: View, area: Window, canvas: tuple[int, int], size: tuple[int, int]) -> View:
    """Convert a view of a conditioning's area to a view of the frame.

    Args:
        view: A view of the area. Packs fit the whole control image to the area and crop it to its shape, as ComfyUI does.
        base: The view of the run's latents.
        area: The area within those latents.
        canvas: Size (h, w) of those latents.
        size: Size (h, w) of the area.
    """
    if view != WHOLE:
        rows, columns = size
        stretch = (columns / rows) / (canvas[1] / canvas[0])
        wide, high = min(1.0, stretch), min(1.0, 1 / stretch)
        uncut = Window(0.5 - 0.5 / wide, 0.5 - 0.5 / high, 0.5 + 0.5 / wide, 0.5 + 0.5 / high)
        if isinstance(base, Window):
            view = view.within(base.inverse())
        view = view.within(uncut)
    view = view.within(area)
    return view.within(base) if isinstance(base, Window) else view


def _by_chunk(rows: list[Row], chunks: int) -> list[int] | None:
    """Return the order that sorts latents by chunk if a pack has sorted them by tile first. None if they are in order."""
    tiles = 1 + sum(a[0] != b[0] for a, b in pairwise(rows))
    if tiles == 1 or chunks == 1 or len(rows) % (tiles * chunks):
        return None
    n = len(rows) // (tiles * chunks)
    if any(len({view for view, _ in rows[t : t + chunks * n]}) > 1 for t in range(0, len(rows), chunks * n)):
        return None
    return [(t * chunks + c) * n + i for c in range(chunks) for t in range(tiles) for i in range(n)]


def _check_base(base: Any, capface: CapFaceModel) -> None:  # base: comfy.model_base.BaseModel
    name = type(base.model_config).__name__
    unet = base.model_config.unet_config
    text_width = capface.network.config.context_width  # the encoder is initialised from the base model's
    if unet.get("context_dim") != text_width or unet.get("model_channels") is None or unet.get("adm_in_channels") is not None:
        raise BadInput(
            f"CapFace needs a base model of the Stable Diffusion 1.x family, got one that ComfyUI classifies as {name}. "
            "Load an SD 1.5 checkpoint in the loader that feeds the sampler, or remove Apply CapFace."
        )
    config = capface.network.config
    depth = unet["num_res_blocks"]
    depth = [depth] * len(unet["channel_mult"]) if isinstance(depth, int) else list(depth)
    theirs = (unet["model_channels"], list(unet["channel_mult"]), depth)
    ours = (config.model_channels, list(config.channel_mult), [config.num_res_blocks] * len(config.channel_mult))
    if theirs != ours:
        raise BadInput(
            f"{capface.name} was made for a denoiser with (channels, multipliers, blocks) {ours}, but this base model ({name}) "
            f"has {theirs}. Load the CapFace checkpoint that belongs to this base model."
        )
