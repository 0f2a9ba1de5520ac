"""The three condition maps of a head: normals, albedo and Lambertian shading.

Conventions: normals are in head space (x right, y up, z towards the viewer), area weighted at vertices, interpolated and not
renormalised, so within [-1, 1]; albedo is RGB of the texture; the Lambertian map is albedo times unclamped shading. The
background is 0 in all maps. Textures are sampled bilinearly between texel centres, zero outside; v = 1 is the first row.
Source: the paper's section 3.3; the numbers are those of its released code.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import BadInput
from ..model import WHOLE, HeadModel, HeadParams, Window, frame_to_ndc, frame_to_pixels, ndc_in_window, project, shade
from .pytorch3d_backend import rasterize_pytorch3d
from .rasterizer import rasterize

BUILT_IN = "built-in"
BACKENDS = {BUILT_IN: rasterize, "pytorch3d": rasterize_pytorch3d}
"""What finds the face that each pixel sees."""


@dataclass(frozen=True, eq=False)
class HeadMaps:
    """The condition maps of a batch of heads at one size."""

    normal: Tensor
    """`[B, 3, H, W]` in -1..1"""
    albedo: Tensor
    """`[B, 3, H, W]` about 0..1"""
    lambertian: Tensor
    """`[B, 3, H, W]`, unclamped"""
    alpha: Tensor
    """`[B, 1, H, W]` 1 on the head, 0 elsewhere"""

    def hint(self) -> Tensor:
        """What CapFace sees: `[B, 9, H, W]`, normal, albedo and Lambertian map as they are."""
        return torch.cat([self.normal, self.albedo, self.lambertian], dim=1)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals at vertices, the mean of their faces' normals weighted by area.

    Args:
        vertices: `[B, V, 3]`.
        faces: `[F, 3]` int64, counter-clockwise from outside.

    Returns:
        `[B, V, 3]`; 0 for a vertex without faces.
    """
    a, b, c = vertices[:, faces].unbind(2)
    weighted = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices)
    for corner in range(3):
        normals.index_add_(1, faces[:, corner], weighted)
    return torch.nn.functional.normalize(normals, dim=-1, eps=1e-6)


def render_head(
    model: HeadModel, params: HeadParams, height: int, width: int, backend: str = BUILT_IN, window: Window = WHOLE
) -> HeadMaps:
    """The condition maps of heads in a frame of any size and aspect, or in a window of it.

    Args:
        model: the head model, with UVs and texture.
        params: B heads on the model's device.
        height: rows of the maps.
        width: columns of the maps.
        backend: a name out of BACKENDS.
        window: what part of the frame the maps show; their pixels are square.

    Returns:
        HeadMaps, float32 on that device. What lies outside the frame is left out; a head wholly outside leaves it empty.

    Raises:
        BadInput: the model has no UVs or texture, model and heads are on different devices, the frame has no pixels, or a
            head's numbers are so large that its vertices are not finite.
        MissingPackage: the backend is not installed.
    """
    if model.uv is None:
        raise BadInput(f"The head model '{model.name}' has no UVs; load it with them (FLAME: head_template.obj).")
    if params.device != model.device:
        raise BadInput(f"The head model is on {model.device}, the heads on {params.device}; to() moves either.")
    if height < 1 or width < 1:
        raise BadInput(f"Expected a frame of at least 1 × 1 pixels, got {height} × {width}.")
    albedo_uv = model.albedo(params)
    vertices = model.vertices(params)
    seen = ndc_in_window(frame_to_ndc(project(vertices, params.camera), *window.frame_size(height, width)), window)
    normals = vertex_normals(vertices, model.faces)
    if not (torch.isfinite(seen).all() and torch.isfinite(normals).all()):
        largest = ", ".join(
            f"{name} {getattr(params, name).abs().max().item():.3g}" for name in ("shape", "expression", "camera")
        )
        raise BadInput(f"A head is too large to be drawn; coefficients lie within about ±5. Its largest numbers: {largest}.")
    face, barycentric = BACKENDS[backend](seen, model.faces, height, width)
    uv_corners = model.uv[model.uv_faces].permute(1, 2, 0)

    maps = vertices.new_zeros(params.batch, 9, height * width)
    for frame in range(params.batch):
        pixels = (face[frame].view(-1) >= 0).nonzero().squeeze(1)
        nearest = face[frame].view(-1)[pixels]
        weights = barycentric[frame].view(-1, 3)[pixels].T.contiguous()
        # [3 corners, 5 attributes, F], gathered at the pixels' faces; channels first is the fast order throughout.
        corners = torch.cat([normals[frame][model.faces].permute(1, 2, 0), uv_corners], dim=1)
        seen_at = corners.flatten(0, 1).index_select(1, nearest).view(3, 5, -1)
        surface = (seen_at * weights[:, None]).sum(0)
        normal, uv = surface[:3], surface[3:]
        albedo = sample_texture(albedo_uv[frame], uv)
        maps[frame].index_copy_(1, pixels, torch.cat([normal, albedo, albedo * shade(normal, params.light[frame])]))
    maps = maps.unflatten(2, (height, width))
    return HeadMaps(maps[:, :3], maps[:, 3:6], maps[:, 6:], (face >= 0)[:, None].float())


def sample_texture(texture: Tensor, uv: Tensor) -> Tensor:
    """Colours `[3, N]` of a texture `[3, h, w]` at `uv` `[2, N]`."""
    grid = torch.stack([uv[0] * 2 - 1, 1 - uv[1] * 2], dim=-1)
    sampled = torch.nn.functional.grid_sample(
        texture[None], grid[None, None], mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return sampled[0, :, 0]


def landmark_pixels(model: HeadModel, params: HeadParams, height: int, width: int) -> Tensor:
    """The 68 landmarks in a frame of some size.

    Args:
        model: the head model, with landmarks.
        params: B heads.
        height: rows of the frame.
        width: columns of the frame.

    Returns:
        `[B, 68, 2]` pixel coordinates (x, y); the centre of pixel (i, j) is (j + ½, i + ½). Points may lie outside the frame.
    """
    return frame_to_pixels(project(model.landmarks(params), params.camera)[..., :2], height, width)
