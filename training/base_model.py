"""The base model that CapFace is trained for: any Stable Diffusion 1.x checkpoint in one file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import BadFile
from ..files.checkpoint import read_state_dict
from ..files.identify import describe
from ..files.strict import load_strictly
from ..models.diffusion import Denoiser, DenoiserConfig

LATENT_SCALE = 0.18215
"""What SD1.x multiplies its autoencoder's latents by, so that their variance is about 1 (Rombach et al. 2022)."""
DENOISER, AUTOENCODER, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
SOURCE = "a Stable Diffusion 1.x checkpoint in one file, such as v1-5-pruned-emaonly.safetensors"
HEADS_OF_TEXT_ENCODER = 12


@dataclass(frozen=True, eq=False)
class Base:
    """The three frozen networks of a checkpoint."""

    denoiser: Denoiser
    autoencoder: nn.Module
    """diffusers' AutoencoderKL."""
    text_encoder: nn.Module
    """transformers' CLIPTextModel."""

    def to(self, device: torch.device | str) -> "Base":
        """Move all of it, in place."""
        for network in (self.denoiser, self.autoencoder, self.text_encoder):
            network.to(device)
        return self

    @torch.no_grad()
    def encode_pictures(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Latents z_0, drawn from the autoencoder's posterior.

        Args:
            pictures: `[B, 3, H, W]` in -1..1; H, W multiples of 8.
            generator: A CPU generator.

        Returns:
            `[B, 4, H/8, W/8]`, of about unit variance.
        """
        like = next(self.autoencoder.parameters())
        posterior = self.autoencoder.encode(pictures.to(like)).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(like.device)
        return LATENT_SCALE * (posterior.mean.float() + posterior.std.float() * noise)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures `[B, 3, H, W]` in about 0..1 of latents z_0 `[B, 4, H/8, W/8]`."""
        like = next(self.autoencoder.parameters())
        return self.autoencoder.decode((latents / LATENT_SCALE).to(like)).sample.float() / 2 + 0.5

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Text features `[B, 77, 768]` after the last layer norm, as SD1.x uses them."""
        like = next(self.text_encoder.parameters())
        return self.text_encoder(input_ids=tokenize(prompts).to(like.device)).last_hidden_state.float()


def load_base(path: str | Path) -> Base:
    """Read a checkpoint's three networks, float32 on the CPU.

    Args:
        path: A safetensors file or a torch pickle with SD1.x's keys.

    Raises:
        MissingFile: if there is no such file.
        BadFile: if it is something else, or a part of it is missing.
    """
    path = Path(path)
    state = read_state_dict(path)
    parts = {p: {k[len(p) :]: v for k, v in state.items() if k.startswith(p)} for p in (DENOISER, AUTOENCODER, TEXT)}
    for prefix, part in parts.items():
        if not part:
            raise BadFile(f"{path.name} is {describe(state)} without {prefix}*. Expected {SOURCE}.")
    denoiser = load_denoiser(parts[DENOISER], path.name)
    return Base(denoiser, _load_autoencoder(parts[AUTOENCODER], path.name), _load_text_encoder(parts[TEXT], path.name))


def load_denoiser(state: dict[str, Tensor], name: str) -> Denoiser:
    """Build the denoiser of a checkpoint, float32 on the CPU, in memory of its own.

    Args:
        state: Its tensors, keys without `model.diffusion_model.`.
        name: The file's name, for messages.

    Raises:
        BadFile: if they are not those of an SD1.x denoiser.
    """
    network = Denoiser(DenoiserConfig.from_state_dict(state), device="meta", dtype=torch.float32)
    return load_strictly(network, _own(state), file=name, kind="the SD1.x denoiser", source=SOURCE)


def _own(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Float32 copies: what stays mapped to a file would be read again at every step."""
    return {k: v.to(torch.float32, copy=True) if v.is_floating_point() else v.clone() for k, v in state.items()}


def _load_autoencoder(state: dict[str, Tensor], name: str) -> nn.Module:
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    state = {k: v for k, v in state.items() if not k.startswith(("loss.", "model_ema."))}
    try:
        levels = 1 + max(int(k.split(".")[2]) for k in state if k.startswith("encoder.down."))
        widths = [state[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)]
        blocks = len({k.split(".")[4] for k in state if k.startswith("encoder.down.0.block.")})
        latent_channels = state["post_quant_conv.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise BadFile(f"{name} holds no autoencoder of Stable Diffusion 1.x ({error}). Expected {SOURCE}.") from None
    with torch.device("meta"):
        network = AutoencoderKL(
            latent_channels=latent_channels,
            block_out_channels=widths,
            layers_per_block=blocks,
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
        )
    converted = convert_ldm_vae_checkpoint(_own({f"{AUTOENCODER}{k}": v for k, v in state.items()}), network.config)
    return load_strictly(network, converted, file=name, kind="the autoencoder of Stable Diffusion 1.x", source=SOURCE)


def _load_text_encoder(state: dict[str, Tensor], name: str) -> nn.Module:
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
        raise BadFile(f"{name} holds no text encoder of Stable Diffusion 1.x: {missing} is missing.") from None
    network = CLIPTextModel(config)  # not on the meta device: its position numbers are no parameter
    state = {k: v for k, v in _own(state).items() if not k.endswith("position_ids")}
    if not any(k.startswith(root) for k in network.state_dict()):  # transformers 5 has no inner module of that name
        state = {k.removeprefix(root): v for k, v in state.items()}
    return load_strictly(network, state, file=name, kind="the text encoder of Stable Diffusion 1.x", source=SOURCE)


def tokenize(prompts: Sequence[str]) -> Tensor:
    """CLIP's tokens `[B, 77]`, filled up with the end token, as SD1.x's text encoder was used in training."""
    from open_clip import get_tokenizer

    tokens = get_tokenizer("ViT-L-14")(list(prompts))
    end = tokens.argmax(dim=1, keepdim=True)  # the end token has the highest number
    return torch.where(torch.arange(tokens.shape[1]) > end, tokens.gather(1, end), tokens)
