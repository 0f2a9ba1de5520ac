"""The miniature in ComfyUI: its networks as MODEL, CLIP, VAE, CAPFACE and CAPFACE_READER, for use with every node."""

import logging
import re
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import comfy.latent_formats
import comfy.model_base
import comfy.model_detection
import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import folder_paths
import torch
from torch import Tensor

from ..errors import BadInput, NoFaceFound, quote
from ..miniature.networks import Miniature
from ..miniature.recognizer import Recognizer
from ..miniature.text_encoder import LEARNED, TextEncoder
from ..photos.encoding import PANEL, EncodedPhotos, EncodeOptions, Photos, side_by_side
from .capface_model import CapFaceModel, wrap_networks
from .clip_vision import ClipVision
from .identity import MINIATURE
from .memory import managed

log = logging.getLogger("capface")

NAME = "the miniature"


@dataclass(frozen=True, eq=False)
class Loaded:
    """The replacements of a checkpoint, a CapFace file and a face analyzer."""

    model: comfy.model_patcher.ModelPatcher
    clip: "MiniatureClip"
    vae: comfy.sd.VAE
    capface: CapFaceModel
    reader: "MiniatureEncoder"


def register_miniature(miniature: Miniature) -> Loaded:
    """Register the networks with ComfyUI, which then moves them between devices like its own."""
    return Loaded(
        _base(miniature),
        MiniatureClip(miniature),
        _autoencoder(miniature),
        wrap_networks(miniature.capface, miniature.tokens, NAME, torch.float32),
        MiniatureEncoder(miniature.recognizer),
    )


class _Latents(comfy.latent_formats.LatentFormat):
    """The autoencoder's latents, which already have unit variance."""

    scale_factor = 1.0


class _Config(comfy.supported_models.SD15):
    """A Stable Diffusion 1.x denoiser of another size."""

    latent_format = _Latents


def _base(miniature: Miniature) -> comfy.model_patcher.ModelPatcher:
    state = miniature.denoiser.state_dict()
    config = _Config(comfy.model_detection.detect_unet_config(dict(state), ""))
    config.latent_format.latent_channels = miniature.denoiser.config.in_channels
    config.set_inference_dtype(torch.float32, None)
    base = comfy.model_base.BaseModel(config)
    base.diffusion_model.load_state_dict(state)
    return managed(base, mm.get_torch_device(), mm.unet_offload_device())


