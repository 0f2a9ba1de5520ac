"""A person's identity features, and arithmetic on them: averaging, blending, taking parts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadInput
from ...models.diffusion import token_factors
from ...photos.encoding import RELEASED, Features

GRID = 16
"""Side of the patch grid of CLIP ViT-L/14 at 224 pixels. Its first token, CLS, belongs to all patches."""
COMBINE = ("each", "mean", "median", "weighted", "best")
"""The ways of combining photos, see `combine`."""
LARGEST_STRENGTH = 1000.0
"""Largest magnitude of a strength. Identity Parts multiplies strengths of up to 10."""
MINIATURE = Features("the miniature's recognizer", "the miniature's recognizer", 128, 16, 96)
"""The features that the miniature was trained with."""


@dataclass(frozen=True, eq=False)
class Identity:
    """Raw identity features, which can be saved, averaged and reused with any checkpoint. One row per person or frame.

    A row whose strengths are both 0 is a null identity: only the head is controlled there.
    """

    global_: Tensor
    """Embeddings float32 `[B, G]`, L2-normalised; FaceNet's are `[B, 512]`."""
    local: Tensor
    """Tokens float32 `[B, N, L]`, all of them or the first N of `token_order()`; CLIP ViT-L/14's, before the last layer norm,
    are `[B, 257, 1024]`."""
    strength: Tensor = None  # pyright: ignore[reportAssignmentType]  # set in __post_init__
    """Scales of the global and of the local tokens after their projection, float32 `[B, 2]`; ones by default."""
    references: int = 1
    """Number of photos behind each row."""
    features: Features = RELEASED
    """The encoders of the features."""

    def __post_init__(self) -> None:
        if self.strength is None:
            object.__setattr__(self, "strength", torch.ones(len(self.global_) if self.global_.ndim else 0, 2))
        parts = {part: getattr(self, part) for part in ("global_", "local", "strength")}
        shapes = [list(tensor.shape) for tensor in parts.values()]
        batch, known = shapes[0][0] if shapes[0] else 0, self.features
        tokens = shapes[1][1] if self.local.ndim == 3 else 0
        fits = shapes == [[batch, known.global_width], [batch, tokens, known.local_width], [batch, 2]]
        if not fits or tokens > known.local_tokens or not batch:
            raise BadInput(
                f"Expected identity features of shapes {known} with strengths [B, 2], "
                f"got {shapes[0]}, {shapes[1]} and {shapes[2]}: CapFace cannot use other embeddings."
            )
        for part, tensor in parts.items():
            if not torch.isfinite(tensor).all():
                raise BadInput(f"Expected identity features of finite numbers, got NaN or infinity in {part.strip('_')}.")
        if self.strength.abs().max() > LARGEST_STRENGTH:
            raise BadInput(
                f"Expected strengths of an identity up to {LARGEST_STRENGTH:g}, got {self.strength.abs().max().item():g}."
            )

    def __len__(self) -> int:
        return len(self.global_)

    @property
    def present(self) -> Tensor:
        """Which rows are not null identities: bool `[B]`."""
        return self.strength.any(dim=1)

    def token_strengths(self) -> Tensor:
        """Return each context token's scale, the image tokens first: `[B, n + 1, 1]`."""
        return token_factors(self.strength[:, 1], self.strength[:, 0], self.local.shape[1])

    def __getitem__(self, rows: Sequence[int] | slice | Tensor) -> "Identity":
        """Return some of the rows."""
        return replace(self, global_=self.global_[rows], local=self.local[rows], strength=self.strength[rows])


def null_identity(batch: int, features: Features = RELEASED) -> Identity:
    """Return null identities, `batch` rows: only the head is controlled there."""
    local = torch.zeros(batch, features.local_tokens, features.local_width)
    return Identity(torch.zeros(batch, features.global_width), local, torch.zeros(batch, 2), 0, features)


