"""Heads in ComfyUI's 3D sockets: MESH, and FILE_3D of newer versions."""

import inspect
from io import BytesIO
from typing import Any

from comfy_api import latest

from ..flame.io import HeadMesh, to_glb


def to_mesh(mesh: HeadMesh) -> Any:
    """Convert heads to a MESH of this ComfyUI, with UVs, normals and texture if it knows them."""
    kind = _mesh_class()
    heads = len(mesh.vertices)
    more: dict[str, Any] = {"normals": mesh.normals.cpu()}
    if (uv := mesh.uv_from_top) is not None:
        more["uvs"] = uv.cpu().expand(heads, -1, -1)
    if mesh.texture is not None:
        more["texture"] = mesh.texture.movedim(1, -1).cpu()
    known = inspect.signature(kind).parameters
    return kind(
        mesh.vertices.cpu(),
        mesh.faces.cpu().expand(heads, -1, -1),
        **{name: value for name, value in more.items() if name in known},
    )


def to_file_3d(mesh: HeadMesh) -> Any:
    """Convert the first head to a FILE_3D of this ComfyUI in binary glTF, or None if it has no such type."""
    kind = getattr(latest.Types, "File3D", None)
    return None if kind is None else kind(BytesIO(to_glb(mesh)), "glb")


def _mesh_class() -> Any:
    kind = getattr(latest.Types, "MESH", None)
    if kind is None:  # before ComfyUI 0.4
        from comfy_extras.nodes_hunyuan3d import MESH as kind  # noqa: N811  # pyright: ignore[reportMissingImports]
    return kind