def _autoencoder(miniature: Miniature) -> comfy.sd.VAE:
    """Wrap the autoencoder in ComfyUI's VAE, which is built around a small network of its own that is then replaced."""
    size = {"double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1],
            "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}  # fmt: skip
    params = {"ddconfig": size, "embed_dim": 4}
    small = comfy.sd.AutoencoderKL(**params)
    vae = comfy.sd.VAE(sd=small.state_dict(), config={"params": params}, dtype=torch.float32)
    vae.first_stage_model = miniature.autoencoder
    vae.latent_channels = miniature.autoencoder.config.latent_channels
    vae.patcher = managed(miniature.autoencoder, vae.device, mm.vae_offload_device())
    return vae


def _learned_names(text: str) -> list[str]:
    """Return the names of the learned words in a text."""
    return re.findall(rf"{LEARNED}([^\s,]+)", text)


class LearnedTokens(NamedTuple):
    """The tokens of a text with learned words, and the encoder that knows these words."""

    tokens: Tensor
    encoder: TextEncoder


class MiniatureClip:
    """The part of a CLIP that CLIP Text Encode needs, by the miniature's text encoder. LoRAs cannot patch it."""

    def __init__(self, miniature: Miniature):
        self.words = miniature.text_encoder

    def tokenize(self, text: str, **_) -> Tensor | LearnedTokens:
        """Return the indices `[1, 32]` of the known words in a text, with their encoder if there are learned words.

        Args:
            text: The text. `embedding:NAME` in it is a file in ComfyUI's models/embeddings.

        Raises:
            BadInput: The vectors of a file have another width.
        """
        learned = {name: vectors for name in _learned_names(text) if (vectors := self._load(name)) is not None}
        if not learned:
            return self.words.tokenize([text])
        encoder = self.words.with_learned(learned)
        return LearnedTokens(encoder.tokenize([text]), encoder)

    def _load(self, name: str) -> Tensor | None:
        """Load a learned word `[V, C]` with ComfyUI's own reader; None, with a warning, if there is none of this name."""
        width = self.words.words.embedding_dim
        folders = folder_paths.get_folder_paths("embeddings")
        vectors = comfy.sd1_clip.load_embed(name, folders, width, "clip_l")
        if vectors is None:
            log.warning("There is no embedding %s in models/embeddings; it is ignored.", quote(name))
            return None
        vectors = torch.atleast_2d(vectors)
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise BadInput(
                f"The embedding {quote(name)} has vectors of {vectors.shape[-1]} numbers, but the miniature's words have "
                f"{width}: it was made for another base. Choose one that was trained with --base miniature."
            )
        return vectors.float()

    @torch.inference_mode()
    def encode_from_tokens_scheduled(self, tokens: Tensor | LearnedTokens, *_, **__) -> list:
        """Return ComfyUI's conditioning of one prompt."""
        if isinstance(tokens, LearnedTokens):
            return [[tokens.encoder(tokens.tokens).clone(), {}]]
        return [[self.words(tokens).clone(), {}]]

    @property
    def cond_stage_model(self) -> NoReturn:
        """Refuse patches: LoraLoader looks for the network here.

        Raises:
            BadInput: Always.
        """
        self.clone()

    def clone(self) -> NoReturn:
        """Refuse patches.

        Raises:
            BadInput: Always.
        """
        raise BadInput("The miniature's text encoder takes no LoRA or other patch: connect Load Miniature's clip directly.")


class MiniatureEncoder:
    """The `IdentityEncoder` of the miniature: the whole picture is the portrait, and its recognizer encodes all of it.

    It is the value of the CAPFACE_READER socket that Load Miniature gives.
    """

    features = MINIATURE

    def __init__(self, recognizer: Recognizer):
        """Register the recognizer with ComfyUI."""
        self._patcher = managed(recognizer, mm.text_encoder_device(), mm.text_encoder_offload_device())

    def encoder(self, clip_vision: ClipVision | None) -> "MiniatureEncoder":
        """Return this encoder.

        Raises:
            BadInput: A CLIP_VISION is connected.
        """
        if clip_vision is not None:
            raise BadInput(
                "The miniature's reader makes its own local tokens, so it cannot use the connected CLIP_VISION. Leave "
                "clip_vision unconnected, or connect Load Face Reader to encode photos for a CapFace checkpoint."
            )
        return self

    def encode(self, images: Photos, options: EncodeOptions) -> EncodedPhotos:
        """Encode pictures of synthetic people.

        Args:
            images: B pictures, all of one size.
            options: `face_index` must be 0, unless pictures without a face pass through; `parse` must not be "on", and `given`
                must be None. The order of faces, alignment and painting have no effect.

        Raises:
            NoFaceFound: Another face than the first one is asked for.
            BadInput: `options.parse` is "on", faces are given, or the pictures have different sizes.
        """
        if options.given is not None:
            raise BadInput(
                "The miniature's reader treats the whole picture as the portrait, so it cannot use connected faces. Disconnect "
                f"{options.given.source}, or connect Load Face Reader."
            )
        if options.parse == "on":
            raise BadInput("The miniature has no face parser: set parse to auto or off.")
        found = options.face_index == 0
        if not found and options.on_no_face != "passthrough":
            raise NoFaceFound(
                "The miniature's reader treats the whole picture as a portrait of one face, so there is no face number "
                f"{options.face_index}. Set face_index to 0."
            )
        if len({image.shape for image in images}) > 1:
            raise BadInput("The miniature's reader encodes pictures of one size only. Scale them to one size.")
        images = torch.stack([image.cpu() for image in images])
        batch, _, height, width = images.shape
        if found:
            global_, local = self._recognize(images * 2 - 1)
            preview = torch.stack([side_by_side(image, image, image) for image in images])
        else:
            global_ = torch.zeros(batch, self.features.global_width)
            local = torch.zeros(batch, self.features.local_tokens, self.features.local_width)
            preview = torch.ones(batch, 3, PANEL, 3 * PANEL)
        return EncodedPhotos(
            global_,
            local,
            torch.full((batch,), found),
            preview,
            scores=[float(found)] * batch,
            areas=[float(height * width) * found] * batch,
            notes=[],
        )

    @torch.inference_mode()
    def _recognize(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Run the recognizer on `[B, 3, H, W]` in -1..1: embeddings `[B, 128]` and tokens `[B, 16, 96]` on the CPU."""
        mm.load_models_gpu([self._patcher])
        embeddings, tokens = self._patcher.model(pictures.to(self._patcher.load_device))
        return embeddings.float().cpu().clone(), tokens.float().cpu().clone()
