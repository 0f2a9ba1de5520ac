"""The part of the picture and the frames of the sequence for which ComfyUI's sampler calls a control.

`get_control` receives latents without their position. ComfyUI's wrappers receive more: the wrapper around a run gets its noise,
and the wrapper around an evaluation gets the areas of the conditionings. A control registers both through `extra_hooks`, the
interface of ComfyUI for this. They pass their information to `get_control` in `transformer_options`.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import comfy.hooks
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...flame.model import Window
from .reuse import NoiseLevel, descending, position_in

KEY = "capface"
_OWN = Path(__file__).resolve().parent.parent
_HOST = Path(comfy.hooks.__file__).resolve().parent.parent

log = logging.getLogger("capface")


class ModelSampling(Protocol):
    """The part of ComfyUI's `model_sampling` that a control uses."""

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """Scale noisy latents for the denoiser."""
        ...

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the timesteps of sigmas."""
        ...


@dataclass(frozen=True, eq=False)
class SamplingContext:
    """Information about a request of the sampler, as far as it is known."""

    frames: tuple[int, ...] | None = None
    """Frame index of each latent of the run. None means 0, 1, 2, …"""
    latent: tuple[int, int] | None = None
    """Size (h, w) of this evaluation's latents."""
    areas: dict[Any, tuple[int, int, int, int]] = field(default_factory=dict)
    """Areas (h, w, y, x) of conditionings in latent pixels, by the conditioning's uuid."""
    retained: tuple[int, ...] = ()
    """Frames that are part of every sliding window."""
    evaluator: str | None = None
    """Name of the pack whose wrapper calls the model, if any."""
    run: object = field(default_factory=object)
    """Identifies the run."""
    schedule: tuple[float, ...] = ()
    """The run's different sigmas above 0, highest first."""
    call: object | None = None
    """Identifies this evaluation: one call of the denoiser for all conditionings, or for a sliding window of them."""
    count: int | None = None
    """Number of this evaluation's latents."""
    level: NoiseLevel | None = None
    """Noise level of this evaluation's latents. None if they differ in it."""
    warned: set[str] = field(default_factory=set)
    """Warnings that were logged in this run."""

    def window_frames(self, transformer_options: dict[str, Any], n: int) -> list[int] | None:
        """Return the indices, within the run, of the n latents of a sliding window.

        Args:
            transformer_options: ComfyUI's options.
            n: Number of latents.

        Returns:
            n indices, or None without a window.
        """
        window = transformer_options.get("context_window")
        indices = getattr(window, "index_list", None)
        if indices is not None:
            indices = list(indices)
            # ComfyUI 0.33 prepends the frame before the window
            anchor = getattr(window, "causal_anchor_index", None)
            if anchor is not None and anchor >= 0:
                indices.insert(0, anchor)
            for frame in self.retained:
                if frame < len(indices):
                    indices[frame] = frame
        else:
            indices = (transformer_options.get("ad_params") or {}).get("sub_idxs")
        return list(indices) if indices is not None and len(indices) == n else None

    def area(self, uuid: Any) -> Window | None:
        """Return a conditioning's area as a window of the latents. None means the whole latents."""
        if uuid not in self.areas or self.latent is None:
            return None
        (h, w, y, x), (height, width) = self.areas[uuid], self.latent
        return Window(x / width, y / height, (x + w) / width, (y + h) / height)

    def warn(self, text: str) -> None:
        """Log a warning, once per run."""
        if text not in self.warned:
            self.warned.add(text)
            log.warning(text)


class _SamplingHook(comfy.hooks.TransformerOptionsHook):
    """Registers the two wrappers for every run that uses a CapFace control."""

    def __init__(self):
        super().__init__()
        self.hook_id = KEY

    @property
    def transformers_dict(self) -> dict:
        """The wrappers, in new lists on each access, because ComfyUI adds other packs' wrappers to them."""
        return {
            "wrappers": {
                WrappersMP.SAMPLER_SAMPLE: {KEY: [_wrap_sampling]},
                WrappersMP.CALC_COND_BATCH: {KEY: [_wrap_evaluation]},
            }
        }

    @transformers_dict.setter
    def transformers_dict(self, _):
        """Ignore the assignment, which ComfyUI makes when it clones the hook."""


_HOOK = _SamplingHook()


def sampling_hooks() -> comfy.hooks.HookGroup:
    """Return a control's `extra_hooks`. They are equal for all controls, so that ComfyUI registers them once."""
    group = comfy.hooks.HookGroup()
    group.add(_HOOK)
    return group


def _wrap_sampling(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
    options = extra_args["model_options"].setdefault("transformer_options", {})
    controls = list(_controls(guider.conds.values()))
    heads = max((control.frames for control in controls), default=0)
    options[KEY] = sampling = SamplingContext(
        frames=frames_of_noise(noise, extra_args.get("seed"), heads), schedule=descending(sigmas.tolist())
    )
    detailer = _calling_detailer()
    if detailer and any(control.frames for control in controls):
        sampling.warn(
            f"{detailer} samples a crop of the picture without its position, so the head is rendered as in the whole picture. "
            "Put Crop Head before Render Head, with the same region. If it is there already, ignore this warning."
        )
    try:
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)
    except BaseException:  # ComfyUI does not clean up after a run that ran out of memory, failed or was interrupted
        for control in controls:
            control.release()
        raise


