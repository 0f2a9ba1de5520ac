"""Heads as meshes and motion, read back by readers of their own."""

import io
import json
import struct

import pytest
import torch
from PIL import Image

from capface.errors import BadInput
from capface.flame.builtin import builtin_head
from capface.flame.io import head_mesh, to_bvh, to_glb, to_obj
from capface.flame.io.motion import JOINTS, euler_zxy
from capface.flame.model import HeadParams, axis_angle_to_matrix
from capface.tests.flame.heads import golden_heads, golden_model, random_heads


@pytest.fixture(scope="module")
def model():
    return builtin_head()


@pytest.fixture(scope="module")
def heads():
    return HeadParams.neutral(2).replace(rotation=torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.5, 0.2]]))


@pytest.fixture(scope="module")
def mesh(model, heads):
    return head_mesh(model, heads)


def test_triangles_keep_their_corners_and_uvs(model, heads, mesh):
    vertices = model.vertices(heads)
    assert torch.equal(mesh.vertices[:, mesh.faces], vertices[:, model.faces])
    assert torch.equal(mesh.uv[mesh.faces], model.uv[model.uv_faces])
    assert len(mesh.uv) == mesh.vertices.shape[1] > vertices.shape[1]
    assert torch.allclose(mesh.normals.norm(dim=-1), torch.ones(()), atol=1e-5)


def test_an_obj_holds_the_mesh(mesh):
    lines = [line.split() for line in to_obj(mesh, 1).splitlines()]
    of = {mark: [line[1:] for line in lines if line[0] == mark] for mark in ("v", "vt", "vn", "f")}
    assert torch.allclose(torch.tensor([[float(x) for x in row] for row in of["v"]]), mesh.vertices[1], atol=1e-6)
    assert torch.allclose(torch.tensor([[float(x) for x in row] for row in of["vt"]]), mesh.uv, atol=1e-6)
    corners = torch.tensor([[[int(n) for n in corner.split("/")] for corner in row] for row in of["f"]]) - 1
    assert torch.equal(corners, mesh.faces[..., None].expand(-1, -1, 3))
    assert len(of["vn"]) == len(of["v"])


def read_glb(data):
    """Return the JSON and the binary chunk, checking the container."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and size % 4 == 0
    more, binary = struct.unpack_from("<I4s", data, 20 + size)
    assert binary == b"BIN\0" and 28 + size + more == len(data)
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def values(content, body, number):
    accessor = content["accessors"][number]
    view = content["bufferViews"][accessor["bufferView"]]
    part = bytearray(body[view["byteOffset"] : view["byteOffset"] + view["byteLength"]])
    dtype = {5126: torch.float32, 5125: torch.int32}[accessor["componentType"]]
    return torch.frombuffer(part, dtype=dtype).view(accessor["count"], -1)


def test_a_glb_holds_the_mesh_and_its_texture(model, mesh):
    content, body = read_glb(to_glb(mesh, 1))
    (primitive,) = content["meshes"][0]["primitives"]
    at = primitive["attributes"]
    assert torch.equal(values(content, body, at["POSITION"]), mesh.vertices[1])
    assert torch.equal(values(content, body, at["NORMAL"]), mesh.normals[1])
    uv = values(content, body, at["TEXCOORD_0"])
    assert torch.allclose(1 - uv[:, 1], mesh.uv[:, 1], atol=1e-6)
    assert torch.equal(values(content, body, primitive["indices"]).view(-1, 3), mesh.faces.int())
    assert content["accessors"][at["POSITION"]]["min"] == pytest.approx(mesh.vertices[1].amin(0).tolist())
    assert all(view["byteOffset"] % 4 == 0 for view in content["bufferViews"])
    view = content["bufferViews"][content["images"][0]["bufferView"]]
    picture = Image.open(io.BytesIO(body[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]))
    assert picture.mode == "RGB"
    shown = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(picture.height, picture.width, 3)
    expected = (model.albedo(HeadParams.neutral())[0].clamp(0, 1) * 255).round().byte().movedim(0, -1)
    assert torch.equal(shown, expected)


@pytest.mark.parametrize("same", [True, False])
def test_each_head_has_its_texture_and_equal_ones_share_memory(model, same):
    heads = HeadParams.neutral(3)
    heads = heads.replace(texture=heads.texture.index_fill(0, torch.tensor([0, 1, 2] if same else [1]), 1.0))
    texture = head_mesh(model, heads).texture
    torch.testing.assert_close(texture, model.albedo(heads).clamp(0, 1))
    assert texture is not None and (texture.stride(0) == 0) == same


def test_a_model_without_uvs_makes_a_plain_mesh():
    model = golden_model(uv=None, uv_faces=None, albedo_uv=None)
    mesh = head_mesh(model, golden_heads())
    assert mesh.uv is None and torch.equal(mesh.faces, model.faces)
    content, _ = read_glb(to_glb(mesh))
    assert set(content["meshes"][0]["primitives"][0]["attributes"]) == {"POSITION", "NORMAL"}
    assert "f 1//1" in to_obj(mesh) or "//" in to_obj(mesh)


def bvh(text):
    """Read a BVH file: names with their offsets, and the motion."""
    head, _, motion = text.partition("MOTION\n")
    joints, name = {}, None
    for line in head.splitlines():
        words = line.split()
        if words[0] in ("ROOT", "JOINT"):
            name = words[1]
        elif words[0] == "OFFSET" and name not in joints:
            joints[name] = [float(x) for x in words[1:]]
    lines = motion.splitlines()
    return joints, lines[0], lines[1], torch.tensor([[float(x) for x in line.split()] for line in lines[2:]])


def test_motion_turns_the_joints(model):
    heads = random_heads(5)
    joints, frames, time, motion = bvh(to_bvh(model, heads, 25.0))
    assert tuple(joints) == JOINTS
    assert (frames, time) == ("Frames: 5", "Frame Time: 0.0400000")
    assert motion.shape == (5, 6 + 12)
    about = torch.deg2rad(motion[:, 3:].view(5, 5, 3))
    zero = torch.zeros_like(about[..., 0])
    z, x, y = (
        axis_angle_to_matrix(torch.stack(parts, dim=-1))
        for parts in ((zero, zero, about[..., 0]), (about[..., 1], zero, zero), (zero, about[..., 2], zero))
    )
    turns = torch.cat([heads.rotation, heads.neck, heads.jaw, heads.eyes], dim=1).view(5, 5, 3)
    assert torch.allclose(z @ x @ y, axis_angle_to_matrix(turns), atol=1e-5)
    moved = (
        motion[:, :3] / 100
        - model.rig.joints[0]
        - model.coefficients(heads.shape[:1], heads.expression[:1])[0] @ model.rig.joint_basis[:, 0]
    )
    s, tx, ty = heads.camera.unbind(1)
    assert torch.allclose(moved[:, 0], tx / s, atol=1e-5) and torch.allclose(moved[:, 1], -ty / s, atol=1e-5)


def test_angles_of_the_channels_at_a_quarter_turn():
    matrix = axis_angle_to_matrix(torch.tensor([[torch.pi / 2, 0, 0], [0, torch.pi / 2, 0], [0, 0, torch.pi / 2]]))
    assert torch.allclose(euler_zxy(matrix), torch.tensor([[0, 1, 0], [0, 0, 1], [1, 0, 0]]) * torch.pi / 2, atol=1e-3)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_a_frame_rate_of_nothing_is_refused(model, rate):
    with pytest.raises(BadInput, match="frame rate above 0"):
        to_bvh(model, HeadParams.neutral(), rate)
