"""The miniature: all networks of the method at a size that fits into the repository, trained on synthetic people.

One safetensors file holds them, each under its name; the words of its prompts are in the metadata. It shows that the mechanism
works; it knows no real face.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ..errors import BadFile
from ..files.atomic import write_atomically
from ..models.diffusion import CapFace, Denoiser, DenoiserConfig, IdentityTokens, load_capface
from .autoencoder import Autoencoder, AutoencoderConfig
from .evaluator import Judge
from .recognizer import Recognizer, RecognizerConfig
from .text_encoder import WordEncoder

PATH = Path(__file__).with_name("miniature.safetensors")
PICTURE = 128
"""Side of the pictures that it was trained on, in pixels."""
_PARTS = ("denoiser", "capface", "recognizer", "words", "autoencoder", "judge")
HELD_OUT = 1_000_000
"""Numbers of synthetic people from here on were kept from its training."""


@dataclass(frozen=True, eq=False)
class Miniature:
    """The networks, in float32 on the CPU."""

    denoiser: Denoiser
    """eps_theta"""
    capface: CapFace
    """pi; without identity it is pi* as well."""
    tokens: IdentityTokens
    recognizer: Recognizer
    words: WordEncoder
    autoencoder: Autoencoder
    judge: Judge
    """Took no part in training the others."""

    def save(self, path: Path, about: dict[str, str]) -> None:
        """Write all networks in half precision, with what there is to say about them."""
        state = {f"capface.control_model.{k}": v for k, v in self.capface.state_dict().items()}
        state |= {f"capface.{k}": v for k, v in self.tokens.state_dict().items()}
        for name in ("denoiser", "recognizer", "words", "autoencoder", "judge"):
            state |= {f"{name}.{k}": v for k, v in getattr(self, name).state_dict().items()}
        state = {k: v.detach().half().contiguous() for k, v in state.items()}
        metadata = {**about, "vocabulary": json.dumps(self.words.vocabulary)}
        write_atomically(path, lambda partial: save_file(state, partial, metadata))


Network = TypeVar("Network", bound=nn.Module)


def load_miniature(path: Path = PATH) -> Miniature:
    """Load the networks.

    Args:
        path: The file; the one that comes with the pack by default.

    Raises:
        BadFile: if it is not there, or not a miniature.
    """
    if not Path(path).is_file():
        raise BadFile(f"There is no miniature {path}. It comes with the pack: install it again, or train one with tasks.py.")
    parts = {name: {} for name in _PARTS}
    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
        for key in file.keys():  # noqa: SIM118  no mapping
            name, _, rest = key.partition(".")
            if name in parts:
                parts[name][rest] = file.get_tensor(key).float()
    if "vocabulary" not in about or not all(parts.values()):
        raise BadFile(f"{path} is not a miniature: expected the networks {', '.join(_PARTS)} and a vocabulary.")
    shapes = {name: {k: tuple(v.shape) for k, v in state.items()} for name, state in parts.items()}

    def filled(network: Network, name: str) -> Network:
        network.load_state_dict(parts[name])
        return network.eval().requires_grad_(False)

    capface, tokens = load_capface(parts["capface"], dtype=torch.float32)
    return Miniature(
        filled(Denoiser(DenoiserConfig.from_shapes(shapes["denoiser"])), "denoiser"),
        capface.eval().requires_grad_(False),
        tokens.eval().requires_grad_(False),
        filled(Recognizer(RecognizerConfig.from_shapes(shapes["recognizer"])), "recognizer"),
        filled(WordEncoder(json.loads(about["vocabulary"]), parts["words"]["norm.weight"].shape[0]), "words"),
        filled(Autoencoder(AutoencoderConfig.from_shapes(shapes["autoencoder"])), "autoencoder"),
        filled(Judge.from_shapes(shapes["judge"]), "judge"),
    )
