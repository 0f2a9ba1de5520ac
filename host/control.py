"""CapFace as a control of ComfyUI's sampler.

ComfyUI asks a control for residuals once per group of conditionings that it batches, or once per conditioning where it does not
batch. CapFace's residuals depend on the latents, the timestep, the head and the identity, never on the text: equal latents are
evaluated once, however the host groups them.
"""

from dataclasses import dataclass
from pathlib import Path

import comfy.controlnet
import comfy.ldm.modules.attention
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import BadInput
from ..flame.condition import HeadCondition, HintImages
from ..models.capface import CapFace, IdentityTokens
from ..models.checkpoint import capface_tensors, load_capface

LATENT_SCALE = 8
"""Pixels of the hint for one of the latent, along each side."""


@dataclass(frozen=True)
class Identity:
    """Who: raw features, so that they can be saved, averaged and reused with any checkpoint."""

    global_: Tensor
    """FaceNet embeddings float32 `[B, 512]`, L2-normalised."""
    local: Tensor
    """CLIP ViT-L/14 tokens before the last layer norm, float32 `[B, 257, 1024]`."""

    def __post_init__(self):
        if self.global_.ndim != 2 or self.local.ndim != 3 or self.global_.shape[0] != self.local.shape[0]:
            raise BadInput(
                "Expected identity features of shapes [B, 512] and [B, 257, 1024], "
                f"got {list(self.global_.shape)} and {list(self.local.shape)}."
            )


class _Networks(nn.Module):
    """The network and its projections as one module, so that the host moves them together."""

    def __init__(self, network: CapFace, tokens: IdentityTokens):
        super().__init__()
        self.network = network
        self.tokens = tokens


@dataclass(frozen=True, eq=False)
class CapFaceModel:
    """A loaded CapFace checkpoint in the host's memory management."""

    patcher: comfy.model_patcher.ModelPatcher
    compute_dtype: torch.dtype
    name: str

    @property
    def network(self) -> CapFace:
        """The side network."""
        return self.patcher.model.network

    @property
    def tokens(self) -> IdentityTokens:
        """The projections of the identity features."""
        return self.patcher.model.tokens


def load_model(path_or_state_dict, name: str, dtype: torch.dtype | None = None) -> CapFaceModel:
    """Load a CapFace checkpoint for the host.

    Args:
        path_or_state_dict: What `load_capface` takes.
        name: The file's name, for messages.
        dtype: Type of the weights; None lets the host choose as it does for a ControlNet.

    Raises:
        MissingFile, BadFile: as `load_capface`.
    """
    load_device = mm.get_torch_device()
    offload_device = mm.unet_offload_device()
    supported = [torch.float16, torch.bfloat16, torch.float32]
    if dtype is None:
        dtype = mm.unet_dtype(device=load_device, model_params=-1, supported_dtypes=supported)
    manual_cast_dtype = mm.unet_manual_cast(dtype, load_device, supported)
    network, tokens = load_capface(
        path_or_state_dict,
        device=offload_device,
        dtype=dtype,
        operations=comfy.ops.pick_operations(dtype, manual_cast_dtype),
        attention=comfy.ldm.modules.attention.optimized_attention,
    )
    patcher = comfy.model_patcher.ModelPatcher(_Networks(network, tokens), load_device, offload_device)
    return CapFaceModel(patcher, manual_cast_dtype or dtype, name)


def convert_checkpoint(source: Path, target: Path, dtype: torch.dtype | None = None) -> Path:
    """Write CapFace's tensors of a checkpoint to a safetensors file, complete or not at all.

    Args:
        source: What `load_capface` takes.
        target: The new file; one of that name is replaced.
        dtype: Type to store; the source's own by default.

    Returns:
        The target.

    Raises:
        MissingFile, BadFile: as `load_capface`.
    """
    tensors = {k: v.to(dtype or v.dtype).contiguous() for k, v in capface_tensors(source).items()}
    part = target.with_suffix(".part")
    try:
        save_file(tensors, part, metadata={"format": "pt", "model": "capface", "source": source.name})
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def apply_capface(conditionings, model: CapFaceModel, condition, identity: Identity | None, *, strength=1.0, **control) -> list:
    """Add a CapFace control to conditionings, before which their own controls stay.

    Args:
        conditionings: ComfyUI's conditionings, such as (positive, negative).
        model: The checkpoint.
        condition: The head.
        identity: The person, or None.
        strength: Scale of the residuals; at 0 the conditionings are returned as they are.
        control: `tau` and `timestep_percent_range`, as for `CapFaceControl`.

    Returns:
        As many new conditionings.
    """
    if strength == 0:
        return list(conditionings)
    first = CapFaceControl(model, condition, identity, strength=strength, **control)
    by_previous = {}  # positive and negative share one control where they share what comes before it
    out = []
    for conditioning in conditionings:
        entries = []
        for embedding, options in conditioning:
            previous = options.get("control")
            if previous not in by_previous:
                by_previous[previous] = first.copy().set_previous_controlnet(previous)
            entries.append([embedding, {**options, "control": by_previous[previous], "control_apply_to_uncond": False}])
        out.append(entries)
    return out


