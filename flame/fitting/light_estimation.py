"""Estimate the light in a photo, on the face of a head that was fitted to it.

Conventions: light is nine spherical-harmonics coefficients per channel, in head space, as in `spherical_harmonics.py`. Shading
times albedo gives the pixels directly, without gamma.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...errors import BadInput
from ...shapes import Float
from ..model import SH_FACTORS, HeadModel, HeadParams, sh_basis
from ..render import landmark_pixels, render_head

# The photo is reduced to this many pixels along its short side, and must show at least so many pixels of the face.
PHOTO_SIDE = 256
LEAST_PIXELS = 100
# A pixel whose brightest or darkest channel lies outside this range is clipped and carries no information about the light.
EXPOSED = (0.01, 0.99)
# Rounds of reweighting: first by least absolute deviations, which find the majority, then by Tukey's biweight, which drops
# the outliers. Its bound is in robust standard deviations (1.4826 times the median), which are at least LEAST_DEVIATION.
ROUNDS, LAST_ROUNDS = 30, 10
TUKEY, LEAST_DEVIATION = 4.685, 0.002
# Regularisation of the eight directional coefficients, as a fraction of the pixels: components that no visible normal
# determines stay small.
REGULARISATION = 1e-4
# Height of the forehead above the brows, as a fraction of the distance from the base of the nose to the brows.
FOREHEAD = 0.6
OUTLINE_SIDES = 64


def light_from_photo(model: HeadModel, head: HeadParams, photo: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "B 9 3"]:
    """Estimate the light that makes fitted heads look most like their photos.

    The method is robust least squares over the face's pixels: `pixel ~ albedo · sum_k c_k b_k(n) light_k`. A photo shows only
    the product of skin and light: if the head's skin is darker or redder than the person's, the estimated light is brighter or
    less red. Light from behind is hardly visible on a face and stays small. Hair, glasses and clipped pixels have little or no
    weight.

    Args:
        model: The head model, with landmarks, UVs and texture.
        head: B heads, fitted to the photos.
        photo: `[B, 3, H, W]` in 0..1, or `[1, 3, H, W]` for all heads.

    Returns:
        `[B, 9, 3]`, as in `HeadParams.light`.

    Raises:
        BadInput: The number of photos is neither 1 nor B, or a photo does not show its face.
    """
    if photo.dim() != 4 or photo.shape[1] != 3 or photo.shape[0] not in (1, head.batch):
        raise BadInput(f"Expected one photo [1, 3, H, W] or {head.batch}, one a head; got {list(photo.shape)}.")
    photo = reduce_photo(photo.to(head.light))
    return torch.cat([_one_light(model, head[i], photo[i % len(photo)]) for i in range(head.batch)])


def reduce_photo(photo: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
    """Reduce photos to the size at which the light is estimated. Smaller photos keep their size.

    Args:
        photo: `[B, 3, H, W]`.

    Returns:
        `[B, 3, h, w]`.
    """
    factor = min(1.0, PHOTO_SIDE / min(photo.shape[2:]))
    size = [max(1, round(side * factor)) for side in photo.shape[2:]]
    return interpolate(photo, size=size, mode="bilinear", antialias=True)


def _one_light(model: HeadModel, head: HeadParams, photo: Tensor) -> Tensor:
    """Estimate the light `[1, 9, 3]` of one head in one photo `[3, H, W]`."""
    height, width = photo.shape[1:]
    maps = render_head(model, head, height, width)
    exposed = (photo.amin(0) > EXPOSED[0]) & (photo.amax(0) < EXPOSED[1])
    used = (maps.alpha[0, 0] > 0) & exposed & _face_region(landmark_pixels(model, head, height, width)[0], height, width)
    if used.sum() < LEAST_PIXELS:
        raise BadInput(
            f"Light from a photo: expected at least {LEAST_PIXELS} well exposed pixels of the face, got {int(used.sum())}. "
            "Use the photo that the head was fitted to."
        )
    normal, albedo, observed = (image[:, used].double() for image in (maps.normal[0], maps.albedo[0], photo))
    # In the plain basis b_k, the regularisation has the same meaning for every k.
    factors = normal.new_tensor(SH_FACTORS)[:, None]
    columns = albedo[:, :, None] * (sh_basis(normal) / factors).T
    regularisation = (
        REGULARISATION * len(columns[0]) * albedo.square().mean() * torch.diag(normal.new_tensor([0.0] + [1.0] * 8))
    )
    weights, light = torch.ones_like(observed[0]), columns.new_zeros(3, 9, 1)
    for round_ in range(ROUNDS + LAST_ROUNDS):
        A = columns * weights[:, None]
        light = torch.linalg.solve(A.mT @ columns + weights.mean() * regularisation, A.mT @ observed[..., None])
        distance = (columns @ light - observed[..., None])[..., 0].norm(dim=0)
        if round_ < ROUNDS:
            weights = 1 / distance.clamp(min=LEAST_DEVIATION)
        else:
            bound = TUKEY * (1.4826 * distance.median()).clamp(min=LEAST_DEVIATION)
            weights = (1 - (distance / bound).square()).clamp(min=0).square()
    return (light[..., 0].T / factors).float()[None]


def _face_region(points: Tensor, height: int, width: int) -> Tensor:
    """Return a mask `[H, W]` of the convex outline of landmarks `[68, 2]` in pixels and the forehead above them."""
    forehead = points[17:27] + FOREHEAD * (points[17:27].mean(0) - points[33])
    angles = torch.arange(OUTLINE_SIDES, device=points.device) * (2 * math.pi / OUTLINE_SIDES)
    sides = torch.stack([angles.cos(), angles.sin()])
    # A pixel p is inside if p·d <= max_i q_i·d for all directions d.
    reach = (torch.cat([points, forehead]) @ sides).amax(0)
    y, x = torch.meshgrid(torch.arange(height, device=points.device), torch.arange(width, device=points.device), indexing="ij")
    pixels = torch.stack([x, y], dim=-1) + 0.5
    return (pixels @ sides <= reach).all(-1)
