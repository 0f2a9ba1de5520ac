"""Numbers that say how alike two embeddings are, and whether an image shows what its prompt says.

Source: the paper's section 4.1. ID similarity is the cosine of FaceNet's embeddings; the CLIP score is the cosine of image and
text; prompt accuracy asks whether the right prompt scores highest.
"""

import torch
from torch import Tensor

from ...errors import BadInput


def cosine(a, b):
    """Cosines of paired vectors.

    Args:
        a: Shape [B,N].
        b: Shape [B,N] or [1,N].

    Returns:
        Shape [B], in -1..1.

    Raises:
        BadInput: For other shapes.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or b.shape[0] not in (1, a.shape[0]):
        raise BadInput(f"Expected vectors [B,N] and [B,N] or [1,N], got {list(a.shape)} and {list(b.shape)}.")
    # a·b / (|a| |b|)
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=1).clamp(-1, 1).float()


def prompt_scores(images, texts):
    """CLIP scores of images under several prompts.

    Args:
        images: Embeddings [B,N].
        texts: Embeddings [P,N].

    Returns:
        Shape [B,P], in -1..1.

    Raises:
        BadInput: For other shapes.
    """
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise BadInput(f"Expected embeddings [B,N] and [P,N], got {list(images.shape)} and {list(texts.shape)}.")
    return torch.stack([cosine(images, text[None]) for text in texts], dim=1)


def is_best(scores: Tensor, right: int = 0):
    """Whether the right prompt scores above every other; its mean over images is the prompt accuracy.

    Args:
        scores: Shape [B,P] from `prompt_scores`, P at least 2.
        right: Which of the prompts is the right one.

    Returns:
        Bools [B].

    Raises:
        BadInput: When there is nothing to choose from.
    """
    if scores.ndim != 2 or scores.shape[1] < 2 or not 0 <= right < scores.shape[1]:
        raise BadInput(f"Prompt accuracy needs the scores [B,P] of two prompts or more, got {list(scores.shape)}.")
    others = torch.cat([scores[:, :right], scores[:, right + 1 :]], dim=1)
    return scores[:, right] > others.amax(1)
