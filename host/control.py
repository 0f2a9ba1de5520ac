"""CapFace as a control of ComfyUI's sampler.

ComfyUI asks a control for residuals once per group of conditionings that it batches, or once per conditioning where it does not
batch. CapFace's residuals depend on the latents, the timestep, the head and the identity, never on the text: equal latents are
evaluated once, however the host groups them.
"""

import comfy.controlnet
import comfy.model_management as mm
import torch
from torch import Tensor

from ..errors import BadInput
from ..flame.condition import HeadCondition, HintImages
from .evaluation import LATENT_SCALE, Evaluation
from .identity import Identity
from .model import CapFaceModel
from .region import Region


class CapFaceControl(comfy.controlnet.ControlBase):
    """A person, a head and a strength, ready to be chained into conditionings.

    Attributes:
        strength: Scales all residuals; 0 is no control.
        timestep_percent_range: Share of the schedule in which it acts, as (start, end).
        region: Where it acts; None is everywhere.
    """

    def __init__(
        self,
        model: CapFaceModel,
        condition: HeadCondition | HintImages,
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
            identity: The person, or None for head control alone (∅).
            tau: ID dropout τ in 0..1000 (equation 8): the identity acts at timesteps up to τ; 1000 keeps it throughout, 0 never
                uses it.
            strength: Scale of the residuals.
            timestep_percent_range: (start, end) in 0..1.
            region: Where it acts: the head's own mask by default, None for everywhere.
        """
        super().__init__()
        self.evaluation = Evaluation(model, condition, identity, tau)
        self.strength = strength
        self.timestep_percent_range = timestep_percent_range
        self.region = region
        self.factors = None  # ((size, frames), what the region gives for them)
        self.model_sampling = None

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        """Return the residuals for `batched_number` chunks of latents, merged with those of the controls before this one.

        Args:
            x_noisy: Latents `[batched_number · n, 4, h, w]`, not scaled.
            t: Sigmas `[batched_number · n]`.
            cond: The host's conditioning; unused.
            batched_number: Chunks (conditionings) in the batch.
            transformer_options: The host's options; sliding windows name their frames here.
        """
        previous = None
        if self.previous_controlnet is not None:
            previous = self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
        if self.strength == 0 or not self._acts_at(t[0]):
            return previous
        x = self.model_sampling.calculate_input(t, x_noisy).float()
        timesteps = self.model_sampling.timestep(t).float()
        n = x.shape[0] // batched_number
        frames = _window_frames(transformer_options, n)
        chunks = [self.evaluation.residuals(xs, ts, frames) for xs, ts in zip(x.split(n), timesteps.split(n), strict=True)]
        if self.region is not None:
            factors = self._factors(x[:n], frames, chunks[0])
            chunks = [[r * factors[r.shape[-2:]].to(r.dtype) for r in chunk] for chunk in chunks]
        # The host scales residuals in place and the denoiser consumes their list: it gets tensors of its own.
        merged = [torch.cat(parts) for parts in zip(*chunks, strict=True)]
        return self.control_merge({"output": merged[:-1], "middle": merged[-1:]}, previous, None)

    def _factors(self, x: Tensor, frames: list[int], residuals: list[Tensor]) -> dict[torch.Size, Tensor]:
        """Return the region's factors, computed when the size or the frames have changed."""
        key = (x.shape[-2:], frames)
        if self.factors is None or self.factors[0] != key:
            self.factors = (key, self.region.factors(self.evaluation, x, frames, [r.shape[-2:] for r in residuals]))
        return self.factors[1]

    def _acts_at(self, sigma: Tensor) -> bool:
        return self.timestep_range is None or self.timestep_range[1] <= sigma <= self.timestep_range[0]

    def copy(self):
        """Return a control with the same settings that shares the network and its evaluations."""
        e = self.evaluation
        c = CapFaceControl(e.model, e.condition, e.identity, tau=e.tau, region=self.region)
        c.evaluation = e
        self.copy_to(c)
        return c

    def get_models(self):
        """Return the models that the host must load before sampling."""
        return [*super().get_models(), self.evaluation.model.patcher]

    def pre_run(self, model, percent_to_timestep_function):
        """Prepare for sampling with a base model.

        Raises:
            BadInput: if the base is not of Stable Diffusion 1.x, or of another size than this CapFace was made for.
        """
        _check_base(model, self.evaluation.model)
        super().pre_run(model, percent_to_timestep_function)
        self.model_sampling = model.model_sampling
        self._clear()  # an interrupted run has had no cleanup

    def cleanup(self):
        """Drop everything that belongs to one run."""
        super().cleanup()
        self.model_sampling = None
        self._clear()

    def _clear(self):
        self.factors = None
        self.evaluation.clear()

    def inference_memory_requirements(self, dtype):
        """Estimate the bytes that an evaluation takes, for frames of 768 × 768: the host asks before it names a size.

        The factor for the encoder is the host's own for a denoiser of this kind.
        """
        frames = max(self.evaluation.condition.batch, 1)
        pixels = frames * 768 * 768
        size = mm.dtype_size(self.evaluation.model.compute_dtype)
        encoder = pixels // LATENT_SCALE**2 * size * 0.01 * 1024**2
        hint_encoder = pixels * size * (9 + 3 * 16)
        return max(encoder, hint_encoder) + super().inference_memory_requirements(dtype)


def _window_frames(transformer_options: dict, n: int) -> list[int]:
    """Frames that n latents stand for, within a sliding window: the core's, or AnimateDiff-Evolved's."""
    window = getattr(transformer_options.get("context_window"), "index_list", None)
    window = window or (transformer_options.get("ad_params") or {}).get("sub_idxs")
    return list(window) if window is not None and len(window) == n else list(range(n))


def _check_base(base, capface: CapFaceModel):
    name = type(base.model_config).__name__
    unet = base.model_config.unet_config
    text_width = capface.network.config.context_width  # an encoder begins as the base model's, so they are the same
    if unet.get("context_dim") != text_width or unet.get("model_channels") is None or unet.get("adm_in_channels") is not None:
        raise BadInput(
            f"CapFace needs a base model of the Stable Diffusion 1.x family, got one that ComfyUI knows as {name}. "
            "Load an SD 1.5 checkpoint in the loader that feeds the sampler, or take Apply CapFace out."
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
