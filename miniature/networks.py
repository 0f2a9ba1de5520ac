"""The miniature: all networks of the method at a size that fits into the repository, trained on synthetic people.

One safetensors file holds them, each under its own key prefix. The vocabulary of the text encoder is in the metadata. The
miniature shows that the mechanism works. It does not know any real face.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import BadFile
from ..files.atomic import write_atomically
from ..files.mapped import own_copies
from ..models.diffusion import CapFace, Denoiser, DenoiserConfig, IdentityTokens, load_capface
from .autoencoder import Autoencoder, AutoencoderConfig
from .evaluator import Evaluator
from .recognizer import Recognizer, RecognizerConfig
from .text_encoder import TextEncoder

MINIATURE_FILE = Path(__file__).with_name("miniature.safetensors")
PICTURE_SIDE = 128
"""Side of the pictures that it was trained on, in pixels."""
_PREFIXES = {
    "denoiser": "denoiser",
    "recognizer": "recognizer",
    "text_encoder": "words",
    "autoencoder": "autoencoder",
    "evaluator": "judge",
}
"""Fields of `Miniature` and the prefixes of their keys in the file. CapFace and its identity tokens share "capface"."""
_PARTS = ("denoiser", "capface", "recognizer", "words", "autoencoder", "judge")
"""All prefixes, in the order in which an error message lists them."""
HELD_OUT = 1_000_000
"""Synthetic people with this number or a higher one were held out of its training."""


@dataclass(frozen=True, eq=False)
class Miniature:
    """The networks, in float32 on the CPU."""

    denoiser: Denoiser
    """The base model eps_theta."""
    capface: CapFace
    """pi. Without an identity it also serves as pi*."""
    tokens: IdentityTokens
    recognizer: Recognizer
    text_encoder: TextEncoder
    autoencoder: Autoencoder
    evaluator: Evaluator
    """Was not used to train the other networks."""

    def save(self, path: Path, about: dict[str, str]) -> None:
        """Write all networks in half precision.

        Args:
            path: The safetensors file to write, atomically.
            about: Metadata of the file. The vocabulary is added to it.
        """
        state = {f"capface.control_model.{k}": v for k, v in self.capface.state_dict().items()}
        state |= {f"capface.{k}": v for k, v in self.tokens.state_dict().items()}
        for field, prefix in _PREFIXES.items():
            state |= {f"{prefix}.{k}": v for k, v in getattr(self, field).state_dict().items()}
        state = {k: v.detach().half().contiguous() for k, v in state.items()}
        metadata = {**about, "vocabulary": json.dumps(self.text_encoder.vocabulary)}
        write_atomically(path, lambda partial: save_file(state, partial, metadata))


Network = TypeVar("Network", bound=nn.Module)


def load_miniature(path: Path = MINIATURE_FILE) -> Miniature:
    """Load the networks, in float32 on the CPU and frozen.

    Args:
        path: The file. By default, the one that comes with the pack.

    Raises:
        BadFile: The file is missing or not a miniature.
    """
    if not Path(path).is_file():
        raise BadFile(f"There is no miniature {path}. It comes with the pack: install it again, or train one with tasks.py.")
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in _PARTS}
    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
        state = own_copies({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118  the file is not a mapping
    for key, tensor in state.items():
        name, _, rest = key.partition(".")
        if name in parts:
            parts[name][rest] = tensor.float()
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
        filled(TextEncoder(json.loads(about["vocabulary"]), parts["words"]["norm.weight"].shape[0]), "words"),
        filled(Autoencoder(AutoencoderConfig.from_shapes(shapes["autoencoder"])), "autoencoder"),
        filled(Evaluator.from_shapes(shapes["judge"]), "judge"),
    )