def _wrap_evaluation(executor, model, conds, x_in, timestep, model_options):
    options = model_options.get("transformer_options", {})
    size = tuple(x_in.shape[-2:])
    areas = {c["uuid"]: _clip(c["area"], size) for cond in conds if cond for c in cond if "area" in c}
    sampling = replace(
        options.get(KEY) or SamplingContext(),
        latent=size,
        areas=areas,
        retained=tuple(getattr(model_options.get("context_handler"), "latent_retain_index_list", ())),
        evaluator=_pack_of(model_options.get("model_function_wrapper")),
        call=object(),
        count=len(x_in),
    )
    sampling = replace(sampling, level=common_level(noise_levels(timestep, model.model_sampling, sampling.schedule)))
    for control in _controls(conds):
        control.latent = size
    model_options = {**model_options, "transformer_options": {**options, KEY: sampling}}
    return executor(model, conds, x_in, timestep, model_options)


def noise_levels(sigmas: Tensor, sampling: ModelSampling, schedule: Sequence[float]) -> list[NoiseLevel]:
    """Return the noise levels of latents. This reads a tensor from the GPU, once.

    Args:
        sigmas: Sigmas `[n]`.
        sampling: The base model's sampling.
        schedule: The run's sigmas above 0, highest first, or empty.
    """
    both = torch.stack([sigmas.float(), sampling.timestep(sigmas).float()]).tolist()
    return [NoiseLevel(sigma, timestep, position_in(schedule, sigma)) for sigma, timestep in zip(*both, strict=True)]


def common_level(levels: list[NoiseLevel]) -> NoiseLevel | None:
    """Return the level of all latents, or None if they differ."""
    return levels[0] if levels and all(level == levels[0] for level in levels) else None


def _clip(area: Sequence[int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Clip an area (h, w, y, x) at the latents' border, as ComfyUI does. With more dimensions, the last two are used."""
    dims = len(area) // 2
    (h, w), (y, x) = area[dims - 2 : dims], area[2 * dims - 2 :]
    return min(size[0] - y, h), min(size[1] - x, w), y, x


def _controls(conds: Iterable[Any]) -> Iterator[Any]:
    """Yield this pack's controls in lists of conditionings, including their copies on other devices."""
    seen = set()
    for cond in conds:
        for options in cond or ():
            link = options.get("control")
            while link is not None:
                for control in (link, *getattr(link, "multigpu_clones", {}).values()):
                    if getattr(control, "made_by", None) == KEY and id(control) not in seen:
                        seen.add(id(control))
                        yield control
                link = link.previous_controlnet


def frames_of_noise(noise: Tensor, seed: int | None, heads: int) -> tuple[int, ...] | None:
    """Identify the frames of a sequence if only some of them are sampled.

    A latent's `batch_index` (Latent From Batch) reaches the sampler only as noise: frame i gets the seed's i-th noise.

    Args:
        noise: The run's noise `[n, C, h, w]`.
        seed: The run's seed.
        heads: Number of frames in the sequence.

    Returns:
        The indices of the n frames. None if all frames are sampled, or if the noise was not made from the seed.
    """
    if seed is None or heads < 2 or not isinstance(noise, Tensor) or noise.ndim != 4 or len(noise) >= heads:
        return None
    wanted = noise.float().cpu()
    generator = torch.Generator("cpu").manual_seed(seed)
    frames: list[int | None] = [None] * len(wanted)
    for frame in range(heads):
        known = torch.randn(wanted.shape[1:], generator=generator)
        for i, row in enumerate(wanted):
            if torch.equal(row, known):
                frames[i] = frame
    found = {frame for frame in frames if frame is not None}
    return tuple(frame for frame in frames if frame is not None) if len(found) == len(frames) else None


def _pack_of(function: Any) -> str | None:
    """Return the name of the pack that defines a function or a callable object. None for ComfyUI itself."""
    for part in (function, getattr(function, "__func__", None), type(function)):
        module = sys.modules.get(getattr(part, "__module__", None) or "")
        name = _pack_of_file(getattr(module, "__file__", None))
        if name:
            return name
    return None


@lru_cache(maxsize=256)
def _pack_of_file(path: str | None) -> str | None:
    """Return the name of the pack whose folder contains a source file."""
    if not path:
        return None
    root, folder = None, Path(path).resolve().parent
    while (folder / "__init__.py").is_file():
        root, folder = folder, folder.parent
    if root is None or root == _OWN or folder == _HOST or "site-packages" in root.parts:
        return None
    return root.name


def canvas_size_of_caller() -> tuple[int, int] | None:
    """Return the size (H, W) of the picture for which the caller's caller crops a control image, if it is known.

    Ultimate SD Upscale crops control images before sampling, and stretches tiles at the border. It does not pass the picture's
    size, but its cropping function (and copies of it in other packs) has (width, height) in its local variable `canvas_size`.
    """
    size = sys._getframe(2).f_locals.get("canvas_size")
    if isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size):
        return size[1], size[0]
    return None


def _calling_detailer() -> str | None:
    """Return the name of the pack with a function on the call stack that has "detail" in its name, or None."""
    frame = sys._getframe(1)
    while frame is not None:
        name = _pack_of_file(frame.f_code.co_filename) if "detail" in frame.f_code.co_name else None
        if name:
            return name
        frame = frame.f_back
    return None
