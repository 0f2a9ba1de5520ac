"""Small heads that several tests use."""

import dataclasses

import numpy as np
import torch

from capface.flame import HeadModel, HeadParams
from capface.tests.synthetic import FOLDER


def forward_numbers():
    """The arrays of the synthetic FLAME model, its inputs and its outputs."""
    return dict(np.load(FOLDER / "flame_forward.npz"))


def render_numbers():
    """The maps that the published code renders of that model."""
    return dict(np.load(FOLDER / "render.npz"))


def golden_model(**extra):
    """The synthetic FLAME model with the golden texture."""
    arrays = {name: value for name, value in forward_numbers().items() if not name.startswith(("in_", "out_"))}
    return HeadModel.from_arrays(**{**arrays, "albedo_uv": render_numbers()["albedo_uv"], **extra})


def golden_heads():
    """The four heads of the golden numbers, without their cameras."""
    numbers = {name: torch.from_numpy(value) for name, value in forward_numbers().items() if name.startswith("in_")}
    return HeadParams.neutral(4).replace(
        shape=numbers["in_shape"],
        expression=numbers["in_exp"],
        rotation=numbers["in_pose"][:, :3],
        jaw=numbers["in_pose"][:, 3:],
    )


def random_heads(batch, scale=0.1):
    """Random heads with values in every field."""
    head = HeadParams.neutral(batch)
    noise = {field.name: scale * torch.randn_like(getattr(head, field.name)) for field in dataclasses.fields(head)}
    return HeadParams(**{name: getattr(head, name) + value for name, value in noise.items()})


def sphere(rings=24, sectors=48):
    """A unit sphere: vertices `[V, 3]`, faces `[F, 3]` counter-clockwise from outside, for `rings · sectors` quads."""
    polar = torch.linspace(0, torch.pi, rings + 1)[:, None].expand(-1, sectors)
    around = (torch.arange(sectors) * (2 * torch.pi / sectors)).expand(rings + 1, -1)
    vertices = torch.stack([polar.sin() * around.sin(), polar.cos(), polar.sin() * around.cos()], -1).flatten(0, 1)
    ring, sector = torch.meshgrid(torch.arange(rings), torch.arange(sectors), indexing="ij")
    a, b = ring * sectors + sector, ring * sectors + (sector + 1) % sectors
    faces = torch.cat([torch.stack([a, a + sectors, b + sectors], -1), torch.stack([a, b + sectors, b], -1)])
    return vertices, faces.flatten(0, 1)
