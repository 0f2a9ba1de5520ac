"""The miniature's text encoder, which stands in for CLIP's: a prompt of known words becomes features for a denoiser."""

import copy
import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..shapes import Float, Int

LENGTH = 32
"""Tokens in a prompt. Further tokens are dropped."""
PADDING, COMMA = 0, 1
LEARNED = "embedding:"
"""What comes before the name of a learned word in a prompt, as in ComfyUI."""


class TextEncoder(nn.Module):
    """Encodes words as `[B, 32, C]`: each word's embedding, mixed with its neighbours'.

    The mixing keeps the colours of "red hair, blue shirt" where they belong.

    Attributes:
        vocabulary: The words it knows. Their token indices start at 2, after padding and the comma.
        learned: Vectors `[V, C]` of words that were learned later, by name (`with_learned`). Prompts name them as
            `embedding:NAME`. Their token indices are negative.
    """

    learned: Mapping[str, Tensor]

    def __init__(self, vocabulary: Sequence[str], width: int = 96):
        """Build the network.

        Args:
            vocabulary: Words in lower case.
            width: Channels of the features.
        """
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self.learned = {}
        self._indices = {word: i + 2 for i, word in enumerate(self.vocabulary)}
        # The names of the layers are keys in the miniature's file.
        self.words = nn.Embedding(len(self.vocabulary) + 2, width)
        self.places = nn.Embedding(LENGTH, width)
        self.mix = nn.Conv1d(width, width, 3, padding=1)
        self.norm = nn.LayerNorm(width)

    def with_learned(self, learned: Mapping[str, Tensor]) -> "TextEncoder":
        """Return the same network with learned words, which replace those that it has.

        Args:
            learned: Vectors `[V, C]` of each word by its name; the word takes V tokens.
        """
        other = copy.copy(self)
        other.learned = dict(learned)
        return other

    def tokenize(self, prompts: Sequence[str]) -> Int[Tensor, "B 32"]:
        """Look up the token indices of the words in prompts, int64 `[B, 32]`. Unknown words are dropped."""
        learned, first = {}, -1
        for name, vectors in self.learned.items():
            learned[name] = list(range(first, first - len(vectors), -1))
            first -= len(vectors)
        tokens = torch.full((len(prompts), LENGTH), PADDING)
        for row, prompt in zip(tokens, prompts, strict=True):
            known: list[int] = []
            for part in re.split(rf"({LEARNED}[^\s,]+)", prompt):
                if part.startswith(LEARNED):
                    known += learned.get(part.removeprefix(LEARNED), [])
                    continue
                found = [COMMA if word == "," else self._indices.get(word) for word in re.findall(r"[a-z]+|,", part.lower())]
                known += [index for index in found if index is not None]
            known = known[:LENGTH]
            row[: len(known)] = torch.tensor(known, dtype=torch.int64)
        return tokens

    def forward(self, tokens: Int[Tensor, "B 32"]) -> Float[Tensor, "B 32 C"]:
        """Encode tokens `[B, 32]` as features `[B, 32, C]`."""
        h = self.words(tokens.clamp(min=0))
        if self.learned:
            vectors = torch.cat(list(self.learned.values())).to(h)
            h = torch.where((tokens < 0)[..., None], vectors[(-1 - tokens).clamp(min=0)], h)
        h = h + self.places.weight
        return self.norm(h + self.mix(F.silu(h).transpose(1, 2)).transpose(1, 2))
