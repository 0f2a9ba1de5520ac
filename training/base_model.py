"""The base model for which CapFace is trained: any Stable Diffusion 1.x checkpoint in one file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import BadFile
from ..files.checkpoint import read_state_dict
from ..files.identify import describe
from ..files.strict import load_strictly
from ..models.diffusion import Denoiser, DenoiserConfig

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

LATENT_SCALE = 0.18215
"""Factor of SD1.x for its autoencoder's latents, which gives them a variance of about 1 (Rombach et al. 2022)."""
DENOISER, AUTOENCODER, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
EXPECTED = "a Stable Diffusion 1.x checkpoint in one file, such as v1-5-pruned-emaonly.safetensors"
HEADS_OF_TEXT_ENCODER = 12
"""Attention heads of SD1.x's text encoder; its tensors do not show the number."""


@dataclass(frozen=True, eq=False)
class Base:
    """The three frozen networks of a checkpoint."""

    denoiser: Denoiser
    autoencoder: "AutoencoderKL"
    text_encoder: nn.Module
    """transformers' CLIPTextModel."""

    def to(self, device: torch.device | str) -> "Base":
        """Move the three networks to a device, in place."""
        networks: list[nn.Module] = [self.denoiser, self.autoencoder, self.text_encoder]
        for network in networks:
            network.to(device)
        return self

    @torch.no_grad()
    def encode_pictures(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Sample latents z_0 from the autoencoder's posterior.

        Args:
            pictures: `[B, 3, H, W]` in -1..1; H and W are multiples of 8.
            generator: CPU generator.

        Returns:
            `[B, 4, H/8, W/8]`, with a variance of about 1.
        """
        like = next(self.autoencoder.parameters())
        posterior = self.autoencoder.encode(pictures.to(like), return_dict=False)[0]
        noise = torch.randn(posterior.mean.shape, generator=generator).to(like.device)
        return LATENT_SCALE * (posterior.mean.float() + posterior.std.float() * noise)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents z_0 `[B, 4, H/8, W/8]` to pictures `[B, 3, H, W]` in about 0..1."""
        like = next(self.autoencoder.parameters())
        scaled = (latents / LATENT_SCALE).to(like)
        # diffusers annotates FloatTensor, a type that tensors do not have
        decoded = self.autoencoder.decode(scaled, return_dict=False)[0]  # pyright: ignore[reportArgumentType]
        return decoded.float() / 2 + 0.5

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Return the text features `[B, 77, 768]` after the last layer norm, as SD1.x uses them."""
        like = next(self.text_encoder.parameters())
        return self.text_encoder(input_ids=tokenize(prompts).to(like.device)).last_hidden_state.float()


def load_base(path: str | Path) -> Base:
    """Load the three networks of a checkpoint, float32 on the CPU.

    Args:
        path: Safetensors file or torch pickle with SD1.x's keys.

    Raises:
        MissingFile: The file is missing.
        BadFile: The file is not an SD1.x checkpoint, or a network is incomplete.
    """
    path = Path(path)
    state = read_state_dict(path)
    parts = {p: {k[len(p) :]: v for k, v in state.items() if k.startswith(p)} for p in (DENOISER, AUTOENCODER, TEXT)}
    for prefix, part in parts.items():
        if not part:
            raise BadFile(f"{path.name} is {describe(state)} without {prefix}*. Expected {EXPECTED}.")
    denoiser = load_denoiser(parts[DENOISER], path.name)
    return Base(denoiser, _load_autoencoder(parts[AUTOENCODER], path.name), _load_text_encoder(parts[TEXT], path.name))


def load_denoiser(state: dict[str, Tensor], name: str) -> Denoiser:
    """Build the denoiser of a checkpoint, float32 on the CPU; its tensors are copied.

    Args:
        state: Its tensors, with keys without `model.diffusion_model.`.
        name: Name of the file, for messages.

    Raises:
        BadFile: The tensors are not those of an SD1.x denoiser.
    """
    network = Denoiser(DenoiserConfig.from_state_dict(state), device="meta", dtype=torch.float32)
    return load_strictly(network, _copies(state), file=name, kind="the SD1.x denoiser", source=EXPECTED)


def _copies(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors as float32: tensors that stay mapped to a file would be read again at every step."""
    return {k: v.to(torch.float32, copy=True) if v.is_floating_point() else v.clone() for k, v in state.items()}


def _load_autoencoder(state: dict[str, Tensor], name: str) -> "AutoencoderKL":
    """Build diffusers' AutoencoderKL from the tensors of a checkpoint."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    state = {k: v for k, v in state.items() if not k.startswith(("loss.", "model_ema."))}
    try:
        levels = 1 + max(int(k.split(".")[2]) for k in state if k.startswith("encoder.down."))
        widths = [state[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)]
        blocks = len({k.split(".")[4] for k in state if k.startswith("encoder.down.0.block.")})
        latent_channels = state["post_quant_conv.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise BadFile(f"{name} contains no valid autoencoder of Stable Diffusion 1.x ({error}). Expected {EXPECTED}.") from None
    with torch.device("meta"):
        network = AutoencoderKL(
            latent_channels=latent_channels,
            # diffusers annotates these tuples as having one element
            block_out_channels=tuple(widths),  # pyright: ignore[reportArgumentType]
            layers_per_block=blocks,
            down_block_types=("DownEncoderBlock2D",) * levels,  # pyright: ignore[reportArgumentType]
            up_block_types=("UpDecoderBlock2D",) * levels,  # pyright: ignore[reportArgumentType]
        )
    converted = convert_ldm_vae_checkpoint(_copies({f"{AUTOENCODER}{k}": v for k, v in state.items()}), network.config)
    return load_strictly(network, converted, file=name, kind="the autoencoder of Stable Diffusion 1.x", source=EXPECTED)


def _load_text_encoder(state: dict[str, Tensor], name: str) -> nn.Module:
    """Build transformers' CLIPTextModel from the tensors of a checkpoint."""
    from transformers import CLIPTextConfig, CLIPTextModel

    root = "text_model."
    try:
        vocabulary, width = state[f"{root}embeddings.token_embedding.weight"].shape
        config = CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=state[f"{root}encoder.layers.0.mlp.fc1.weight"].shape[0],
            num_hidden_layers=1 + max(int(k.split(".")[3]) for k in state if k.startswith(f"{root}encoder.layers.")),
            num_attention_heads=HEADS_OF_TEXT_ENCODER,
            max_position_embeddings=state[f"{root}embeddings.position_embedding.weight"].shape[0],
            hidden_act="quick_gelu",
            bos_token_id=49406,
            eos_token_id=49407,
        )
    except KeyError as missing:
        raise BadFile(f"{name} contains no complete text encoder of Stable Diffusion 1.x: {missing} is missing.") from None
    network = CLIPTextModel(config)  # not on the meta device: its position indices are not a parameter
    state = {k: v for k, v in _copies(state).items() if not k.endswith("position_ids")}
    if not any(k.startswith(root) for k in network.state_dict()):  # transformers 5 has no inner module of that name
        state = {k.removeprefix(root): v for k, v in state.items()}
    return load_strictly(network, state, file=name, kind="the text encoder of Stable Diffusion 1.x", source=EXPECTED)


def tokenize(prompts: Sequence[str]) -> Tensor:
    """Return CLIP's tokens `[B, 77]`, padded with the end token, as in the training of SD1.x."""
    from open_clip import get_tokenizer

    tokens = get_tokenizer("ViT-L-14")(list(prompts))
    end = tokens.argmax(dim=1, keepdim=True)  # the end token has the highest index
    return torch.where(torch.arange(tokens.shape[1]) > end, tokens.gather(1, end), tokens)
