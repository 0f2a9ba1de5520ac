"""The miniature in ComfyUI: its networks as MODEL, CLIP, VAE, CAPFACE and CAPFACE_READER, so that every node works with it."""

from dataclasses import dataclass
from typing import ClassVar

import comfy.latent_formats
import comfy.model_base
import comfy.model_detection
import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import torch
from torch import Tensor

from ..errors import BadInput
from ..miniature.networks import Miniature
from ..miniature.recognizer import Recognizer
from ..models.faces import FaceDetection, choose_face
from .capface_model import CapFaceModel, as_model
from .identity import MINIATURE, Features
from .memory import managed

NAME = "the miniature"
WHOLE_PICTURE = ((0.375, 0.472), (0.625, 0.472), (0.5, 0.6), (0.4, 0.75), (0.6, 0.75))
"""Eyes, nose and mouth corners for which FFHQ's alignment gives the picture as it is, in shares of its sides."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """What takes the places of a checkpoint, a CapFace file and a Face Reader."""

    model: comfy.model_patcher.ModelPatcher
    clip: "WordClip"
    vae: comfy.sd.VAE
    capface: CapFaceModel
    reader: "MiniatureReader"


def hand_over(miniature: Miniature) -> Loaded:
    """Give the networks to the host, which then moves them as it moves its own."""
    return Loaded(
        _base(miniature),
        WordClip(miniature),
        _autoencoder(miniature),
        as_model(miniature.capface, miniature.tokens, NAME, torch.float32),
        MiniatureReader(miniature.recognizer),
    )


class _Latents(comfy.latent_formats.LatentFormat):
    """The autoencoder's own, of unit variance already."""

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
    """The host's VAE around the autoencoder: built around its smallest network of that kind, which is then replaced."""
    size = {"double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1],
            "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}  # fmt: skip
    params = {"ddconfig": size, "embed_dim": 4}
    small = comfy.sd.AutoencoderKL(**params)
    vae = comfy.sd.VAE(sd=small.state_dict(), config={"params": params}, dtype=torch.float32)
    vae.first_stage_model = miniature.autoencoder
    vae.latent_channels = miniature.autoencoder.config.latent_channels
    vae.patcher = managed(miniature.autoencoder, vae.device, mm.vae_offload_device())
    return vae


class WordClip:
    """What Clip Text Encode needs of a CLIP, by the miniature's words. It has no weights to patch: LoRAs do not fit it."""

    def __init__(self, miniature: Miniature):
        self.words = miniature.words

    def tokenize(self, text: str, **_) -> Tensor:
        """Numbers `[1, 32]` of the words that it knows."""
        return self.words.tokenize([text])

    @torch.inference_mode()
    def encode_from_tokens_scheduled(self, tokens: Tensor, *_, **__) -> list:
        """ComfyUI's conditioning of one prompt."""
        return [[self.words(tokens).clone(), {}]]

    def clone(self):
        """Refuse what would patch it.

        Raises:
            BadInput: always.
        """
        raise BadInput("The miniature's text encoder takes no LoRA or other patch: connect Load Miniature's clip directly.")


class MiniatureReader:
    """A Face Reader whose every picture is a portrait: the recogniser looks at all of it, and nothing is searched for."""

    features: ClassVar[Features] = MINIATURE
    without_parser: ClassVar[str] = ""
    can_parse: ClassVar[bool] = False
    has_deca: ClassVar[bool] = False
    locates: ClassVar[bool] = False

    def __init__(self, recognizer: Recognizer):
        offload = mm.text_encoder_offload_device()
        self._patcher = managed(recognizer, mm.text_encoder_device(), offload)

    @property
    def clip_vision(self) -> "MiniatureReader":
        """Itself: it gives the local tokens as well."""
        return self

    def faces(self, images: Tensor, which: str, index: int) -> list[FaceDetection]:
        """One face that is the whole picture, for each of `[B, 3, H, W]`."""
        height, width = images.shape[-2:]
        size = torch.tensor([float(width), float(height)])
        face = FaceDetection(torch.cat([torch.zeros(2), size]), 1.0, torch.tensor(WHOLE_PICTURE) * size)
        return [choose_face([face], which, index, image_size=(height, width))] * len(images)

    faces_where_there_are = faces

    def embed(self, faces: Tensor) -> Tensor:
        """Embeddings `[B, 128]` on the CPU of faces `[B, 3, H, W]` as FaceNet takes them."""
        return self._read(faces * (128 / 127.5))[0]

    def encode_image(self, images: Tensor) -> dict[str, Tensor]:
        """As ComfyUI's CLIP_VISION does: images `[B, H, W, 3]` in 0..1 to tokens `[B, 16, 96]`."""
        return {"last_hidden_state": self._read(images.movedim(-1, 1) * 2 - 1)[1]}

    @torch.inference_mode()
    def _read(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        mm.load_models_gpu([self._patcher])
        embedding, tokens = self._patcher.model(pictures.to(self._patcher.load_device))
        return embedding.float().cpu().clone(), tokens.float().cpu().clone()
