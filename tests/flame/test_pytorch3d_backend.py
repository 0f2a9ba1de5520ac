import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from capface.errors import MissingPackage
from capface.flame import HeadParams, rasterize, render_head
from capface.flame.builtin import builtin_head
from capface.flame.render.pytorch3d_backend import rasterize_pytorch3d
from capface.tests.flame.heads import golden_model, random_heads

INSTALLED = importlib.util.find_spec("pytorch3d") is not None


def rasterize_meshes(
    meshes,
    image_size,
    blur_radius,
    faces_per_pixel,
    perspective_correct,
    clip_barycentric_coords,
    cull_backfaces,
):
    """Do what PyTorch3D documents of its function, face by face and pixel by pixel, in its own conventions."""
    assert (blur_radius, faces_per_pixel) == (0, 1) and not (perspective_correct or clip_barycentric_coords or cull_backfaces)
    (H, W), B, F = image_size, len(meshes.verts), meshes.faces.shape[1]
    # x runs to the left and y upwards, ±1 over the short side.
    y, x = (-((2 * torch.arange(n) + 1) / n - 1) * n / min(H, W) for n in (H, W))
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    found, zbuf = torch.full((B, H, W, 1), -1), torch.full((B, H, W, 1), -1.0)
    weights = torch.full((B, H, W, 1, 3), -1.0)
    for b in range(B):
        for f, (p, q, r) in enumerate(meshes.verts[b][meshes.faces[b]]):
            area = cross(q - p, r - p)
            if area.abs() < 1e-8:
                continue
            corners = ((q, r), (r, p), (p, q))
            w = torch.stack([cross(end - start, pixels - start[:2]) for start, end in corners], -1) / area
            z = w @ torch.stack([p[2], q[2], r[2]])
            nearer = (w > 0).all(-1) & (z >= 0) & ((found[b, ..., 0] < 0) | (z < zbuf[b, ..., 0]))
            found[b, nearer, 0], zbuf[b, nearer, 0], weights[b, nearer, 0] = b * F + f, z[nearer], w[nearer]
    return found, zbuf, weights, torch.zeros_like(zbuf)


def cross(a, b):
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


@pytest.fixture
def documented(monkeypatch):
    """A pytorch3d that does by brute force what the documentation of the real one says."""
    for name, content in {
        "pytorch3d": {},
        "pytorch3d.renderer": {},
        "pytorch3d.renderer.mesh": {"rasterize_meshes": rasterize_meshes},
        "pytorch3d.structures": {"Meshes": lambda verts, faces: SimpleNamespace(verts=verts, faces=faces)},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


def agree(backend, vertices, faces, height, width):
    """Check that both rasterizers agree, except for pixels whose centres are on edges."""
    ours, theirs = (draw(vertices, faces, height, width) for draw in (rasterize, backend))
    both = (ours.face == theirs.face) & (ours.face >= 0)
    assert (ours.face != theirs.face).float().mean() < 0.002
    torch.testing.assert_close(ours.barycentric[both], theirs.barycentric[both], atol=1e-3, rtol=0)
    assert both.any() and (theirs.face < 0).any()
    assert theirs.barycentric[theirs.face < 0].count_nonzero() == 0


@pytest.mark.parametrize(("height", "width"), [(40, 40), (30, 48), (48, 30)])
@pytest.mark.usefixtures("documented")
def test_conventions_are_translated_both_ways(height, width):
    vertices = torch.rand(2, 30, 3) * 2.4 - 1.2
    faces = torch.arange(30).view(10, 3)
    agree(rasterize_pytorch3d, vertices, faces, height, width)


@pytest.mark.usefixtures("documented")
def test_a_head_looks_the_same_from_both():
    heads = random_heads(2, scale=0.05)
    ours, theirs = (render_head(golden_model(), heads, 24, 32, backend) for backend in ("built-in", "pytorch3d"))
    assert (ours.alpha != theirs.alpha).float().mean() < 0.005
    assert (ours.hint() - theirs.hint()).abs().mean() < 0.005


@pytest.mark.skipif(not INSTALLED, reason="pytorch3d is not installed")
@pytest.mark.parametrize(("height", "width"), [(128, 128), (96, 160), (160, 96)])
def test_pytorch3d_itself_agrees(height, width):
    model, heads = builtin_head(), random_heads(2, scale=0.05)
    ours, theirs = (render_head(model, heads, height, width, backend) for backend in ("built-in", "pytorch3d"))
    assert (ours.alpha != theirs.alpha).float().mean() < 0.001
    both = ((ours.alpha > 0) & (theirs.alpha > 0)).expand(-1, 9, -1, -1)
    assert (ours.hint() - theirs.hint())[both].abs().mean() < 2e-3


def test_a_missing_package_is_named_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    with pytest.raises(MissingPackage, match=r"pytorch3d.*INSTALL.*'built-in'"):
        render_head(golden_model(), HeadParams.neutral(), 8, 8, "pytorch3d")
