"""Crops of faces for FaceNet, DECA and aligned portraits.

Conventions: images are `[3, H, W]` or `[B, 3, H, W]`, RGB in 0..1. Points are (x, y) in pixels, x right and y down; the
centre of the pixel in row i and column j lies at (j, i), so an image covers -0.5 to W - 0.5. Boxes are (left, top, right,
bottom) in the same units. A transform is a matrix `[3, 3]` or `[B, 3, 3]` that maps an image point (x, y, 1) to the crop.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadInput
from ...shapes import Float

FACENET_SIZE = 160
DECA_SIZE = 224
ALIGNED_SIZE = 512
OUTSIDE = ("border", "black", "white")


def facenet_face(
    image: Float[Tensor, "*B 3 H W"], box: Float[Tensor, "*B 4"], size: int = FACENET_SIZE
) -> Float[Tensor, "*B 3 {size} {size}"]:
    """Cut FaceNet's input: the box at whole pixels, resized and standardised.

    The part of the box inside the image is stretched to the square, as for FaceNet's training faces (facenet-pytorch,
    margin 0). FaceNet was not trained on padded faces.

    Args:
        image: `[3, H, W]` or `[B, 3, H, W]`, RGB in 0..1.
        box: `[4]` or `[B, 4]`, in pixels.
        size: Side of the result.

    Returns:
        `[3, size, size]` or `[B, 3, size, size]`, `(x - 127.5) / 128` of 8-bit values.

    Raises:
        BadInput: A box has no pixel inside the image.
    """
    if image.ndim == 4:
        return torch.stack([facenet_face(one, b, size) for one, b in zip(image, box, strict=True)])
    height, width = image.shape[-2:]
    left, top, right, bottom = (float(v) for v in box)
    left, top, right, bottom = int(max(left, 0)), int(max(top, 0)), int(min(right, width)), int(min(bottom, height))
    if right <= left or bottom <= top:
        raise BadInput(f"The face box {[round(float(v), 1) for v in box]} has no pixel in the {width} × {height} image.")
    face = (image[:, top:bottom, left:right] * 255).round()
    # an 8-bit image is resized along its rows and then along its columns, with halves rounded up after each
    face = (_resize(face, face.shape[-2], size) + 0.5).floor()
    face = (_resize(face, size, size) + 0.5).floor()
    return (face - 127.5) / 128


def deca_square(points: Float[Tensor, "*B 68 2"]) -> tuple[Float[Tensor, "*B 2"], Float[Tensor, "*B"]]:
    """Return the square that DECA crops around 68 landmarks.

    Args:
        points: `[68, 2]` or `[B, 68, 2]`, in pixels.

    Returns:
        Its centre `[2]` or `[B, 2]`, and its side `[]` or `[B]` in whole pixels.
    """
    low, high = points.double().amin(-2), points.double().amax(-2)
    # side = floor(1.25 · 1.1 · (w + h) / 2): the landmarks end at the brows, so the box grows by a tenth first
    side = (1.25 * 1.1 * (high - low).mean(-1)).floor()
    return (low + high) / 2, side


def deca_square_from_box(box: Float[Tensor, "*B 4"]) -> tuple[Float[Tensor, "*B 2"], Float[Tensor, "*B"]]:
    """Return the square that DECA crops around a detector's box.

    Args:
        box: `[4]` or `[B, 4]`, in pixels.

    Returns:
        Its centre `[2]` or `[B, 2]`, and its side `[]` or `[B]` in whole pixels.
    """
    low, high = box.double().unflatten(-1, (2, 2)).unbind(-2)
    mean_side = (high - low).mean(-1)
    # a detector's box holds the forehead, so the centre moves down by 0.12 (w + h) / 2
    centre = (low + high) / 2 + torch.stack([torch.zeros_like(mean_side), 0.12 * mean_side], dim=-1)
    return centre, (1.25 * mean_side).floor()


def deca_transform(centre: Float[Tensor, "*B 2"], side: Float[Tensor, "*B"], size: int = DECA_SIZE) -> Float[Tensor, "*B 3 3"]:
    """Return the transform that maps a square's corners to (0, 0), (0, size - 1) and (size - 1, 0).

    Args:
        centre: `[2]` or `[B, 2]`, in pixels.
        side: `[]` or `[B]`, in pixels.
        size: Side of the crop.

    Returns:
        `[3, 3]` or `[B, 3, 3]`, from image pixels to crop pixels, float32.

    Raises:
        BadInput: A side is not positive.
    """
    if not (side > 0).all():
        raise BadInput(f"The square around the face has side {side.tolist()}: its landmarks or box have no extent.")
    # p' = (size - 1) / side · (p - centre + side / 2)
    scale = (size - 1) / side
    transform = torch.zeros(*side.shape, 3, 3, dtype=torch.float64, device=side.device)
    transform[..., 0, 0] = transform[..., 1, 1] = scale
    transform[..., :2, 2] = scale[..., None] * (side[..., None] / 2 - centre)
    transform[..., 2, 2] = 1
    return transform.float()


def deca_crop(
    image: Float[Tensor, "*B 3 H W"], transform: Float[Tensor, "*T 3 3"], size: int = DECA_SIZE
) -> Float[Tensor, "*B 3 {size} {size}"]:
    """Cut DECA's input: one bilinear sample per pixel, black outside the image, aspect ratio kept.

    Args:
        image: `[3, H, W]` or `[B, 3, H, W]`, RGB in 0..1.
        transform: `[3, 3]` or `[B, 3, 3]`, from `deca_transform`.
        size: Side of the crop.

    Returns:
        `[3, size, size]` or `[B, 3, size, size]`, in 0..1.
    """
    return warp(image, transform, size, size, outside="black")


def eyes_and_mouth(points: Float[Tensor, "N 2"]) -> Float[Tensor, "4 2"]:
    """Return the four anchors of an alignment.

    Args:
        points: `[5, 2]` (image-left eye, image-right eye, nose, mouth corners) or `[68, 2]` landmarks, in pixels.

    Returns:
        `[4, 2]`: image-left eye, image-right eye, image-left and image-right mouth corner.

    Raises:
        BadInput: There are neither 5 nor 68 points.
    """
    if tuple(points.shape) == (5, 2):
        return points[[0, 1, 3, 4]]
    if tuple(points.shape) == (68, 2):
        return torch.stack([points[36:42].mean(0), points[42:48].mean(0), points[48], points[54]])
    raise BadInput(f"Alignment needs 5 or 68 points of shape [N, 2], got {list(points.shape)}.")


def ffhq_transform(points: Float[Tensor, "N 2"], size: int = ALIGNED_SIZE) -> Float[Tensor, "3 3"]:
    """Return the similarity that moves a face to FFHQ's frame: upright, with eyes and mouth in their usual positions.

    Args:
        points: `[5, 2]` or `[68, 2]`, see `eyes_and_mouth`.
        size: Side of the aligned image.

    Returns:
        `[3, 3]`, from image pixels to crop pixels, float32.

    Raises:
        BadInput: Eyes and mouth coincide, or there are neither 5 nor 68 points.

    Source: Karras et al., *Progressive Growing of GANs* (ICLR 2018), appendix C, with the factors FFHQ uses.
    """
    left_eye, right_eye, left_mouth, right_mouth = eyes_and_mouth(points.double())
    eyes, mouth = (left_eye + right_eye) / 2, (left_mouth + right_mouth) / 2
    across, down = right_eye - left_eye, mouth - eyes
    # x' = e1 - Rot90(e0) with e1 from eye to eye and e0 from eyes to mouth: a direction that is stable for a profile's short e1
    direction = across + torch.stack([down[1], -down[0]])
    if direction.norm() < 1e-6:
        raise BadInput("Eyes and mouth lie on one point: these are not face landmarks.")
    # s = max(4.0 |e1|, 3.6 |e0|), c = eyes + 0.1 e0
    side = torch.maximum(4.0 * across.norm(), 3.6 * down.norm())
    centre = eyes + 0.1 * down
    scale = size / side
    cos, sin = direction / direction.norm()
    linear = scale * torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
    transform = torch.eye(3, dtype=torch.float64, device=points.device)
    transform[:2, :2] = linear
    # the centre of the quad meets the centre of the crop, which covers -0.5 to size - 0.5
    transform[:2, 2] = (size - 1) / 2 - linear @ centre
    return transform.float()


def ffhq_crop(
    image: Float[Tensor, "C H W"], points: Float[Tensor, "N 2"], size: int = ALIGNED_SIZE, outside: str = "border"
) -> tuple[Float[Tensor, "C {size} {size}"], Float[Tensor, "3 3"]]:
    """Cut an aligned portrait, padded where the frame leaves the image, aspect ratio kept.

    Args:
        image: `[3, H, W]`, RGB in 0..1.
        points: `[5, 2]` or `[68, 2]`, see `eyes_and_mouth`.
        size: Side of the result.
        outside: Padding outside the image: "border" repeats its edge; also "black" or "white".

    Returns:
        The crop `[3, size, size]` in 0..1, and its transform `[3, 3]`.

    Raises:
        BadInput: The points are unusable, or `outside` is unknown.
    """
    transform = ffhq_transform(points, size).to(image.device)
    scale = transform[:2, 0].norm().item()
    if scale >= 1:
        return warp(image, transform, size, size, outside=outside), transform
    # A bilinear sample reads two pixels, so an image that is finer than the crop is reduced to the crop's scale first.
    height, width = image.shape[-2:]
    coarse = _resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
    return warp(coarse, transform @ _resizing(coarse.shape[-2:], image), size, size, outside=outside), transform


def level_square(box: Float[Tensor, " 4"], tilt: float, margin: float, size: int) -> Float[Tensor, "3 3"]:
    """Return the transform to a square crop around a tilted face, turned so that the face stands level.

    Args:
        box: `[4]`, left, top, right, bottom in pixels.
        tilt: Angle in degrees by which the face is turned clockwise.
        margin: Side of the square, as a multiple of the box's longer side.
        size: Side of the crop in pixels.

    Returns:
        `[3, 3]`, from image pixels to crop pixels, float32.
    """
    low, high = box.double().unflatten(0, (2, 2))
    scale = size / (margin * (high - low).amax().clamp(min=1.0)).item()
    cos, sin = scale * math.cos(math.radians(tilt)), scale * math.sin(math.radians(tilt))
    transform = torch.eye(3, dtype=torch.float64)
    transform[:2, :2] = torch.tensor([[cos, sin], [-sin, cos]])
    transform[:2, 2] = (size - 1) / 2 - transform[:2, :2] @ ((low + high) / 2).cpu()
    return transform.float()


def move_box(transform: Float[Tensor, "3 3"], box: Float[Tensor, " 4"]) -> Float[Tensor, " 4"]:
    """Move a box to the frame of a similarity: its centre is moved, its sides are scaled, and it stays upright.

    Args:
        transform: `[3, 3]`, from image pixels to crop pixels: rotation, scale and translation only.
        box: `[4]`, left, top, right, bottom in pixels.

    Returns:
        `[4]`, in the crop's pixels.
    """
    low, high = box.unflatten(0, (2, 2))
    centre = transform_points(transform, ((low + high) / 2)[None])[0]
    half = (high - low) / 2 * torch.linalg.det(transform[:2, :2]).sqrt()
    return torch.cat([centre - half, centre + half])


def turned_back(quarters: int, height: int, width: int) -> Float[Tensor, "3 3"]:
    """Return the transform `[3, 3]` from the pixels of an image after `torch.rot90(image, quarters, (1, 2))` to those before.

    Args:
        quarters: 0 to 3 quarter turns against the clock.
        height: Height of the image before it was turned.
        width: Width of the image before it was turned.
    """
    rows = {
        0: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        1: [[0.0, -1.0, width - 1.0], [1.0, 0.0, 0.0]],
        2: [[-1.0, 0.0, width - 1.0], [0.0, -1.0, height - 1.0]],
        3: [[0.0, 1.0, 0.0], [-1.0, 0.0, height - 1.0]],
    }
    return torch.tensor([*rows[quarters], [0.0, 0.0, 1.0]])


def warp(
    image: Float[Tensor, "*B C H W"], transform: Float[Tensor, "*T 3 3"], height: int, width: int, outside: str = "border"
) -> Float[Tensor, "*B C {height} {width}"]:
    """Resample an image with one bilinear sample per pixel.

    Args:
        image: `[3, H, W]` or `[B, 3, H, W]`.
        transform: `[3, 3]` or `[B, 3, 3]`, from image pixels to crop pixels.
        height: Height of the crop.
        width: Width of the crop.
        outside: Padding outside the image: "border" repeats its edge, "black" is 0, "white" is 1.

    Returns:
        `[3, height, width]` or `[B, 3, height, width]`.

    Raises:
        BadInput: `outside` is unknown.
    """
    if outside not in OUTSIDE:
        raise BadInput(f"outside is one of {', '.join(OUTSIDE)}, got {outside!r}.")
    if image.ndim == 3:
        return warp(image[None], transform, height, width, outside)[0]
    back = torch.linalg.inv(transform.cpu().double()).to(image).expand(len(image), 3, 3)
    y, x = torch.meshgrid(
        torch.arange(height, device=image.device, dtype=image.dtype),
        torch.arange(width, device=image.device, dtype=image.dtype),
        indexing="ij",
    )
    points = torch.stack([x, y], dim=-1).flatten(0, 1)
    source = transform_points(back, points.expand(len(image), -1, -1)).unflatten(1, (height, width))
    # grid_sample counts from -1 at the image's left edge (-0.5) to 1 at its right one (W - 0.5)
    extent = source.new_tensor([image.shape[-1], image.shape[-2]])
    grid = (source + 0.5) / extent * 2 - 1
    if outside == "border":
        return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    fill = float(outside == "white")
    return F.grid_sample(image - fill, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + fill


def transform_points(transform: Float[Tensor, "*T 3 3"], points: Float[Tensor, "*B N 2"]) -> Float[Tensor, "*P N 2"]:
    """Apply transforms `[..., 3, 3]` to points `[..., N, 2]`."""
    linear, offset = transform[..., :2, :2], transform[..., :2, 2]
    return points @ linear.transpose(-1, -2) + offset[..., None, :]


def _resize(image: Float[Tensor, "C H W"], height: int, width: int) -> Float[Tensor, "C {height} {width}"]:
    """Resize bilinearly with half-pixel centres, antialiased when shrinking."""
    return F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]


def _resizing(size: Sequence[int], image: Float[Tensor, "C H W"]) -> Float[Tensor, "3 3"]:
    """Return the transform from a resized image's pixels to the original's."""
    ratio = torch.tensor([image.shape[-1] / size[1], image.shape[-2] / size[0], 1.0], device=image.device)
    transform = torch.diag(ratio)
    # (x + ½) · ratio - ½
    transform[:2, 2] = ratio[:2] / 2 - 0.5
    return transform
