"""CapFace as a control of ComfyUI's sampler.

ComfyUI asks a control for residuals once per batch of conditionings, or once per conditioning if it does not batch them. The
residuals of CapFace depend on the latents, the timestep, the head and the identity, but not on the text. Equal latents are
therefore evaluated once, however ComfyUI groups them.

A request covers a part of the frame and some frames of a sequence. `sampling_context.py` collects what the sampler knows about
them, and `coordinates.py` recovers them from control images that other packs have cropped.
"""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Protocol

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
from .evaluation import PIXELS_PER_LATENT, Evaluation, Row
from .region import Region
from .sampling_context import KEY, SamplingContext, canvas_size_of_caller, sampling_hooks

_NOTHING = torch.empty(0)


class ModelSampling(Protocol):
    """The part of ComfyUI's `model_sampling` that a control uses."""

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """Scale noisy latents for the denoiser."""
        ...

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the timesteps of sigmas."""
        ...


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
        """
        self._replaced: Tensor | None = None  # an image that another pack has set
        super().__init__(manual_cast_dtype=torch.float32)
        # Packs cast the image to this type. Half precision would round the coordinates.
        self.control_model = SimpleNamespace(dtype=torch.float32)
        self.extra_hooks = sampling_hooks()
        self.sub_idxs = None
        self.evaluation = Evaluation(model, condition, identity, tau)
        self.strength = strength
        self.timestep_percent_range = timestep_percent_range
        self.region = region
        self.factors: tuple[tuple, dict[torch.Size, Tensor]] | None = None  # ((size, rows), the region's factors for them)
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
        previous = None
        if self.previous_controlnet is not None:
            previous = self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
        if self.strength == 0 or not self._acts_at(t[0]):
            return previous
        assert self.model_sampling is not None, "ComfyUI calls pre_run before it samples"
        x = self.model_sampling.calculate_input(t, x_noisy).float()
        timesteps = self.model_sampling.timestep(t).float()
        rows = self._rows(x, batched_number, transformer_options)
        if getattr(self, "get_control_orig", self.get_control) != self.get_control:
            # Tiled Diffusion has wrapped this method. If it finds an image here, it reuses the tiles that it cut in an earlier
            # run, possibly for another control.
            self.cond_hint = None
        order = _by_chunk(rows, batched_number)
        if order is not None:
            x, timesteps, rows = x[order], timesteps[order], [rows[i] for i in order]
        n = len(x) // batched_number
        chunks = []
        for start in range(0, len(x), n):
            part = slice(start, start + n)
            residuals = self.evaluation.residuals(x[part], timesteps[part], rows[part])
            if self.region is not None:
                factors = self._factors(self.region, x[part], rows[part], residuals)
                residuals = [r * factors[r.shape[-2:]].to(r.dtype) for r in residuals]
            chunks.append(residuals)
        # ComfyUI scales residuals in place, and the denoiser empties their lists. The cached tensors must not be returned.
        merged = [torch.cat(parts) for parts in zip(*chunks, strict=True)]
        if order is not None:
            back = torch.tensor(order).argsort().tolist()
            merged = [r[back] for r in merged]
        return self.control_merge({"output": merged[:-1], "middle": merged[-1:]}, previous, None)

    def _rows(self, x: Tensor, batched_number: int, transformer_options: dict[str, Any]) -> list[Row]:
        """Return the view and the frame number of each latent."""
        sampling = transformer_options.get(KEY) or SamplingContext()
        n, size = len(x) // batched_number, (x.shape[-2], x.shape[-1])
        window = sampling.window_frames(transformer_options, n)
        numbers = list(range(n)) if window is None else window
        if sampling.frames is not None:
            numbers = [sampling.frames[i] if i < len(sampling.frames) else i for i in numbers]
        uuids = transformer_options.get("uuids") or ()
        areas = [sampling.area(uuid) for uuid in uuids] if len(uuids) == batched_number else [None] * batched_number

        whole = sampling.latent or size
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
            elif parts is None and sampling.latent not in (None, size):
                self._warn_unknown_part(sampling, size)
            rows.append((view, numbers[image] if number is None or window is not None else number))
        return rows

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

    def _factors(self, region: Region, x: Tensor, rows: list[Row], residuals: list[Tensor]) -> dict[torch.Size, Tensor]:
        """Return the region's factors. They are computed again only when the size or the rows have changed."""
        key = (x.shape[-2:], rows)
        if self.factors is None or self.factors[0] != key:
            self.factors = (key, region.factors(self.evaluation, x, rows, [r.shape[-2:] for r in residuals]))
        return self.factors[1]

    def _acts_at(self, sigma: Tensor) -> bool:
        return self.timestep_range is None or self.timestep_range[1] <= sigma <= self.timestep_range[0]

    def copy(self) -> "CapFaceControl":
        """Return a control with the same settings that shares the network and its evaluations."""
        return self._copy_with(self.evaluation, self.region)

    def _copy_with(self, evaluation: Evaluation, region: Region | None) -> "CapFaceControl":
        e = evaluation
        c = CapFaceControl(e.model, e.condition, e.identity, tau=e.tau, region=region)
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
        self._clear()  # an interrupted run was not cleaned up

    def cleanup(self):
        """Drop everything that belongs to one run."""
        # Tiled Diffusion, if installed, also calls this before each run. An image that was set for that run is kept.
        waiting = None if self.evaluated else self.cond_hint
        super().cleanup()
        self.cond_hint, self.evaluated = waiting, False
        self.model_sampling = None
        self.sub_idxs = None
        self._clear()

    def release(self) -> None:
        """Drop the tensors of a run, after one that failed."""
        self._clear()

    def _clear(self) -> None:
        self.factors = None
        self.latent = None
        self.evaluation.clear()

    def inference_memory_requirements(self, dtype):
        """Estimate the memory of an evaluation in bytes, for frames of 768 × 768. ComfyUI asks before it gives a size.

        The factor for the encoder is ComfyUI's own factor for a denoiser of this kind.
        """
        frames = max(self.evaluation.condition.batch, 1)
        pixels = frames * 768 * 768
        size = mm.dtype_size(self.evaluation.model.compute_dtype)
        encoder = pixels // PIXELS_PER_LATENT**2 * size * 0.01 * 1024**2
        hint_encoder = pixels * size * (9 + 3 * 16)
        return max(encoder, hint_encoder) + super().inference_memory_requirements(dtype)


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
