"""PyTorch3D as the rasteriser, if it is installed.

Conventions: inputs and outputs are those of `rasterizer.py`. PyTorch3D's own NDC has x to the left and y up. It spans ±1 over
the short side of the image and proportionally more over the long side; pixel centres are at half-integers. Larger z is
farther, and points behind the viewer (z < 0) are clipped. Source: PyTorch3D's notes on cameras and on its rasteriser.
"""

import torch
from torch import Tensor

from ...errors import MissingPackage
from ...shapes import Float, Int
from .rasterizer import Fragments


def rasterize_pytorch3d(vertices: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"], height: int, width: int) -> Fragments:
    """Find the nearest face at each pixel with PyTorch3D: no blur, no perspective, one face per pixel, both sides visible.

    Args:
        vertices: Vertices in image NDC, float32.
        faces: Vertex indices of each triangle, int64.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Raises:
        MissingPackage: PyTorch3D is not installed.
    """
    try:
        from pytorch3d.renderer.mesh import rasterize_meshes  # pyright: ignore[reportMissingImports]
        from pytorch3d.structures import Meshes  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingPackage(
            f"The backend 'pytorch3d' needs the package pytorch3d ({error}). Install a build that fits this Python, torch and "
            "CUDA (github.com/facebookresearch/pytorch3d, INSTALL.md), or choose the backend 'built-in', which needs nothing."
        ) from None
    B, F, short = len(vertices), len(faces), min(height, width)
    depth = vertices[..., 2]
    flipped = torch.stack(
        [-vertices[..., 0] * (width / short), -vertices[..., 1] * (height / short), depth - depth.amin() + 1], dim=-1
    )
    meshes = Meshes(verts=flipped, faces=faces.expand(B, -1, -1))
    face, _, barycentric, _ = rasterize_meshes(
        meshes,
        image_size=(height, width),
        blur_radius=0.0,
        faces_per_pixel=1,
        perspective_correct=False,
        clip_barycentric_coords=False,
        cull_backfaces=False,
    )
    face, barycentric = face[..., 0], barycentric[..., 0, :]
    # PyTorch3D numbers faces through the whole batch.
    first = F * torch.arange(B, device=face.device)[:, None, None]
    covered = face >= 0
    return Fragments(torch.where(covered, face - first, -1), torch.where(covered[..., None], barycentric, 0))
