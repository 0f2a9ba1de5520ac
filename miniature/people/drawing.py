"""Render synthetic people: head, hair, glasses and shoulders in one z-buffer, in the light of `HeadParams`.

Conventions: as in `flame/render`. The picture is albedo times shading, clamped to 0..1, without gamma, over the background.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...flame.builtin import builtin_head
from ...flame.builtin.mesh import head_mesh
from ...flame.model import HeadParams, axis_angle_to_matrix, frame_to_ndc, project, shade
from ...flame.render import rasterize, sample_texture, vertex_normals
from ...shapes import Float
from . import accessories
from .backdrops import backdrop
from .g_buffers import Surfaces
from .person import GLASSES, HAIR_COLOURS, SHIRTS, Person, Setting
from .skin import KEPT_PEOPLE, skin_texture

SUPERSAMPLING = 2
"""Samples per pixel along each side."""


def draw_people(
    people: Sequence[Person], heads: HeadParams, settings: Sequence[Setting], size: int
) -> Float[Tensor, "B 3 {size} {size}"]:
    """Render pictures of people.

    Args:
        people: The person in each picture.
        heads: Pose, expression and light of each, on the CPU, with the neck at rest. Their shape and texture are ignored in
            favour of the person's.
        settings: Clothes and background of each.
        size: Side of the square pictures in pixels.

    Returns:
        RGB `[B, 3, size, size]` in 0..1.
    """
    side = size * SUPERSAMPLING
    pictures = [
        _picture(_rasterized(person, heads[i : i + 1], setting, side), heads.light[i], setting, side)
        for i, (person, setting) in enumerate(zip(people, settings, strict=True))
    ]
    return F.avg_pool2d(torch.stack(pictures), SUPERSAMPLING)


def draw_surfaces(
    people: Sequence[Person], heads: HeadParams, settings: Sequence[Setting], size: int
) -> tuple[Float[Tensor, "B 3 {size} {size}"], Surfaces]:
    """Render pictures of people, with their G-buffers.

    Args:
        people: The person in each picture.
        heads: B heads, as in `draw_people`.
        settings: Clothes and background of each.
        size: Side of the square pictures in pixels.

    Returns:
        RGB `[B, 3, size, size]` in 0..1, and their surfaces, of the same size.
    """
    side = size * SUPERSAMPLING
    pictures, pooled = [], []
    for i, (person, setting) in enumerate(zip(people, settings, strict=True)):
        visible = _rasterized(person, heads[i : i + 1], setting, side)
        pictures.append(_picture(visible, heads.light[i], setting, side))
        shown = torch.zeros(8, side * side)
        shown[:3, visible.samples] = visible.albedo * (visible.shirt == 0)
        shown[3, visible.samples] = visible.shirt
        shown[4, visible.samples] = 1
        shown[5:, visible.samples] = visible.normal
        pooled.append(F.avg_pool2d(shown.view(8, side, side), SUPERSAMPLING))
    paint, normal = torch.stack(pooled).split((5, 3), dim=1)
    normal = normal / paint[:, 4:].clamp(min=1e-6)
    surfaces = Surfaces((paint * 255).round().to(torch.uint8), (normal * 127).round().to(torch.int8))
    return F.avg_pool2d(torch.stack(pictures), SUPERSAMPLING), surfaces


class _Visible(NamedTuple):
    """The foreground samples of a picture."""

    samples: Tensor  # [N] their indices in the flat picture
    normal: Tensor  # [3, N]
    albedo: Tensor  # [3, N]
    shirt: Tensor  # [N] the albedo of a white shirt, 0 elsewhere


class _Scene(NamedTuple):
    """All meshes merged into one, the head's faces first."""

    vertices: Tensor  # [V, 3] head space
    normals: Tensor  # [V, 3]
    colours: Tensor  # [V, 3], not used on the head, which has a texture
    shirt: Tensor  # [V] as in _Visible
    faces: Tensor  # [F, 3] without those that cannot be visible
    number: Tensor  # [F] index of each face among all faces


def _picture(visible: _Visible, light: Tensor, setting: Setting, side: int) -> Tensor:
    picture = backdrop(setting.background, side, setting.seed).float().flatten(1)
    picture[:, visible.samples] = (visible.albedo * shade(visible.normal, light)).clamp(0, 1)
    return picture.view(3, side, side)


