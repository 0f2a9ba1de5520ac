"""What ComfyUI's sampler asks a control for: which part of the picture, and which frames of a sequence.

`get_control` receives latents without their position. ComfyUI's wrappers see more: one around each run sees its noise, one
around each evaluation sees the areas of the conditionings. A control registers both through `extra_hooks`, ComfyUI's own way
for this, and what they see reaches `get_control` in `transformer_options`.
"""

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import comfy.hooks
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...flame.model import Window

KEY = "capface"
_OWN = Path(__file__).resolve().parent.parent
_HOST = Path(comfy.hooks.__file__).resolve().parent.parent

log = logging.getLogger("capface")


@dataclass(frozen=True, eq=False)
class SamplingContext:
    """What the sampler says of a request, as far as it says anything."""

    frames: tuple[int, ...] | None = None
    """Frames of the sequence that the run's latents stand for; None is 0, 1, 2 …"""
    latent: tuple[int, int] | None = None
    """Size (h, w) of the latents of this evaluation."""
    areas: dict = field(default_factory=dict)
    """Areas (h, w, y, x) of conditionings, in latent pixels, by their uuid."""
    retained: tuple[int, ...] = ()
    """Frames that every sliding window keeps."""
    evaluator: str | None = None
    """Name of the pack whose wrapper calls the model, if any."""
    warned: set[str] = field(default_factory=set)
    """Warnings of this run."""

    def window_frames(self, transformer_options: dict, n: int) -> list[int] | None:
        """Return the latents of the run that n latents within a sliding window are; None outside of one.

        Args:
            transformer_options: The host's options.
            n: Number of latents.
        """
        window = transformer_options.get("context_window")
        indices = getattr(window, "index_list", None)
        if indices is not None:
            indices = list(indices)
            # ComfyUI 0.33 puts the frame before a window in front of it
            anchor = getattr(window, "causal_anchor_index", None)
            if anchor is not None and anchor >= 0:
                indices.insert(0, anchor)
            for frame in self.retained:
                if frame < len(indices):
                    indices[frame] = frame
        else:
            indices = (transformer_options.get("ad_params") or {}).get("sub_idxs")
        return list(indices) if indices is not None and len(indices) == n else None

    def area(self, uuid) -> Window | None:
        """Return the area of a conditioning as a window of the latents; None is all of them."""
        if uuid not in self.areas:
            return None
        (h, w, y, x), (height, width) = self.areas[uuid], self.latent
        return Window(x / width, y / height, (x + w) / width, (y + h) / height)

    def warn(self, text: str):
        """Log a warning once a run."""
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
        """The wrappers, in lists of their own each time: the host adds other packs' to them."""
        return {
            "wrappers": {
                WrappersMP.SAMPLER_SAMPLE: {KEY: [_wrap_sampling]},
                WrappersMP.CALC_COND_BATCH: {KEY: [_wrap_evaluation]},
            }
        }

    @transformers_dict.setter
    def transformers_dict(self, _):
        """Ignored: clones of the hook assign it."""


_HOOK = _SamplingHook()


def sampling_hooks() -> comfy.hooks.HookGroup:
    """Return a control's `extra_hooks`. They are equal for all controls, so ComfyUI registers them once."""
    group = comfy.hooks.HookGroup()
    group.add(_HOOK)
    return group


def _wrap_sampling(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
    options = extra_args["model_options"].setdefault("transformer_options", {})
    controls = list(_controls(guider.conds.values()))
    heads = max((control.frames for control in controls), default=1)
    options[KEY] = sampling = SamplingContext(frames=frames_of_noise(noise, extra_args.get("seed"), heads))
    detailer = _calling_detailer()
    if controls and detailer:
        sampling.warn(
            f"{detailer} samples a crop of the picture, and a crop does not say where it lies: the head is drawn as in the "
            "whole picture. Put Crop Head before Render Head, with the same region; if it is there, all is well."
        )
    return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)


def _wrap_evaluation(executor, model, conds, x_in, timestep, model_options):
    options = model_options.get("transformer_options", {})
    size = tuple(x_in.shape[-2:])
    areas = {c["uuid"]: _clipped(c["area"], size) for cond in conds if cond for c in cond if "area" in c}
    sampling = replace(
        options.get(KEY) or SamplingContext(),
        latent=size,
        areas=areas,
        retained=tuple(getattr(model_options.get("context_handler"), "latent_retain_index_list", ())),
        evaluator=_pack_of(model_options.get("model_function_wrapper")),
    )
    for control in _controls(conds):
        control.latent = size
    model_options = {**model_options, "transformer_options": {**options, KEY: sampling}}
    return executor(model, conds, x_in, timestep, model_options)


def _clipped(area, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """An area (h, w, y, x) cut at the latents' border, as the host cuts it. Areas in time name more: their last two count."""
    dims = len(area) // 2
    (h, w), (y, x) = area[dims - 2 : dims], area[2 * dims - 2 :]
    return min(size[0] - y, h), min(size[1] - x, w), y, x


def _controls(conds) -> Iterator:
    """This pack's controls in lists of conditionings, those of other devices too."""
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
    """Identify the frames of a sequence that are sampled when not all of them are.

    A latent's `batch_index` (Latent From Batch) reaches the sampler only as noise: frame i keeps the i-th noise of the seed.

    Args:
        noise: The run's noise `[n, C, h, w]`.
        seed: Its seed.
        heads: Frames in the sequence.

    Returns:
        The n frames; None where all are sampled, or the noise is not the seed's own.
    """
    if seed is None or heads < 2 or not isinstance(noise, Tensor) or noise.ndim != 4 or len(noise) >= heads:
        return None
    wanted = noise.float().cpu()
    generator = torch.Generator("cpu").manual_seed(seed)
    frames = [None] * len(wanted)
    for frame in range(heads):
        known = torch.randn(wanted.shape[1:], generator=generator)
        for i, row in enumerate(wanted):
            if torch.equal(row, known):
                frames[i] = frame
    return None if None in frames or len(set(frames)) < len(frames) else tuple(frames)


def _pack_of(function) -> str | None:
    """Return the name of the pack that defines a function or a callable object; None for ComfyUI itself."""
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
    others = root is not None and root != _OWN and folder != _HOST and "site-packages" not in root.parts
    return root.name if others else None


def canvas_size_of_caller() -> tuple[int, int] | None:
    """Return the size (H, W) of the picture for which the caller's caller crops a control image, if it is known.

    Ultimate SD Upscale crops before sampling, and stretches tiles at the border. It passes nothing that says so, but the
    function that crops (and its copies in other packs) holds the picture's (width, height) in its local variable `canvas_size`.
    """
    size = sys._getframe(2).f_locals.get("canvas_size")
    known = isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
    return (size[1], size[0]) if known else None


def _calling_detailer() -> str | None:
    """Return the pack whose detailer is running, found by a function name with "detail" on the call stack, or None."""
    frame = sys._getframe(1)
    while frame is not None:
        name = _pack_of_file(frame.f_code.co_filename) if "detail" in frame.f_code.co_name else None
        if name:
            return name
        frame = frame.f_back
    return None
