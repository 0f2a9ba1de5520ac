"""A prompt of known words as features for a denoiser: the miniature's stand-in for CLIP's text encoder."""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LENGTH = 32
"""Tokens of a prompt; what is beyond is left out."""
PADDING, COMMA = 0, 1


class WordEncoder(nn.Module):
    """Words to `[B, 32, C]`: an embedding each, mixed with its neighbours', so that "red hair, blue shirt" keeps its colours.

    Attributes:
        vocabulary: The words it knows; their numbers begin at 2, after padding and the comma.
    """

    def __init__(self, vocabulary: Sequence[str], width: int = 96, *, device=None, dtype=None, operations=nn):
        """Build it.

        Args:
            vocabulary: Words in lower case.
            width: Channels of the features.
            device: Where the parameters live.
            dtype: Their type.
            operations: Namespace of the layer classes.
        """
        super().__init__()
        kw = {"device": device, "dtype": dtype}
        self.vocabulary = tuple(vocabulary)
        self._numbers = {word: i + 2 for i, word in enumerate(self.vocabulary)}
        self.words = operations.Embedding(len(self.vocabulary) + 2, width, **kw)
        self.places = operations.Embedding(LENGTH, width, **kw)
        self.mix = operations.Conv1d(width, width, 3, padding=1, **kw)
        self.norm = operations.LayerNorm(width, **kw)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Numbers of the words in prompts, int64 `[B, 32]`. Words that it does not know are left out."""
        tokens = torch.full((len(prompts), LENGTH), PADDING)
        for row, prompt in zip(tokens, prompts, strict=True):
            found = [COMMA if part == "," else self._numbers.get(part) for part in re.findall(r"[a-z]+|,", prompt.lower())]
            found = [number for number in found if number is not None][:LENGTH]
            row[: len(found)] = torch.tensor(found, dtype=torch.int64)
        return tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """Features `[B, 32, C]` of tokens `[B, 32]`."""
        h = self.words(tokens) + self.places.weight
        return self.norm(h + self.mix(F.silu(h).transpose(1, 2)).transpose(1, 2))
