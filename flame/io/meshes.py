"""Heads as meshes: Wavefront OBJ and binary glTF.

Conventions: vertices are in head space, in metres, as posed: x right, y up, z towards the viewer, which are glTF's axes too. A
vertex of the head that has several UVs, on a seam, is several vertices of the mesh. OBJ's v is 1 in the texture's first row,
glTF's is 0. Source: the glTF 2.0 specification.
"""

import json
import struct
from dataclasses import dataclass
from io import BytesIO

import torch
from PIL import Image
from torch import Tensor

from ...shapes import Float, Int
from ..model import HeadModel, HeadParams
from ..render import vertex_normals

_FLOAT, _UINT, _ARRAY, _ELEMENTS = 5126, 5125, 34962, 34963
"""glTF's numbers for component types and buffers."""
_JSON, _BINARY = 0x4E4F534A, 0x004E4942
ROUGHNESS = 0.7


@dataclass(frozen=True, eq=False)
class HeadMesh:
    """Posed heads with N vertices, F triangles, and a texture each."""

    vertices: Float[Tensor, "B N 3"]
    normals: Float[Tensor, "B N 3"]
    """Unit normals."""
    uv: Float[Tensor, "N 2"] | None
    """v is 1 in the texture's first row; None if the model has no UVs."""
    faces: Int[Tensor, "F 3"]
    texture: Float[Tensor, "B 3 h w"] | None
    """RGB in 0..1; None if the model has no UVs or no texture."""

    @property
    def uv_from_top(self) -> Float[Tensor, "N 2"] | None:
        """The UVs with v = 0 in the texture's first row, as glTF and ComfyUI have them."""
        return None if self.uv is None else self.uv * self.uv.new_tensor([1, -1]) + self.uv.new_tensor([0, 1])


def head_mesh(model: HeadModel, heads: HeadParams) -> HeadMesh:
    """Pose heads as meshes, with UVs and texture if the model has them.

    Args:
        model: The head model.
        heads: B heads on the model's device.
    """
    vertices = model.vertices(heads)
    normals = vertex_normals(vertices, model.faces, model.faces_around)
    if model.uv is None or model.uv_faces is None:
        return HeadMesh(vertices, normals, None, model.faces, None)
    pairs = torch.stack([model.faces.flatten(), model.uv_faces.flatten()], dim=1)
    unique, corner = torch.unique(pairs, dim=0, return_inverse=True)
    texture = None
    if model.texture_mean is not None:
        # The frames of a sequence usually share one texture.
        own = heads[:1] if torch.equal(heads.texture, heads.texture[:1].expand_as(heads.texture)) else heads
        texture = model.albedo(own).clamp(0, 1).expand(heads.batch, -1, -1, -1)
    return HeadMesh(vertices[:, unique[:, 0]], normals[:, unique[:, 0]], model.uv[unique[:, 1]], corner.view(-1, 3), texture)


def to_obj(mesh: HeadMesh, head: int = 0) -> str:
    """Write one head as the text of an OBJ file, with UVs and normals, without a material."""
    parts = [("v", mesh.vertices[head]), ("vn", mesh.normals[head])]
    corner = "{0}//{0}"
    if mesh.uv is not None:
        parts.append(("vt", mesh.uv))
        corner = "{0}/{0}/{0}"
    lines = [f"{mark} {' '.join(f'{x:.6f}' for x in row)}" for mark, rows in parts for row in rows.tolist()]
    lines += ["f " + " ".join(corner.format(i) for i in row) for row in (mesh.faces + 1).tolist()]
    return "\n".join(lines) + "\n"


def to_glb(mesh: HeadMesh, head: int = 0) -> bytes:
    """Write one head as the bytes of a binary glTF file, with UVs, normals and its texture."""
    vertices = mesh.vertices[head]
    blocks = {"POSITION": vertices, "NORMAL": mesh.normals[head]}
    if (uv := mesh.uv_from_top) is not None:
        blocks["TEXCOORD_0"] = uv
    indices, attributes = len(blocks), {name: i for i, name in enumerate(blocks)}
    body, views, accessors = b"", [], []
    for values in (*blocks.values(), mesh.faces.flatten()):
        numbers = values.cpu().numpy().astype("<f4" if values.is_floating_point() else "<u4").tobytes()
        target, component = (_ARRAY, _FLOAT) if values.is_floating_point() else (_ELEMENTS, _UINT)
        kind = f"VEC{values.shape[1]}" if values.dim() == 2 else "SCALAR"
        accessors.append({"bufferView": len(views), "componentType": component, "count": len(values), "type": kind})
        views.append({"buffer": 0, "byteOffset": len(body), "byteLength": len(numbers), "target": target})
        body += numbers
    accessors[0] |= {"min": vertices.amin(0).tolist(), "max": vertices.amax(0).tolist()}
    surface: dict[str, object] = {"metallicFactor": 0.0, "roughnessFactor": ROUGHNESS}
    content: dict[str, object] = {
        "asset": {"version": "2.0", "generator": "CapFace"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "head"}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [{"name": "skin", "pbrMetallicRoughness": surface}],
    }
    if mesh.texture is not None:
        picture = _png(mesh.texture[head])
        views.append({"buffer": 0, "byteOffset": len(body), "byteLength": len(picture)})
        body += picture
        surface["baseColorTexture"] = {"index": 0}
        content |= {"textures": [{"source": 0}], "images": [{"bufferView": len(views) - 1, "mimeType": "image/png"}]}
    content |= {"bufferViews": views, "accessors": accessors, "buffers": [{"byteLength": len(body)}]}
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    body += b"\0" * (-len(body) % 4)
    chunks = struct.pack("<II", len(text), _JSON) + text + struct.pack("<II", len(body), _BINARY) + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _png(picture: Float[Tensor, "3 h w"]) -> bytes:
    file = BytesIO()
    Image.fromarray((picture * 255).round().byte().movedim(0, -1).cpu().numpy()).save(file, "PNG")
    return file.getvalue()
