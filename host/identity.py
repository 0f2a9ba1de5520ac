"""Who a person is, as CapFace reads it, and the arithmetic on it: averaging, blending, taking parts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadInput

GLOBAL_WIDTH = 512
LOCAL_TOKENS, LOCAL_WIDTH = 257, 1024
GRID = 16
"""CLIP ViT-L/14 at 224 pixels sees 16 × 16 patches; its first token, CLS, sees them all."""
COMBINE = ("each", "mean", "median", "weighted", "best")


@dataclass(frozen=True, eq=False)
class Identity:
    """Who: raw features, so that they can be saved, averaged and reused with any checkpoint. One row a person or frame."""

    global_: Tensor
    """FaceNet embeddings float32 `[B, 512]`, L2-normalised."""
    local: Tensor
    """CLIP ViT-L/14 tokens before the last layer norm, float32 `[B, 257, 1024]`, or the first n of `token_order()`."""
    strength: Tensor | None = None
    """Scales of the global and of the local tokens after their projection, float32 `[B, 2]`; ones by default. A row of zeros is
    ∅, no identity."""
    references: int = 1
    """How many photos each row was read from."""

    def __post_init__(self):
        if self.strength is None:
            object.__setattr__(self, "strength", torch.ones(len(self.global_), 2))
        shapes = [list(t.shape) for t in (self.global_, self.local, self.strength)]
        batch = shapes[0][0]
        tokens = shapes[1][1] if self.local.ndim == 3 else 0
        if shapes != [[batch, GLOBAL_WIDTH], [batch, tokens, LOCAL_WIDTH], [batch, 2]] or tokens > LOCAL_TOKENS:
            raise BadInput(
                f"Expected identity features of shapes [B, {GLOBAL_WIDTH}] (FaceNet trained on VGGFace2) and "
                f"[B, {LOCAL_TOKENS}, {LOCAL_WIDTH}] (CLIP ViT-L/14, last hidden state) with strengths [B, 2], "
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


def nobody(batch: int) -> Identity:
    """Return ∅ for a number of rows: the head alone is controlled there."""
    return Identity(torch.zeros(batch, GLOBAL_WIDTH), torch.zeros(batch, LOCAL_TOKENS, LOCAL_WIDTH), torch.zeros(batch, 2), 0)


def blend(identities: Sequence[Identity], weights: Sequence[float]) -> Identity:
    """Mix identities: x = Σ wᵢ xᵢ / Σ wᵢ for tokens and strengths; FaceNet's vector is brought back to length 1.

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
        return nobody(1)
    rows = [identity[[i]] for i in kept]
    if how == "best":
        return max(zip(kept, rows, strict=True), key=lambda pair: areas[pair[0]])[1]
    if how == "median":
        middle = [t[kept].quantile(0.5, dim=0, keepdim=True) for t in (identity.global_, identity.local, identity.strength)]
        return Identity(F.normalize(middle[0], dim=1), *middle[1:], identity.references * len(rows))
    return blend(rows, [scores[i] for i in kept] if how == "weighted" else [1.0] * len(rows))


def token_order() -> list[int]:
    """Return the order in which fewer local tokens are taken: CLS, then patches that are evenly spread however many there are.

    The patches follow a Bayer matrix, M₂ₙ = [[4M, 4M + 2], [4M + 3, 4M + 1]].
    """
    rank = torch.zeros(1, 1, dtype=torch.long)
    while len(rank) < GRID:
        rank = torch.cat([torch.cat([4 * rank, 4 * rank + 2], 1), torch.cat([4 * rank + 3, 4 * rank + 1], 1)])
    return [0, *(rank.flatten().argsort() + 1).tolist()]


def take_parts(identity: Identity, global_strength: float, local_strength: float, local_tokens: int) -> Identity:
    """Scale the parts of an identity, and leave local tokens out (the paper's tables 2 and 3).

    Args:
        identity: B rows.
        global_strength: Scale of FaceNet's token; 0 leaves it in place, multiplied by zero, as ∅ does.
        local_strength: Scale of the image tokens, likewise.
        local_tokens: How many image tokens stay, 0 to 257, in the order of `token_order`. The others are not there at all.

    Raises:
        BadInput: for a number of tokens out of range.
    """
    if not 0 <= local_tokens <= LOCAL_TOKENS:
        raise BadInput(f"Expected 0 to {LOCAL_TOKENS} local tokens, got {local_tokens}.")
    local = identity.local
    if local_tokens < LOCAL_TOKENS and local.shape[1] == LOCAL_TOKENS:
        local = local[:, token_order()]
    strength = identity.strength * torch.tensor([global_strength, local_strength])
    return replace(identity, local=local[:, :local_tokens], strength=strength)