def _rasterized(person: Person, head: HeadParams, setting: Setting, side: int) -> _Visible:
    """Find the visible surface of each sample of a picture with `side * side` samples."""
    model = builtin_head()
    assert model.uv is not None and model.uv_faces is not None  # the built-in head has both
    scene = _build(person, head, setting)
    face, weights = rasterize(frame_to_ndc(project(scene.vertices[None], head.camera), side, side), scene.faces, side, side)
    samples = (face.view(-1) >= 0).nonzero().squeeze(1)
    nearest, weights = face.view(-1)[samples], weights.view(-1, 3)[samples].T.contiguous()
    # [3 corners, 7 attributes, F], gathered at the samples' faces. Channels first is the faster order.
    corners = torch.cat([scene.normals, scene.colours, scene.shirt[:, None]], dim=1)[scene.faces].permute(1, 2, 0)
    at_samples = corners.flatten(0, 1).index_select(1, nearest).view(3, 7, -1)
    normal, albedo, shirt = (at_samples * weights[:, None]).sum(0).split([3, 3, 1])
    normal = torch.where(normal[2] < 0, -normal, normal)  # sheets show their back too

    number = scene.number[nearest]
    on_head = (number < len(model.faces)).nonzero().squeeze(1)
    uv = (model.uv[model.uv_faces[number[on_head]]] * weights[:, on_head].T[..., None]).sum(1)
    albedo[:, on_head] = sample_texture(skin_texture(person), uv.T)
    return _Visible(samples, normal, albedo, shirt[0])


def _build(person: Person, head: HeadParams, setting: Setting) -> _Scene:
    model = builtin_head()
    head = head.replace(shape=person.shape_row())
    bare = model.vertices(head)[0]
    R, root = axis_angle_to_matrix(head.rotation)[0], _root(head)
    neck = bare[head_mesh().upper[-1]].mean(0) * torch.tensor([0.0, 1.0, 1.0])

    meshes = [(bare, model.faces, torch.zeros_like(bare), False)]
    shirt = accessories.shoulders(neck.numpy())
    white = torch.from_numpy(shirt.colours[:, 0].copy()).float()
    shirt = replace(shirt, colours=shirt.colours * SHIRTS[setting.shirt])
    for part in (*_worn(person), shirt):
        vertices = torch.from_numpy(part.vertices).float()
        if part.turns:  # v' = R (v - J) + J about the head's root
            vertices = (vertices - root) @ R.T + root
        meshes.append((vertices, torch.from_numpy(part.faces), torch.from_numpy(part.colours).float(), part.sheet))

    faces, kept, offset = [], [], 0
    for vertices, triangles, _, sheet in meshes:
        faces.append(triangles + offset)
        # The far side of a closed part is hidden. Culling it halves the work.
        kept.append(torch.ones(len(triangles), dtype=torch.bool) if sheet else _faces_viewer(vertices, triangles))
        offset += len(vertices)
    number = torch.cat(kept).nonzero().squeeze(1)
    return _Scene(
        torch.cat([mesh[0] for mesh in meshes]),
        torch.cat([vertex_normals(vertices[None], triangles)[0] for vertices, triangles, _, _ in meshes]),
        torch.cat([mesh[2] for mesh in meshes]),
        torch.cat([torch.zeros(offset - len(white)), white]),
        torch.cat(faces)[number],
        number,
    )


def _root(head: HeadParams) -> Tensor:
    """Return the joint `[3]` about which a head turns."""
    model = builtin_head()
    coefficients = model.coefficients(head.shape, head.expression)[0]
    return model.rig.joints[0] + coefficients @ model.rig.joint_basis[:, 0]


def _faces_viewer(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return which triangles face the viewer, bool `[F]`."""
    a, b, c = vertices[faces, :2].unbind(1)
    ab, ac = b - a, c - a
    return ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0] > 0


@lru_cache(maxsize=KEPT_PEOPLE)
def _worn(person: Person) -> tuple[accessories.Part, ...]:
    """Build hair and glasses on the person's head at rest."""
    model = builtin_head()
    rest = model.vertices(HeadParams.neutral().replace(shape=person.shape_row()))
    normals = vertex_normals(rest, model.faces)[0].numpy()
    colour = np.array(HAIR_COLOURS[person.hair_colour])
    worn = accessories.hair(rest[0].numpy(), model.rig.template.numpy(), normals, person.hair, colour, person.seed)
    if GLASSES[person.glasses] is not None:
        worn.append(accessories.glasses(rest[0].numpy(), np.array(GLASSES[person.glasses])))
    return tuple(worn)
