"""The three condition maps of a head: normals, albedo and Lambertian shading.

Conventions: normals are in head space (x right, y up, z towards the viewer). They are area-weighted at vertices, interpolated
and not renormalised, so they lie within [-1, 1]. Albedo is the RGB of the texture. The Lambertian map is albedo times
unclamped shading. The background is 0 in all maps. Textures are sampled bilinearly between texel centres and are zero
outside; v = 1 is the first row. Source: section 3.3 of the paper; the values match those of its released code.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float, Int
from ..model import (
    SIZES,
    WHOLE,
    FacesAround,
    HeadModel,
    HeadParams,
    Window,
    faces_around,
    frame_to_ndc,
    frame_to_pixels,
    ndc_in_window,
    project,
    shade,
)
from .pytorch3d_backend import rasterize_pytorch3d
from .rasterizer import rasterize

BUILT_IN_BACKEND = "built-in"
BACKENDS = {BUILT_IN_BACKEND: rasterize, "pytorch3d": rasterize_pytorch3d}
"""Functions that find the nearest face at each pixel."""
MAX_PIXELS = 1 << 28
"""Pixels of a frame: 16384 × 16384."""
BYTES_PER_PIXEL = 140
"""Memory that rendering takes for each pixel of each head, with the pictures that Render Head makes of the maps."""
LARGEST_COORDINATE = 1e30
UNUSUAL = 100.0
"""Parameters beyond this are named if a head is too large to render. No usual head comes near it."""


@dataclass(frozen=True, eq=False)
class HeadMaps:
    """The condition maps of a batch of heads at one size."""

    normal: Float[Tensor, "B 3 H W"]
    """Normals in -1..1"""
    albedo: Float[Tensor, "B 3 H W"]
    """RGB, roughly in 0..1"""
    lambertian: Float[Tensor, "B 3 H W"]
    """RGB, unclamped"""
    alpha: Float[Tensor, "B 1 H W"]
    """1 on the head, 0 elsewhere"""

    def hint(self) -> Float[Tensor, "B 9 H W"]:
        """Return CapFace's input: the normal, albedo and Lambertian maps, unscaled."""
        return torch.cat([self.normal, self.albedo, self.lambertian], dim=1)


def vertex_normals(
    vertices: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"], around: FacesAround | None = None
) -> Float[Tensor, "B V 3"]:
    """Compute unit normals at vertices as the area-weighted mean of the normals of their faces.

    Args:
        vertices: Vertices of each head.
        faces: Vertex indices of each triangle, int64, counter-clockwise from outside.
        around: The faces around each vertex if they are already known, to save time.

    Returns:
        Normals; 0 for a vertex without faces.
    """
    around = around or faces_around(faces, vertices.shape[1])
    a, b, c = vertices[:, faces].unbind(2)
    weighted = torch.linalg.cross(b - a, c - a).transpose(0, 1).flatten(1)
    # several times faster than index_add_, and the order of the sums is fixed on every device
    sums = torch.nn.functional.embedding_bag(around.face, weighted, around.start, mode="sum")
    return torch.nn.functional.normalize(sums.unflatten(1, (-1, 3)).transpose(0, 1), dim=-1, eps=1e-6)


def place_mesh(
    model: HeadModel, params: HeadParams, height: int, width: int, window: Window = WHOLE
) -> tuple[Float[Tensor, "B V 3"], Float[Tensor, "B V 3"]]:
    """Place the meshes of heads in a frame.

    Args:
        model: The head model.
        params: B heads on the model's device.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        window: The part of the frame that the image shows.

    Returns:
        Vertices in image NDC with their depth in frame units, and the normals at the vertices in head space.

    Raises:
        BadInput: Model and heads are on different devices, the frame has no pixels or more than `MAX_PIXELS`, or the values of
            a head are so large that it cannot be placed in the frame.
    """
    if params.device != model.device:
        raise BadInput(f"The head model is on {model.device}, but the heads are on {params.device}; move either with to().")
    if height < 1 or width < 1:
        raise BadInput(f"Expected a frame of at least 1 × 1 pixels, got {height} × {width}.")
    if height * width > MAX_PIXELS:
        raise BadInput(f"Expected a frame of at most {MAX_PIXELS:,} pixels, got {height} × {width}.")
    vertices = model.vertices(params)
    projected = ndc_in_window(frame_to_ndc(project(vertices, params.camera), *window.frame_size(height, width)), window)
    normals = vertex_normals(vertices, model.faces, model.faces_around)
    # beyond this, pixel coordinates overflow
    if not (projected.abs().amax() < LARGEST_COORDINATE and torch.isfinite(normals).all()):
        largest = {name: getattr(params, name).abs().max().item() for name in SIZES if name != "light"}
        unusual = [name for name in largest if largest[name] > UNUSUAL] or list(largest)
        raise BadInput(
            "A head is too large to render: coefficients normally lie within about ±5, angles within ±3.2 radians. Its largest "
            f"values: {', '.join(f'{name} {largest[name]:.3g}' for name in unusual)}."
        )
    return projected, normals


