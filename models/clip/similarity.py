"""Similarity of embeddings, and agreement of images with their prompts.

Source: the paper's section 4.1. ID similarity is the cosine of FaceNet's embeddings; the CLIP score is the cosine of image and
text; prompt accuracy asks whether the right prompt scores highest.
"""

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Bool, Float


def cosine(a: Float[Tensor, "B N"], b: Float[Tensor, "#B N"]) -> Float[Tensor, " B"]:
    """Compute the cosines of paired vectors.

    Args:
        a: `[B, N]`.
        b: `[B, N]` or [1,N].

    Returns:
        `[B]`, in -1..1.

    Raises:
        BadInput: The shapes do not fit.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or b.shape[0] not in (1, a.shape[0]):
        raise BadInput(f"Expected vectors [B, N] and [B, N] or [1, N], got {list(a.shape)} and {list(b.shape)}.")
    # a·b / (|a| |b|)
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=1).clamp(-1, 1).float()


def prompt_scores(images: Float[Tensor, "B N"], texts: Float[Tensor, "P N"]) -> Float[Tensor, "B P"]:
    """Compute the CLIP scores of images for several prompts.

    Args:
        images: Embeddings `[B, N]`.
        texts: Embeddings `[P, N]`.

    Returns:
        `[B, P]`, in -1..1.

    Raises:
        BadInput: The shapes do not fit.
    """
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise BadInput(f"Expected embeddings [B, N] and [P, N], got {list(images.shape)} and {list(texts.shape)}.")
    return torch.stack([cosine(images, text[None]) for text in texts], dim=1)


def is_best(scores: Float[Tensor, "B P"]) -> Bool[Tensor, " B"]:
    """Whether the first prompt scores above all others; the mean over images is the prompt accuracy.

    Args:
        scores: `[B, P]` from `prompt_scores`, P at least 2; the first prompt is the right one.

    Returns:
        `[B]`.

    Raises:
        BadInput: There are fewer than two prompts.
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise BadInput(f"Prompt accuracy needs the scores [B, P] of two prompts or more, got {list(scores.shape)}.")
    return scores[:, 0] > scores[:, 1:].amax(1)
