"""The miniature: all networks of the method at a size that fits into the repository, trained on synthetic people.

One safetensors file holds them, each under its own key prefix. The vocabulary of the text encoder is in the metadata. The
miniature shows that the mechanism works. It does not know any real face.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import BadFile, quote
from ..files.atomic import write_atomically
from ..files.boundary import reads
from ..files.budgets import LARGEST_JSON, MOST_VOCABULARY, at_most
from ..files.checkpoint import read_safetensors
from ..files.mapped import own_copies
from ..files.strict import load_strictly
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
_AGAIN = "It comes with the pack: install it again, or train one with tasks.py."


@reads("a miniature", _AGAIN)
def load_miniature(path: Path = MINIATURE_FILE) -> Miniature:
    """Load the networks, in float32 on the CPU and frozen.

    Args:
        path: The file. By default, the one that comes with the pack.

    Raises:
        BadFile: The file is missing or not a miniature.
    """
    if not Path(path).is_file():
        raise BadFile(f"There is no miniature {quote(str(path), 200)}. {_AGAIN}")
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in _PARTS}
    name = quote(Path(path).name)
    tensors, about = read_safetensors(Path(path))
    for key, tensor in own_copies(tensors).items():
        part, _, rest = key.partition(".")
        if part in parts:
            if not tensor.numel():
                raise BadFile(f"{name} is not a miniature: {quote(key)} is empty. {_AGAIN}")
            parts[part][rest] = tensor.float()
    if "vocabulary" not in about or not all(parts.values()):
        raise BadFile(f"{name} is not a miniature: expected the networks {', '.join(_PARTS)} and a vocabulary. {_AGAIN}")
    at_most(len(about["vocabulary"]), LARGEST_JSON, "characters in its vocabulary", name)
    vocabulary = json.loads(about["vocabulary"])
    if not isinstance(vocabulary, list) or not all(isinstance(word, str) for word in vocabulary):
        raise BadFile(f"{name} is not a miniature: its vocabulary is not a list of words. {_AGAIN}")
    at_most(len(vocabulary), MOST_VOCABULARY, "words", name)
    shapes = {part: {k: tuple(v.shape) for k, v in state.items()} for part, state in parts.items()}

    def filled(build: Callable[[], Network], part: str) -> Network:
        with torch.device("meta"):
            network = build()
        return load_strictly(network, parts[part], file=name, kind=f"the miniature's {part}", source="the pack's own file")

    capface, tokens = load_capface(parts["capface"], dtype=torch.float32)
    return Miniature(
        filled(lambda: Denoiser(DenoiserConfig.from_shapes(shapes["denoiser"])), "denoiser"),
        capface,
        tokens,
        filled(lambda: Recognizer(RecognizerConfig.from_shapes(shapes["recognizer"])), "recognizer"),
        filled(lambda: TextEncoder(vocabulary, parts["words"]["norm.weight"].shape[0]), "words"),
        filled(lambda: Autoencoder(AutoencoderConfig.from_shapes(shapes["autoencoder"])), "autoencoder"),
        filled(lambda: Evaluator.from_shapes(shapes["judge"]), "judge"),
    )
