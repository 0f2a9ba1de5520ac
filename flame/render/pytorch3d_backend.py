"""PyTorch3D as the rasteriser, where it is installed.

Conventions: in and out as in `rasterize.py`. PyTorch3D's own NDC has x to the left and y up, ±1 over the image's short side and
as much more over the long one as that is longer, pixel centres at the half; larger z is farther, and what is behind the viewer
(z < 0) is left out. Source: PyTorch3D's notes on cameras and on its rasteriser.
"""

import torch
from torch import Tensor

from ...errors import MissingPackage
from .rasterizer import Fragments


def rasterize_pytorch3d(vertices: Tensor, faces: Tensor, height: int, width: int) -> Fragments:
    """The nearest face at each pixel as PyTorch3D finds it: no blur, no perspective, one face a pixel, both sides seen.

    Args:
        vertices: `[B, V, 3]` float32 image NDC.
        faces: `[F, 3]` int64.
        height: rows of the image.
        width: columns of the image.

    Returns:
        Fragments.

    Raises:
        MissingPackage: PyTorch3D is not installed.
    """
    try:
        from pytorch3d.renderer.mesh import rasterize_meshes
        from pytorch3d.structures import Meshes
    except ImportError as error:
        raise MissingPackage(
            f"The backend 'pytorch3d' needs the package pytorch3d ({error}). Install a build that fits this Python, torch and "
            "CUDA (github.com/facebookresearch/pytorch3d, INSTALL.md), or choose the backend 'built-in', which needs nothing."
        ) from None
    B, F, short = len(vertices), len(faces), min(height, width)
    depth = vertices[..., 2]
    seen = torch.stack(
        [-vertices[..., 0] * (width / short), -vertices[..., 1] * (height / short), depth - depth.amin() + 1], dim=-1
    )
    meshes = Meshes(verts=seen, faces=faces.expand(B, -1, -1))
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
    # Faces are numbered through the whole batch there.
    first = F * torch.arange(B, device=face.device)[:, None, None]
    covered = face >= 0
    return Fragments(torch.where(covered, face - first, -1), torch.where(covered[..., None], barycentric, 0))
