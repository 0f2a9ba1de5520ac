"""ComfyUI's own ControlNets in a chain, evaluated at some steps only, like CapFace with `evaluate_every`.

Their residuals also depend on the text, so they are kept for each group of conditionings that the host evaluates together. Each
control stays an object of its class, because packs look for that class and set its image.
"""

import logging
from functools import lru_cache
from typing import Any, TypeAlias

import comfy.controlnet
import comfy.hooks
from comfy.controlnet import ControlBase
from torch import Tensor

from .control import CapFaceControl
from .reuse import Kept, KeptResiduals
from .sampling_context import KEY, SamplingContext, sampling_hooks

log = logging.getLogger("capface")

Residuals: TypeAlias = dict[str, list[Tensor | None]]
"""ComfyUI's residuals: lists by the part of the denoiser that they are added to."""


def keep_controls(conditionings: list, every: int) -> list:
    """Return conditionings whose ControlNets are evaluated at every n-th step. CapFace controls are not changed.

    Args:
        conditionings: ComfyUI's conditionings, such as (positive, negative).
        every: Number of steps for which the residuals of an evaluation are kept.
    """
    chains: dict[ControlBase, ControlBase] = {}

    def kept(control: ControlBase) -> ControlBase:
        if control not in chains:
            before = control.previous_controlnet
            copied: Any = control.copy()
            if type(control).__module__ == comfy.controlnet.__name__ or isinstance(control, _KeptControl):
                _keep(copied, KeptResiduals(every))
            elif not isinstance(control, CapFaceControl):
                log.warning("%s is evaluated at every step, because it is not one of ComfyUI's own.", type(control).__name__)
            chains[control] = copied.set_previous_controlnet(None if before is None else kept(before))
        return chains[control]

    return [
        [[text, {**options, "control": kept(options["control"])} if options.get("control") else options] for text, options in c]
        for c in conditionings
    ]


class _KeptControl(ControlBase):
    """What a control does in addition to its own class. `_keep` makes a class of both.

    Attributes:
        kept: Residuals, shared by copies of the control.
        own_hooks: The control's hooks, without those that only observe the run.
        latent: Size (h, w) of the sampled latents, written by the wrapper around an evaluation.
    """

    made_by = KEY
    frames = 0
    kept: KeptResiduals[Residuals]
    own_hooks: comfy.hooks.HookGroup | None
    latent: tuple[int, int] | None

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: Any, batched_number: int, transformer_options: dict[str, Any]
    ) -> Residuals | None:
        """Return the residuals, merged with those of the controls before this one."""
        arguments = (x_noisy, t, cond, batched_number, transformer_options)
        before = self.previous_controlnet
        previous = None if before is None else before.get_control(*arguments)
        sampling = transformer_options.get(KEY) or SamplingContext()
        key = _key(x_noisy, batched_number, sampling, transformer_options)
        level = sampling.level
        if key is None or level is None or level.position is None:
            return _merged(self._evaluate(arguments), previous)
        if self.timestep_range is not None and not self.timestep_range[1] <= level.sigma <= self.timestep_range[0]:
            return previous
        self.kept.begin(sampling.run)
        own = self.kept.find(key, level.position, None)
        if own is None:
            own = self._evaluate(arguments)
            if own is not None:
                tensors = {id(r): r for part in own.values() for r in part if r is not None}.values()
                size = sum(r.numel() * r.element_size() for r in tensors)
                self.kept.keep({key: Kept(level.position, None, own, size)})
        return _merged(own, previous)

    def _evaluate(self, arguments: tuple) -> Residuals | None:
        """Evaluate this control alone."""
        before, self.previous_controlnet = self.previous_controlnet, None
        try:
            return super().get_control(*arguments)
        finally:
            self.previous_controlnet = before

    def copy(self):
        """Return a control with the same settings that shares the network and the residuals."""
        c = super().copy()
        c.extra_hooks = self.own_hooks
        _keep(c, self.kept)
        return c

    def deepclone_multigpu(self, load_device, autoregister=False):
        """Return a copy on another device, which keeps residuals of its own."""
        c = super().deepclone_multigpu(load_device, autoregister)
        c.kept = KeptResiduals(self.kept.steps)
        return c

    def get_extra_hooks(self):
        """Return the control's own hooks and those of the controls before it. See `CapFaceControl.get_extra_hooks`."""
        own = [] if self.own_hooks is None else [self.own_hooks]
        return own + ([] if self.previous_controlnet is None else self.previous_controlnet.get_extra_hooks())

    def pre_run(self, model, percent_to_timestep_function):
        """Prepare for a run."""
        super().pre_run(model, percent_to_timestep_function)
        self.release()  # an interrupted run was not cleaned up

    def cleanup(self):
        """Drop everything that belongs to one run."""
        super().cleanup()
        self.release()

    def release(self) -> None:
        """Drop the residuals of a run."""
        self.kept.clear()


def _keep(control: Any, kept: KeptResiduals[Residuals]) -> None:
    """Change a new copy of a control to one that keeps its residuals."""
    if not isinstance(control, _KeptControl):
        control.__class__ = _class_of(type(control))
        control.own_hooks, control.latent = control.extra_hooks, None
        groups = [group for group in (control.own_hooks, sampling_hooks()) if group is not None]
        control.extra_hooks = comfy.hooks.HookGroup.combine_all_hooks(groups)
    control.kept = kept


@lru_cache(maxsize=64)
def _class_of(kind: type[ControlBase]) -> type[ControlBase]:
    return type(f"Kept{kind.__name__}", (_KeptControl, kind), {})


def _key(
    x: Tensor, batched_number: int, sampling: SamplingContext, transformer_options: dict[str, Any]
) -> tuple[Any, ...] | None:
    """Return what identifies the latents and conditionings of a request within a run. None if that is not certain."""
    uuids = tuple(transformer_options.get("uuids") or ())
    n, size = len(x) // batched_number, tuple(x.shape[-2:])
    window = sampling.window_frames(transformer_options, n)
    if sampling.call is None or len(uuids) != batched_number or (window is None and n != sampling.count):
        return None
    if any(size != (sampling.areas[uuid][:2] if uuid in sampling.areas else sampling.latent) for uuid in uuids):
        return None
    return (uuids, tuple(x.shape), None if window is None else tuple(window))


def _merged(own: Residuals | None, previous: Residuals | None) -> Residuals | None:
    """Add the residuals of the controls before. The lists are new, because the denoiser empties them."""
    if own is None:
        return previous
    merged: Residuals = {}
    for part in own.keys() | (previous or {}).keys():
        mine, theirs = own.get(part, []), (previous or {}).get(part, [])
        length = max(len(mine), len(theirs))
        pairs = zip(*([*some, *[None] * (length - len(some))] for some in (mine, theirs)), strict=True)
        merged[part] = [b if a is None else a if b is None else b + a for a, b in pairs]
    return merged
