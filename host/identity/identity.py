"""Who a person is, as CapFace reads it, and the arithmetic on it: averaging, blending, taking parts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadInput
from ...photos.encoding import RELEASED, Features

GRID = 16
"""CLIP ViT-L/14 at 224 pixels sees 16 × 16 patches; its first token, CLS, sees them all."""
COMBINE = ("each", "mean", "median", "weighted", "best")


MINIATURE = Features("the miniature's recognizer", "the miniature's recognizer", 128, 16, 96)
"""What the miniature was trained with."""


@dataclass(frozen=True, eq=False)
class Identity:
    """Who: raw features, so that they can be saved, averaged and reused with any checkpoint. One row a person or frame."""

    global_: Tensor
    """Embeddings float32 `[B, G]`, L2-normalised; FaceNet's are `[B, 512]`."""
    local: Tensor
    """Tokens float32 `[B, N, L]`; CLIP ViT-L/14's, before the last layer norm, are `[B, 257, 1024]`. Or the first n of
    `token_order()`."""
    strength: Tensor | None = None
    """Scales of the global and of the local tokens after their projection, float32 `[B, 2]`; ones by default. A row of zeros is
    No identity."""
    references: int = 1
    """How many photos each row was read from."""
    features: Features = RELEASED
    """What they were read by."""

    def __post_init__(self):
        if self.strength is None:
            object.__setattr__(self, "strength", torch.ones(len(self.global_), 2))
        shapes = [list(t.shape) for t in (self.global_, self.local, self.strength)]
        batch, known = shapes[0][0], self.features
        tokens = shapes[1][1] if self.local.ndim == 3 else 0
        fits = shapes == [[batch, known.global_width], [batch, tokens, known.local_width], [batch, 2]]
        if not fits or tokens > known.local_tokens:
            raise BadInput(
                f"Expected identity features of shapes {known} with strengths [B, 2], "
                f"got {shapes[0]}, {shapes[1]} and {shapes[2]}: other embeddings mean nothing to CapFace."
            )

    def __len__(self):
        return len(self.global_)

    @property
    def present(self) -> Tensor:
        """Which rows are somebody: bool `[B]`."""
        return self.strength.any(dim=1)

    def token_strengths(self) -> Tensor:
        """Return each context token's scale, the image tokens first: `[B, n + 1, 1]`."""
        image = self.strength[:, 1:].expand(-1, self.local.shape[1])
        return torch.cat([image, self.strength[:, :1]], dim=1)[..., None]

    def __getitem__(self, rows) -> "Identity":
        return replace(self, global_=self.global_[rows], local=self.local[rows], strength=self.strength[rows])


def nobody(batch: int, features: Features = RELEASED) -> Identity:
    """Return no identity for a number of rows: the head alone is controlled there."""
    local = torch.zeros(batch, features.local_tokens, features.local_width)
    return Identity(torch.zeros(batch, features.global_width), local, torch.zeros(batch, 2), 0, features)


def blend(identities: Sequence[Identity], weights: Sequence[float]) -> Identity:
    """Mix identities: x = sum w_i x_i / sum w_i for tokens and strengths; FaceNet's vector is brought back to length 1.

    Rows of nobody take no part; where nobody takes part, the row stays nobody's.

    Args:
        identities: K of one or B rows; one row serves all.
        weights: K numbers from 0.

    Returns:
        B rows.

    Raises:
        BadInput: numbers of rows, tokens or weights that do not fit together, a negative weight, or none above 0.
    """
    if len(weights) != len(identities) or not identities or min(weights) < 0 or sum(weights) == 0:
        raise BadInput(
            f"Expected one weight from 0 for each of {len(identities)} identities, at least one above 0, got {list(weights)}."
        )
    batch = max(len(i) for i in identities)
    if any(len(i) not in (1, batch) for i in identities):
        raise BadInput(
            f"Expected identities of one row, or all of as many rows, got {[len(i) for i in identities]}. "
            'Combine each to one row first (Encode Identity, "combine").'
        )
    if len({i.features for i in identities}) > 1:
        raise BadInput(
            "Expected identities read by the same networks, got "
            + ", ".join(sorted({f"{i.features.global_encoder} and {i.features.local_encoder}" for i in identities}))
            + ". Read all photos with one Face Reader."
        )
    if len({i.local.shape[1] for i in identities}) > 1:
        raise BadInput(
            f"Expected identities with as many local tokens, got {[i.local.shape[1] for i in identities]}. "
            "Put Identity Parts after Blend Identities."
        )
    share = torch.stack([w * i.present.float().expand(batch) for w, i in zip(weights, identities, strict=True)])
    share = share / share.sum(0).clamp_min(torch.finfo(share.dtype).tiny)

    def mean(features):
        return sum(w.view(-1, *[1] * (x.ndim - 1)) * x for w, x in zip(share, features, strict=True))

    return Identity(
        F.normalize(mean([i.global_ for i in identities]), dim=1),
        mean([i.local for i in identities]),
        mean([i.strength for i in identities]),
        sum(i.references for i in identities),
        identities[0].features,
    )