class _Evaluation:
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
        """Return masked residuals of one chunk of latents, computed once per content.

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
        guided, mask = self._encode_hint(x)
        guided, mask = _rows(guided, frames), _rows(mask, frames)
        context = self._encode_identity(x.device)
        # eq. 8: F†_t = F_t where t ≤ τ, else π(z_t, t, H, ∅); the released code keeps t = τ
        keep = (timesteps <= self.tau) & (self.tau > 0 and context is not None)
        if keep.all() or not keep.any():
            context = _rows(context, frames) if keep.any() else None
            residuals = self.model.network(x.to(dtype), timesteps, guided, context)
        else:
            residuals = self._evaluate_mixed(x.to(dtype), timesteps, guided, _rows(context, frames), keep)
        return CapFace.mask_residuals(residuals, mask)

    def _evaluate_mixed(self, x: Tensor, timesteps: Tensor, guided: Tensor, context: Tensor, keep: Tensor) -> list[Tensor]:
        """Evaluate the rows that keep the identity apart from those that have dropped it."""
        guided, context = guided.expand(len(x), -1, -1, -1), context.expand(len(x), -1, -1)
        with_identity = self.model.network(x[keep], timesteps[keep], guided[keep], context[keep])
        without = self.model.network(x[~keep], timesteps[~keep], guided[~keep], None)
        merged = []
        for a, b in zip(with_identity, without, strict=True):
            rows = a.new_empty(len(x), *a.shape[1:])
            rows[keep], rows[~keep] = a, b
            merged.append(rows)
        return merged

    def _encode_hint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = tuple(x.shape[-2:])  # conditionings with areas bring sizes of their own
        if size not in self.hints:
            hint = self.condition.hint(size[0] * LATENT_SCALE, size[1] * LATENT_SCALE)
            guided, mask = self.model.network.encode_hint(hint.to(x.device, self.model.compute_dtype))
            self.hints[size] = (guided, mask.float().cpu())
        return self.hints[size]

    def _encode_identity(self, device: torch.device) -> Tensor | None:
        if self.context is None and self.identity is not None:
            to = {"device": device, "dtype": self.model.compute_dtype}
            self.context = self.model.tokens(self.identity.local.to(**to), self.identity.global_[:, None].to(**to))
        return self.context


def _rows(tensor: Tensor, frames: list[int]) -> Tensor:
    """Pick a tensor's rows for these frames; one row serves them all, fewer rows than frames repeat."""
    return tensor if tensor.shape[0] == 1 else tensor[[f % tensor.shape[0] for f in frames]]


class CapFaceControl(comfy.controlnet.ControlBase):
    """A person, a head and a strength, ready to be chained into conditionings.

    Attributes:
        strength: Scales all residuals; 0 is no control.
        timestep_percent_range: Share of the schedule in which it acts, as (start, end).
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
        """
        super().__init__()
        self.evaluation = _Evaluation(model, condition, identity, tau)
        self.strength = strength
        self.timestep_percent_range = timestep_percent_range
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
        # The host scales residuals in place and the denoiser consumes their list: it gets tensors of its own.
        merged = [torch.cat(parts) for parts in zip(*chunks, strict=True)]
        return self.control_merge({"output": merged[:-1], "middle": merged[-1:]}, previous, None)

    def _acts_at(self, sigma: Tensor) -> bool:
        return self.timestep_range is None or self.timestep_range[1] <= sigma <= self.timestep_range[0]

    def copy(self):
        """Return a control with the same settings that shares the network and its evaluations."""
        e = self.evaluation
        c = CapFaceControl(e.model, e.condition, e.identity, tau=e.tau)
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
        self.evaluation.clear()  # an interrupted run has had no cleanup

    def cleanup(self):
        """Drop everything that belongs to one run."""
        super().cleanup()
        self.model_sampling = None
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
    if unet.get("context_dim") != 768 or unet.get("model_channels") is None or unet.get("adm_in_channels") is not None:
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