def blend(identities: Sequence[Identity], weights: Sequence[float]) -> Identity:
    """Mix identities: x = sum w_i x_i / sum w_i for tokens and strengths; FaceNet's vector is normalised to length 1.

    Null identities are left out; a row of null identities only stays a null identity.

    Args:
        identities: K identities of 1 or B rows; a single row is repeated.
        weights: K numbers of at least 0.

    Returns:
        B rows.

    Raises:
        BadInput: The numbers of rows, tokens or weights do not match, a weight is negative, or no weight is above 0.
    """
    if len(weights) != len(identities) or not identities or min(weights) < 0 or sum(weights) == 0:
        raise BadInput(
            f"Expected one weight of at least 0 for each of {len(identities)} identities, not all 0, got {list(weights)}."
        )
    batch = max(len(i) for i in identities)
    if any(len(i) not in (1, batch) for i in identities):
        raise BadInput(
            f"Expected identities with one row each or with equal numbers of rows, got {[len(i) for i in identities]}. "
            'Combine each of them to one row first (Encode Identity, "combine").'
        )
    if len({i.features for i in identities}) > 1:
        raise BadInput(
            "Expected identities that were encoded by the same networks, got "
            + ", ".join(sorted({f"{i.features.global_encoder} and {i.features.local_encoder}" for i in identities}))
            + ". Encode all photos with the same Face Reader."
        )
    if len({i.local.shape[1] for i in identities}) > 1:
        raise BadInput(
            f"Expected identities with equal numbers of local tokens, got {[i.local.shape[1] for i in identities]}. "
            "Put Identity Parts after Blend Identities."
        )
    fractions = torch.stack([w * i.present.float().expand(batch) for w, i in zip(weights, identities, strict=True)])
    fractions = fractions / fractions.sum(0).clamp_min(torch.finfo(fractions.dtype).tiny)

    def mean(values: list[Tensor]) -> Tensor:
        terms = [w.view(-1, *[1] * (x.ndim - 1)) * x for w, x in zip(fractions, values, strict=True)]
        return sum(terms[1:], start=terms[0])

    return Identity(
        F.normalize(mean([i.global_ for i in identities]), dim=1),
        mean([i.local for i in identities]),
        mean([i.strength for i in identities]),
        sum(i.references for i in identities),
        identities[0].features,
    )


def combine(identity: Identity, how: str, scores: Sequence[float], areas: Sequence[float]) -> Identity:
    """Combine several photos of one person to one identity. Null identities are left out.

    Args:
        identity: B rows.
        how: One of `COMBINE`. "each" keeps the rows; "mean"; "median" is taken of each value separately, so that a single bad
            photo does not move it; "weighted" is the mean weighted by the detection scores; "best" is the largest face, which
            has the most detail (scores hardly differ among good photos).
        scores: B detection scores.
        areas: B areas of the faces in their photos.

    Returns:
        One row, or B rows for "each". FaceNet's vectors have length 1.

    Raises:
        BadInput: `how` is unknown.
    """
    if how not in COMBINE:
        raise BadInput(f"combine must be one of {', '.join(COMBINE)}, got {how!r}.")
    if how == "each":
        return identity
    kept = identity.present.nonzero()[:, 0].tolist()
    if not kept:
        return null_identity(1, identity.features)
    rows = [identity[[i]] for i in kept]
    if how == "best":
        return max(zip(kept, rows, strict=True), key=lambda pair: areas[pair[0]])[1]
    if how == "median":
        tensors = (identity.global_, identity.local, identity.strength)
        global_, local, strength = (t[kept].quantile(0.5, dim=0, keepdim=True) for t in tensors)
        references = identity.references * len(rows)
        return Identity(F.normalize(global_, dim=1), local, strength, references, identity.features)
    return blend(rows, [scores[i] for i in kept] if how == "weighted" else [1.0] * len(rows))


def token_order(tokens: int = RELEASED.local_tokens) -> list[int]:
    """Return the order in which local tokens are kept if there are fewer: CLS, then patches that are always evenly spread.

    The patches follow a Bayer matrix, M_2n = [[4M, 4M + 2], [4M + 3, 4M + 1]].

    Args:
        tokens: The number of tokens: a square grid whose side is a power of two, with or without a CLS token before it.

    Returns:
        The indices of all tokens.
    """
    side = math.isqrt(tokens)
    first = tokens - side * side
    rank = torch.zeros(1, 1, dtype=torch.long)
    while len(rank) < side:
        rank = torch.cat([torch.cat([4 * rank, 4 * rank + 2], 1), torch.cat([4 * rank + 3, 4 * rank + 1], 1)])
    return [*range(first), *(rank.flatten().argsort() + first).tolist()]


def take_parts(identity: Identity, global_strength: float, local_strength: float, local_tokens: int) -> Identity:
    """Scale the parts of an identity, and drop local tokens (the paper's tables 2 and 3).

    Args:
        identity: B rows.
        global_strength: Scale of FaceNet's token; 0 keeps it in place as zeros, as without identity.
        local_strength: Scale of the image tokens, likewise.
        local_tokens: Number of image tokens that are kept, 0 to 257, in the order of `token_order`; the others are removed.

    Returns:
        B rows.

    Raises:
        BadInput: The number of tokens is out of range.
    """
    if not 0 <= local_tokens <= RELEASED.local_tokens:
        raise BadInput(f"Expected 0 to {RELEASED.local_tokens} local tokens, got {local_tokens}.")
    local, total = identity.local, identity.features.local_tokens
    if local.shape[1] == total and local_tokens < total:
        local = local[:, token_order(total)]
    strength = identity.strength * torch.tensor([global_strength, local_strength])
    return replace(identity, local=local[:, :local_tokens], strength=strength)
