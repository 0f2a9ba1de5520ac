"""A z-buffer rasteriser in plain torch.

Conventions: vertices are in image NDC, x right over the width, y down over the height, each -1 to 1 from edge to edge; pixel
(i, j) has its centre at `x = (2j + 1)/W - 1`, `y = (2i + 1)/H - 1`. Smaller z is nearer; both sides of a face are visible.
Barycentric coordinates are affine in the image, without perspective.

A face covers the pixels whose centres lie between its left edge (included) and its right edge (excluded), from its top
(included) to its bottom (excluded). Faces that share an edge compute it identically, so they neither overlap nor leave gaps.
The cost is proportional to the rows that faces touch and the pixels that they cover, not to faces × pixels.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float, Int

CHUNK = 2_000_000
"""Covered pixels processed at once; bounds the working memory to about 100 MB."""

_EMPTY = torch.iinfo(torch.int64).max
_FACE_BITS = 32
_DEPTH_STEPS = 2**29


class Fragments(NamedTuple):
    """The nearest face at each pixel."""

    face: Int[Tensor, "B H W"]
    """Index of the face, int64; -1 where there is no face"""
    barycentric: Float[Tensor, "B H W 3"]
    """float32; sums to 1 on faces, 0 elsewhere"""


def rasterize(vertices: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"], height: int, width: int) -> Fragments:
    """Find the nearest face at each pixel, and the pixel's barycentric coordinates on it.

    Args:
        vertices: Vertices in image NDC. Faces with a NaN or infinite corner are not rendered.
        faces: Vertex indices of each triangle, int64.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Fragments. At equal depth the face with the smaller index wins, so the result does not depend on the order of
        execution on the device.

    Raises:
        BadInput: A shape or size is wrong.
    """
    if vertices.dim() != 3 or vertices.shape[-1] != 3 or faces.dim() != 2 or faces.shape[-1] != 3:
        raise BadInput(f"Expected vertices [B, V, 3] and faces [F, 3], got {list(vertices.shape)}, {list(faces.shape)}.")
    if height < 1 or width < 1:
        raise BadInput(f"Expected an image of at least 1 × 1 pixels, got {height} × {width}.")
    vertices = vertices.detach().float()
    # Pixel coordinates in which pixel (i, j) has its centre at (x, y) = (j, i).
    x = ((vertices[..., 0] + 1) * width - 1) / 2
    y = ((vertices[..., 1] + 1) * height - 1) / 2
    placed = torch.stack([x, y, vertices[..., 2]], dim=-1)

    B, pixels = placed.shape[0], height * width
    face = torch.full((B, pixels), -1, dtype=torch.int64, device=placed.device)
    barycentric = placed.new_zeros(B, pixels, 3)
    # One image at a time, so the working memory does not grow with the batch.
    for image in range(B):
        corners = placed[image][faces]
        keys = torch.full((pixels,), _EMPTY, dtype=torch.int64, device=placed.device)
        _draw(_spans(corners, height, width), keys)
        covered = (keys != _EMPTY).nonzero().squeeze(1)
        nearest = keys[covered] & (2**_FACE_BITS - 1)
        face[image, covered] = nearest
        barycentric[image, covered] = _barycentric(corners, nearest, covered, width)
    return Fragments(face.view(B, height, width), barycentric.view(B, height, width, 3))


class _Spans(NamedTuple):
    """Runs of pixels within one row of one face."""

    pixel: Int[Tensor, " N"]
    """Index of the first pixel in the flat image"""
    length: Int[Tensor, " N"]
    """Number of pixels, above 0"""
    key: Int[Tensor, " N"]
    """Depth of the first pixel in the high bits, index of the face in the low bits"""
    step: Int[Tensor, " N"]
    """Increment of the key from pixel to pixel"""


def _spans(corners: Float[Tensor, "F 3 3"], height: int, width: int) -> _Spans:
    """Return the spans of all faces; `corners` are in pixels."""
    finite = torch.isfinite(corners).flatten(1).all(1)
    corners = corners.where(finite[:, None, None], 0)
    order = corners[..., 1].argsort(dim=1, stable=True)
    ordered = corners.gather(1, order[..., None].expand(-1, -1, 3))
    first = ordered[:, 0, 1].ceil().clamp(0, height)
    last = ordered[:, 2, 1].ceil().clamp(0, height)
    rows = (last - first).clamp(min=0).long()

    # One entry for each row of each face.
    face = torch.repeat_interleave(rows)
    offset = rows.cumsum(0) - rows
    row = first[face].long() + (torch.arange(face.shape[0], device=face.device) - offset[face])
    # Channels first: x, y and z of the top, the middle and the bottom corner.
    x0, y0, z0, x1, y1, z1, x2, y2, z2 = ordered.flatten(1).T.contiguous().index_select(1, face)
    upper = row < y1
    long_x, long = _cross(x0, y0, x2, y2, row)
    short_x, short = _cross(
        torch.where(upper, x0, x1), torch.where(upper, y0, y1), torch.where(upper, x1, x2), torch.where(upper, y1, y2), row
    )
    left, right = torch.minimum(short_x, long_x), torch.maximum(short_x, long_x)
    start = left.ceil().clamp(0, width)
    count = (right.ceil().clamp(0, width) - start).long()
    # Most faces of a small head contain no pixel's centre, so that the depths of few are needed.
    kept = (count > 0).nonzero().squeeze(1)
    face, row, start, count, left, right = (column[kept] for column in (face, row, start, count, left, right))
    z0, z1, z2, upper, long, short, swapped = (column[kept] for column in (z0, z1, z2, upper, long, short, short_x < long_x))
    long_z = z0 + long * (z2 - z0)
    above = torch.where(upper, z0, z1)
    short_z = above + short * (torch.where(upper, z1, z2) - above)
    left_z, right_z = torch.where(swapped, short_z, long_z), torch.where(swapped, long_z, short_z)

    # Depth is quantised to integer steps between the nearest and the farthest corner. It is linear along the row. Spans of
    # two pixels or more are wider than 1, so the clamp never changes a slope that is used.
    near, far = (corners[..., 2].min(), corners[..., 2].max()) if len(corners) else (0, 0)
    unit = _DEPTH_STEPS / (torch.as_tensor(far - near).double().clamp(min=1e-30))
    slope = (right_z - left_z).double() / (right - left).double().clamp(min=1e-12)
    depth = left_z.double() + slope * (start - left).double()
    depth = ((depth - near) * unit).clamp(0, _DEPTH_STEPS).long()
    step = (slope * unit).clamp(-_DEPTH_STEPS, _DEPTH_STEPS).long()
    return _Spans(
        pixel=row * width + start.long(),
        length=count,
        key=(depth << _FACE_BITS) + face,
        step=step << _FACE_BITS,
    )


def _cross(
    above_x: Float[Tensor, " N"],
    above_y: Float[Tensor, " N"],
    below_x: Float[Tensor, " N"],
    below_y: Float[Tensor, " N"],
    row: Int[Tensor, " N"],
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Return where edges from above to below cross the rows: x, and the fraction of the edge that lies above."""
    fraction = ((row - above_y) / (below_y - above_y)).clamp(0, 1)
    return above_x + fraction * (below_x - above_x), fraction


