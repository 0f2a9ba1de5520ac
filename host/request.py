"""What ComfyUI's sampler asks a control for: which part of the picture, and which frames of a sequence.

`get_control` is handed latents and no word of where they come from. The sampler tells wrappers more: one around each run sees
its noise, one around each evaluation sees the conditionings' areas. A control brings both along in `extra_hooks`, which ComfyUI
reads for that purpose, and what they see arrives at `get_control` in `transformer_options`.
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

from ..flame.camera import Window

KEY = "capface"
_OWN = Path(__file__).resolve().parent.parent
_HOST = Path(comfy.hooks.__file__).resolve().parent.parent

log = logging.getLogger("capface")


@dataclass(frozen=True, eq=False)
class Told:
    """What the sampler has told, as far as it has."""

    frames: tuple[int, ...] | None = None
    """Frames of the sequence that the run's latents stand for; None is 0, 1, 2 …"""
    latent: tuple[int, int] | None = None
    """Size (h, w) of the latents of this evaluation."""
    areas: dict = field(default_factory=dict)
    """Areas (h, w, y, x) of conditionings, in latent pixels, by their uuid."""
    retained: tuple[int, ...] = ()
    """Frames that every sliding window keeps."""
    evaluator: str | None = None
    """The pack that evaluates the model in its own way."""
    said: set[str] = field(default_factory=set)
    """What this run has been warned of."""

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
        if text not in self.said:
            self.said.add(text)
            log.warning(text)


class _Listen(comfy.hooks.TransformerOptionsHook):
    """Puts the two wrappers around every run that has such a control."""

    def __init__(self):
        super().__init__()
        self.hook_id = KEY

    @property
    def transformers_dict(self) -> dict:
        """The wrappers, in lists of their own each time: the host adds other packs' to them."""
        return {
            "wrappers": {
                WrappersMP.SAMPLER_SAMPLE: {KEY: [_around_a_run]},
                WrappersMP.CALC_COND_BATCH: {KEY: [_around_an_evaluation]},
            }
        }

    @transformers_dict.setter
    def transformers_dict(self, _):
        """The host's clones set it to what it is."""


_LISTEN = _Listen()


def listeners() -> comfy.hooks.HookGroup:
    """Return what a control carries in `extra_hooks`. All controls' are equal, so that the host registers them once."""
    group = comfy.hooks.HookGroup()
    group.add(_LISTEN)
    return group


def _around_a_run(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
    options = extra_args["model_options"].setdefault("transformer_options", {})
    controls = list(_controls(guider.conds.values()))
    heads = max((control.frames for control in controls), default=1)
    options[KEY] = told = Told(frames=frames_of_noise(noise, extra_args.get("seed"), heads))
    detailer = _detailer()
    if controls and detailer:
        told.warn(
            f"{detailer} samples a crop of the picture, and a crop does not say where it lies: the head is drawn as in the "
            "whole picture. Put Crop Head before Render Head, with the same region; if it is there, all is well."
        )
    return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)


def _around_an_evaluation(executor, model, conds, x_in, timestep, model_options):
    options = model_options.get("transformer_options", {})
    size = tuple(x_in.shape[-2:])
    areas = {c["uuid"]: _clipped(c["area"], size) for cond in conds if cond for c in cond if "area" in c}
    told = replace(
        options.get(KEY) or Told(),
        latent=size,
        areas=areas,
        retained=tuple(getattr(model_options.get("context_handler"), "latent_retain_index_list", ())),
        evaluator=_pack_of(model_options.get("model_function_wrapper")),
    )
    for control in _controls(conds):
        control.latent = size
    model_options = {**model_options, "transformer_options": {**options, KEY: told}}
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
    """Find out which frames of a sequence are sampled when not all are.

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
    """Name the pack that a function or an object with one comes from; None for the host's own."""
    for part in (function, getattr(function, "__func__", None), type(function)):
        module = sys.modules.get(getattr(part, "__module__", None) or "")
        name = _pack_at(getattr(module, "__file__", None))
        if name:
            return name
    return None


@lru_cache(maxsize=256)
def _pack_at(path: str | None) -> str | None:
    """Name the pack whose folder a source file lies in."""
    if not path:
        return None
    root, folder = None, Path(path).resolve().parent
    while (folder / "__init__.py").is_file():
        root, folder = folder, folder.parent
    others = root is not None and root != _OWN and folder != _HOST and "site-packages" not in root.parts
    return root.name if others else None


def size_named_by_caller() -> tuple[int, int] | None:
    """Find the size of the picture (H, W) for which the caller's caller cuts a control's image.

    Ultimate SD Upscale cuts before it samples, and shows tiles at the border stretched. Nothing that it hands over says so, but
    the function that cuts (its own, and its copies in other packs) has the picture's (width, height) as `canvas_size`.
    """
    size = sys._getframe(2).f_locals.get("canvas_size")
    known = isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
    return (size[1], size[0]) if known else None


def _detailer() -> str | None:
    """Name the pack that is just refining a part of a picture, by the names of its functions; None if there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        name = _pack_at(frame.f_code.co_filename) if "detail" in frame.f_code.co_name else None
        if name:
            return name
        frame = frame.f_back
    return None
