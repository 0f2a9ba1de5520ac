"""What training on one person needs of a base model: a Stable Diffusion 1.x checkpoint, or the miniature."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...errors import BadInput
from ...files.checkpoint import read_state_dict
from ...miniature.networks import PICTURE_SIDE, Miniature, load_miniature
from ...miniature.text_encoder import LEARNED, LENGTH
from ...models.diffusion import Denoiser
from ..base_model import DENOISER, LATENT_SCALE, TEXT, Base, load_base, tokenize

MINIATURE = "miniature"
"""Name of the miniature in place of a checkpoint's path."""
SUBJECT = "{}"
"""Mark in a caption where the person is named."""
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""Layers of the denoiser's attention, to which a LoRA adds."""
TEXT_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")
"""The same of CLIP's text encoder."""
_TEXT_ROOT = "text_model."
"""Beginning of the text encoder's keys in a checkpoint. transformers 5 leaves it out."""


class Tunable(ABC):
    """A base model whose parts can be trained on one person.

    Attributes:
        name: Of the base, for the settings of a run.
        denoiser: eps_theta.
        text_encoder: Makes text features of tokens.
        side: Side of the pictures that it was trained on, in pixels.
        weighting: Weight of each timestep's error in its own training, one of `schedule.WEIGHTS`.
        rates: Learning rate by method.
        steps: Number of steps by method.
        captions: What the photo is called, with `SUBJECT`.
        start: Word with whose vectors a new word begins.
    """

    name: str
    denoiser: Denoiser
    text_encoder: nn.Module
    side: int
    weighting: str
    rates: ClassVar[Mapping[str, float]]
    steps: ClassVar[Mapping[str, int]]
    captions: Sequence[str]
    start: str

    @abstractmethod
    def encode_picture(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation `[1, C, h, w]` of the latents of a picture `[1, 3, H, W]` in -1..1."""

    @abstractmethod
    def tokenize(self, caption: str, subject: str, vectors: int) -> Tensor:
        """Return the tokens of a caption, int64 `[N]`.

        Args:
            caption: The caption; `SUBJECT` in it is replaced.
            subject: Words in place of `SUBJECT`, if there are no vectors.
            vectors: Number of learned vectors in place of `SUBJECT`. The i-th one is token -1 - i.

        Raises:
            BadInput: The caption is too long.
        """

    @abstractmethod
    def encode_text(self, tokens: Tensor, vectors: Tensor | None) -> Tensor:
        """Return the text features `[B, N, W]` of tokens `[B, N]`, with gradients.

        Args:
            tokens: From `tokenize`.
            vectors: Vectors `[V, W]` of the negative tokens.
        """

    @abstractmethod
    def vectors_of(self, word: str) -> Tensor:
        """Return the embeddings `[V, W]` of the tokens of a word, to begin with.

        Raises:
            BadInput: The base does not know the word.
        """

    @abstractmethod
    def text_layers(self) -> dict[str, nn.Linear]:
        """Return the layers of the text encoder to which a LoRA adds, by their keys in its file.

        Raises:
            BadInput: ComfyUI cannot patch this base's text encoder.
        """

    @abstractmethod
    def whole_file(self, trained: Mapping[str, Tensor], text: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Return the tensors of a file that gives ComfyUI trained networks.

        Args:
            trained: Tensors of the denoiser by its own keys.
            text: Tensors of the text encoder by its own keys; None if it was not trained.
        """

    def layers(self) -> dict[str, nn.Linear]:
        """Return the layers of the denoiser to which a LoRA adds, by their keys in its file."""
        return lora_layers(self.denoiser)


def lora_layers(denoiser: Denoiser) -> dict[str, nn.Linear]:
    """Return the attention's layers of a denoiser by their keys in a LoRA file, which follow diffusers' names.

    Args:
        denoiser: eps_theta.
    """
    found = {}
    for name, module in denoiser.named_modules():
        if isinstance(module, nn.Linear) and any(name.endswith(f".{layer}") for layer in ATTENTION):
            part, block, *rest = name.split(".")
            blocks = denoiser.config.num_res_blocks + 1
            if part == "middle_block":
                place = "mid_block_attentions_0"
            else:
                level, at = divmod(int(block) - (part == "input_blocks"), blocks)
                place = f"{'down' if part == 'input_blocks' else 'up'}_blocks_{level}_attentions_{at}"
            inner = rest if part == "middle_block" else rest[1:]
            found["_".join(["lora_unet", place, *inner])] = module
    return found


class TunableCheckpoint(Tunable):
    """A Stable Diffusion 1.x checkpoint in one file."""

    side = 512
    weighting = "eps"
    rates: ClassVar = {"lora": 1e-4, "word": 5e-3, "whole": 5e-6}
    steps: ClassVar = {"lora": 500, "word": 1500, "whole": 400}
    captions = ("a photo of {}", "a portrait of {}", "a close-up photo of {}", "a good photo of {}", "a photo of {}, outdoors")
    start = "person"

    def __init__(self, path: Path):
        """Load the checkpoint, see `load_base`."""
        self.path = path
        self.base: Base = load_base(path)
        self.name = f"{path.name}, {path.stat().st_size} bytes"
        self.denoiser, self.text_encoder = self.base.denoiser, self.base.text_encoder

    @torch.no_grad()
    def encode_picture(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """See `Tunable`."""
        posterior = self.base.autoencoder.encode(picture, return_dict=False)[0]
        return LATENT_SCALE * posterior.mean, LATENT_SCALE * posterior.std

    def tokenize(self, caption: str, subject: str, vectors: int) -> Tensor:
        """See `Tunable`."""
        parts = caption.split(SUBJECT) if vectors else [caption.replace(SUBJECT, subject)]
        start, end, length = 49406, 49407, 77
        ids: list[int] = []
        for i, part in enumerate(parts):
            ids += [-1 - n for n in range(vectors)] if i else []
            ids += self._content(part)
        if len(ids) > length - 2:
            raise BadInput(f"The caption {caption[:60]!r} has {len(ids)} tokens, expected at most {length - 2}: shorten it.")
        return torch.tensor([start, *ids, *[end] * (length - 1 - len(ids))])

    @staticmethod
    def _content(text: str) -> list[int]:
        """Return CLIP's tokens of a text without start and end."""
        row = tokenize([text])[0].tolist()[1:]
        return row[: row.index(49407)] if 49407 in row else row

    def encode_text(self, tokens: Tensor, vectors: Tensor | None) -> Tensor:
        """See `Tunable`."""
        if vectors is None:
            return self.text_encoder(input_ids=tokens).last_hidden_state
        learned = tokens < 0

        def replace(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            return torch.where(learned[..., None], vectors[(-1 - tokens).clamp(min=0)].to(out), out)

        with _hooked(self._table(), replace):
            return self.text_encoder(input_ids=tokens.clamp(min=0)).last_hidden_state

    def _table(self) -> nn.Embedding:
        """Return the token embeddings of CLIP."""
        tables = (module for module in self.text_encoder.modules() if isinstance(module, nn.Embedding))
        return max(tables, key=lambda table: table.num_embeddings)  # the other one is that of positions

    def vectors_of(self, word: str) -> Tensor:
        """See `Tunable`."""
        ids = self._content(word)
        if not ids:
            raise BadInput(f"Expected a word to begin with, got {word!r}.")
        return self._table().weight[ids].detach().clone()

    def text_layers(self) -> dict[str, nn.Linear]:
        """See `Tunable`."""
        found = {}
        for name, module in self.text_encoder.named_modules():
            if isinstance(module, nn.Linear) and any(name.endswith(f".{layer}") for layer in TEXT_ATTENTION):
                found["lora_te_" + (_TEXT_ROOT + name.removeprefix(_TEXT_ROOT)).replace(".", "_")] = module
        return found

    def whole_file(self, trained: Mapping[str, Tensor], text: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """See `Tunable`. The checkpoint with the trained tensors in place of its own."""
        state = read_state_dict(self.path)
        new = {DENOISER + key: tensor for key, tensor in trained.items()}
        for key, tensor in (text or {}).items():
            new[f"{TEXT}{_TEXT_ROOT}{key.removeprefix(_TEXT_ROOT)}"] = tensor
        return {key: new.get(key, tensor) for key, tensor in state.items()}


class TunableMiniature(Tunable):
    """The miniature. Its text encoder learns words, and nothing else."""

    name = MINIATURE
    side = PICTURE_SIDE
    weighting = "inverse_alpha"
    rates: ClassVar = {"lora": 2e-3, "word": 3e-2, "whole": 1e-4}
    steps: ClassVar = {"lora": 50, "word": 200, "whole": 25}
    captions = (SUBJECT,)
    start = ""

    def __init__(self, miniature: Miniature | None = None):
        """Take the miniature, by default the one that comes with the pack."""
        self.miniature = miniature or load_miniature()
        self.denoiser, self.text_encoder = self.miniature.denoiser, self.miniature.text_encoder
        self._before = {key: tensor.clone() for key, tensor in self.denoiser.state_dict().items()}

    @torch.no_grad()
    def encode_picture(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """See `Tunable`. Its autoencoder has no noise."""
        mean = self.miniature.autoencoder.encode(picture)
        return mean, torch.zeros_like(mean)

    def tokenize(self, caption: str, subject: str, vectors: int) -> Tensor:
        """See `Tunable`."""
        width = self.miniature.denoiser.config.context_width
        encoder = self.miniature.text_encoder.with_learned({"subject": torch.zeros(vectors, width)})
        text = caption.replace(SUBJECT, f" {LEARNED}subject " if vectors else subject)
        tokens = encoder.tokenize([text])[0]
        if int((tokens < 0).sum()) != vectors * caption.count(SUBJECT) * bool(vectors):
            raise BadInput(f"The caption {caption[:60]!r} is too long: the miniature reads {LENGTH} words. Shorten it.")
        return tokens

    def encode_text(self, tokens: Tensor, vectors: Tensor | None) -> Tensor:
        """See `Tunable`."""
        encoder = self.miniature.text_encoder
        return (encoder if vectors is None else encoder.with_learned({"subject": vectors}))(tokens)

    def vectors_of(self, word: str) -> Tensor:
        """See `Tunable`. Without a word, the mean of all words that it knows."""
        encoder = self.miniature.text_encoder
        table = encoder.words.weight.detach()
        if not word:
            return table[2:].mean(0, keepdim=True).clone()
        ids = [token for token in encoder.tokenize([word])[0].tolist() if token > 1]
        if not ids:
            raise BadInput(f"The miniature does not know the word {word!r}. Expected words such as Synthetic Person gives.")
        return table[ids].clone()

    def text_layers(self) -> dict[str, nn.Linear]:
        """Refuse."""
        raise BadInput("The miniature's text encoder takes no LoRA or other weights: leave out --text.")

    def whole_file(self, trained: Mapping[str, Tensor], text: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """See `Tunable`. The differences from the miniature's weights, for LoraLoaderModelOnly: it has no checkpoint."""
        return {
            f"diffusion_model.{key.removesuffix('.weight').removesuffix('.bias')}.diff{'_b' if key.endswith('.bias') else ''}":
            tensor.detach().cpu() - self._before[key]
            for key, tensor in trained.items()
        }  # fmt: skip


@contextmanager
def _hooked(module: nn.Module, hook: Callable[..., Tensor]) -> Iterator[None]:
    """Change the outputs of a module within the context."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def load_tunable(base: str) -> Tunable:
    """Load a base model.

    Args:
        base: Path of a Stable Diffusion 1.x checkpoint, or `MINIATURE`.

    Raises:
        MissingFile: The file is missing.
        BadFile: The file is not an SD1.x checkpoint.
    """
    return TunableMiniature() if base == MINIATURE else TunableCheckpoint(Path(base))