def _draw(spans: _Spans, keys: Int[Tensor, " pixels"]) -> None:
    """Lower each pixel's key, in place, to the smallest key of the spans that cover it."""
    ends = spans.length.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    cuts = torch.arange(0, total + CHUNK, CHUNK, device=keys.device).clamp(max=total)
    bounds = torch.searchsorted(ends, cuts, right=True).tolist()
    bounds[-1] = len(ends)
    for low, high in pairwise(bounds):
        part = _Spans(*(column[low:high] for column in spans))
        before = part.length.cumsum(0) - part.length
        span = torch.repeat_interleave(part.length)
        along = torch.arange(span.shape[0], device=keys.device) - before[span]
        keys.scatter_reduce_(0, part.pixel[span] + along, part.key[span] + part.step[span] * along, "amin")


def _barycentric(
    corners: Float[Tensor, "F 3 3"], face: Int[Tensor, " N"], pixel: Int[Tensor, " N"], width: int
) -> Float[Tensor, "N 3"]:
    """Return the barycentric coordinates of pixels on faces, clamped to the face."""
    a, b, c = corners[..., :2].unbind(1)
    # w_b = ((p - a) × (c - a)) / ((b - a) × (c - a)), w_c likewise with (b - a) × (p - a)
    ab, ac = b - a, c - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    area = torch.where(area == 0, 1, area)[:, None]
    slopes = torch.cat([a, ac.flip(1) / area, ab.flip(1) / area], dim=1)
    ax, ay, acy, acx, aby, abx = slopes.index_select(0, face).unbind(1)
    row = torch.div(pixel, width, rounding_mode="floor")
    x, y = (pixel - row * width) - ax, row - ay
    weight_b = x * acy - y * acx
    weight_c = y * abx - x * aby
    weights = torch.stack([1 - weight_b - weight_c, weight_b, weight_c], dim=1).clamp_(0, 1)
    return weights / weights.sum(1, keepdim=True)