def render_head(
    model: HeadModel, params: HeadParams, height: int, width: int, backend: str = BUILT_IN_BACKEND, window: Window = WHOLE
) -> HeadMaps:
    """Render the condition maps of heads in a frame of any size and aspect ratio, or in a window of it.

    Args:
        model: The head model, with UVs and texture.
        params: B heads on the model's device.
        height: Height of the maps in pixels.
        width: Width of the maps in pixels.
        backend: A name in BACKENDS.
        window: The part of the frame that the maps show; their pixels are square.

    Returns:
        The maps, float32 on that device. Parts of a head outside the frame are clipped; a head entirely outside leaves the
        frame empty.

    Raises:
        BadInput: The model has no UVs or texture, model and heads are on different devices, the frame has no pixels or more
            than `MAX_PIXELS`, or the values of a head are so large that it cannot be placed in the frame.
        MissingPackage: The backend is not installed.
    """
    if model.uv is None:
        raise BadInput(f"The head model '{model.name}' has no UVs; load it with them (FLAME: head_template.obj).")
    projected, normals = place_mesh(model, params, height, width, window)
    albedo_uv = model.albedo(params)
    face, barycentric = BACKENDS[backend](projected, model.faces, height, width)
    uv_corners = model.uv[model.uv_faces].permute(1, 2, 0)

    maps = normals.new_zeros(params.batch, 9, height * width)
    for frame in range(params.batch):
        pixels = (face[frame].view(-1) >= 0).nonzero().squeeze(1)
        nearest = face[frame].view(-1)[pixels]
        weights = barycentric[frame].view(-1, 3)[pixels].T.contiguous()
        # [3 corners, 5 attributes, F], gathered at the pixels' faces. Channels first is the fastest layout throughout.
        corners = torch.cat([normals[frame][model.faces].permute(1, 2, 0), uv_corners], dim=1)
        gathered = corners.flatten(0, 1).index_select(1, nearest).view(3, 5, -1)
        surface = (gathered * weights[:, None]).sum(0)
        normal, uv = surface[:3], surface[3:]
        albedo = sample_texture(albedo_uv[frame], uv)
        maps[frame].index_copy_(1, pixels, torch.cat([normal, albedo, albedo * shade(normal, params.light[frame])]))
    maps = maps.unflatten(2, (height, width))
    return HeadMaps(maps[:, :3], maps[:, 3:6], maps[:, 6:], (face >= 0)[:, None].float())


def sample_texture(texture: Float[Tensor, "C h w"], uv: Float[Tensor, "2 N"]) -> Float[Tensor, "C N"]:
    """Sample a texture bilinearly at UVs; 0 outside."""
    grid = torch.stack([uv[0] * 2 - 1, 1 - uv[1] * 2], dim=-1)
    sampled = torch.nn.functional.grid_sample(
        texture[None], grid[None, None], mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return sampled[0, :, 0]


def landmark_pixels(model: HeadModel, params: HeadParams, height: int, width: int) -> Float[Tensor, "B 68 2"]:
    """Return the 68 landmarks in a frame of a given size.

    Args:
        model: The head model, with landmarks.
        params: B heads.
        height: Height of the frame in pixels.
        width: Width of the frame in pixels.

    Returns:
        Pixel coordinates (x, y); the centre of pixel (i, j) is (j + ½, i + ½). Points may lie outside the frame.

    Raises:
        BadInput: The model has no landmarks.
    """
    return frame_to_pixels(project(model.landmarks(params), params.camera)[..., :2], height, width)