def combine(identity: Identity, how: str, scores: Sequence[float], areas: Sequence[float]) -> Identity:
    """Make one identity of several photos of one person. Rows of nobody take no part.

    Args:
        identity: B rows.
        how: "each" keeps the rows; "mean"; "median", of each number for itself, which a single bad photo does not move;
            "weighted", the mean by the detector's scores; "best", the largest face, which has the most detail (scores hardly
            differ among good photos).
        scores: The detector's, B.
        areas: Of the faces in their photos, B.

    Returns:
        One row, or B of them for "each". FaceNet's vector has length 1 again.

    Raises:
        BadInput: for another `how`.
    """
    if how not in COMBINE:
        raise BadInput(f"Photos are combined by {', '.join(COMBINE)}, got {how!r}.")
    if how == "each":
        return identity
    kept = identity.present.nonzero()[:, 0].tolist()
    if not kept:
        return nobody(1, identity.features)
    rows = [identity[[i]] for i in kept]
    if how == "best":
        return max(zip(kept, rows, strict=True), key=lambda pair: areas[pair[0]])[1]
    if how == "median":
        middle = [t[kept].quantile(0.5, dim=0, keepdim=True) for t in (identity.global_, identity.local, identity.strength)]
        return Identity(F.normalize(middle[0], dim=1), *middle[1:], identity.references * len(rows), identity.features)
    return blend(rows, [scores[i] for i in kept] if how == "weighted" else [1.0] * len(rows))


def token_order(tokens: int = RELEASED.local_tokens) -> list[int]:
    """Return the order in which fewer local tokens are taken: CLS, then patches that are evenly spread however many there are.

    The patches follow a Bayer matrix, M_2n = [[4M, 4M + 2], [4M + 3, 4M + 1]].

    Args:
        tokens: How many there are: a square grid of a power of two a side, with a CLS token before it or without.
    """
    side = math.isqrt(tokens)
    first = tokens - side * side
    rank = torch.zeros(1, 1, dtype=torch.long)
    while len(rank) < side:
        rank = torch.cat([torch.cat([4 * rank, 4 * rank + 2], 1), torch.cat([4 * rank + 3, 4 * rank + 1], 1)])
    return [*range(first), *(rank.flatten().argsort() + first).tolist()]


def take_parts(identity: Identity, global_strength: float, local_strength: float, local_tokens: int) -> Identity:
    """Scale the parts of an identity, and leave local tokens out (the paper's tables 2 and 3).

    Args:
        identity: B rows.
        global_strength: Scale of FaceNet's token; 0 leaves it in place, multiplied by zero, as without identity.
        local_strength: Scale of the image tokens, likewise.
        local_tokens: How many image tokens stay, 0 to 257, in the order of `token_order`; the others are not there at all.

    Raises:
        BadInput: for a number of tokens out of range.
    """
    if not 0 <= local_tokens <= RELEASED.local_tokens:
        raise BadInput(f"Expected 0 to {RELEASED.local_tokens} local tokens, got {local_tokens}.")
    local, all_of_them = identity.local, identity.features.local_tokens
    if local_tokens < all_of_them == local.shape[1]:
        local = local[:, token_order(all_of_them)]
    strength = identity.strength * torch.tensor([global_strength, local_strength])
    return replace(identity, local=local[:, :local_tokens], strength=strength)
