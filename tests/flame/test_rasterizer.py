import pytest
import torch

from capface.errors import BadInput
from capface.flame import rasterize as draw
from capface.flame.model.camera import frame_to_ndc
from capface.flame.render.rasterizer import CHUNK
from capface.tests.flame.heads import sphere


def centres(height, width):
    """Image NDC `[H, W, 2]` of pixel centres."""
    y = (2 * torch.arange(height) + 1) / height - 1
    x = (2 * torch.arange(width) + 1) / width - 1
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)


def brute_force(vertices, faces, height, width):
    """Find the nearest face at each pixel by testing every face, in double precision."""
    a, b, c = vertices.double()[faces].unbind(1)
    p = centres(height, width).double().view(-1, 1, 2)

    def side(s, t):
        return (t[:, 0] - s[:, 0]) * (p[..., 1] - s[:, 1]) - (t[:, 1] - s[:, 1]) * (p[..., 0] - s[:, 0])

    w = torch.stack([side(b, c), side(c, a), side(a, b)], -1)
    w = w / w.sum(-1, keepdim=True)
    z = (w * torch.stack([a[:, 2], b[:, 2], c[:, 2]], -1)).sum(-1)
    z = torch.where((w > 0).all(-1), z, torch.inf)
    depth, face = z.min(1)
    return torch.where(depth.isfinite(), face, -1).view(height, width), depth.view(height, width)


def random_triangles(count, size=0.3):
    centre = 2.4 * torch.rand(count, 1, 3) - 1.2
    return (centre + size * torch.randn(count, 3, 3)).view(-1, 3), torch.arange(3 * count).view(count, 3)


@pytest.mark.parametrize(("height", "width", "size"), [(40, 40, 0.3), (31, 57, 0.05), (64, 24, 1.5), (1, 1, 1.0)])
def test_the_nearest_face_wins_as_in_brute_force(height, width, size):
    vertices, faces = random_triangles(60, size)
    face, depth = brute_force(vertices, faces, height, width)
    seen = draw(vertices[None], faces, height, width)
    different = seen.face[0] != face
    assert different.float().mean() <= 0.001
    z = (vertices[faces[seen.face[0].clamp(min=0)]][..., 2] * seen.barycentric[0]).sum(-1)
    where = (face >= 0) & ~different
    torch.testing.assert_close(z[where], depth[where].float(), atol=1e-4, rtol=1e-4)


def test_barycentrics_give_back_the_pixel_and_sum_to_1():
    vertices, faces = sphere()
    vertices = 0.8 * vertices
    seen = draw(vertices[None], faces, 50, 70)
    covered = seen.face[0] >= 0
    weights = seen.barycentric[0][covered]
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    assert weights.min() >= 0 and seen.barycentric[0][~covered].count_nonzero() == 0
    back = (vertices[faces[seen.face[0][covered]]][..., :2] * weights[..., None]).sum(1)
    torch.testing.assert_close(back, centres(50, 70)[covered], atol=1e-5, rtol=0)


def test_faces_that_share_edges_leave_no_gap_and_no_overlap():
    # A lattice with its corners exactly on pixel centres: every edge passes through centres.
    n, pixels = 8, 32
    line = (2 * torch.arange(0, pixels, pixels // n) + 1) / pixels - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    vertices = torch.stack([x, y, torch.zeros_like(x)], -1).view(-1, 3)
    i, j = torch.meshgrid(torch.arange(n - 1), torch.arange(n - 1), indexing="ij")
    a = (i * n + j).flatten()
    faces = torch.cat([torch.stack([a, a + 1, a + n], 1), torch.stack([a + 1, a + n + 1, a + n], 1)])
    inside = pixels // n * (n - 1)
    one_at_a_time = torch.stack([draw(vertices[None], face[None], pixels, pixels).face >= 0 for face in faces]).sum(0)
    assert one_at_a_time[0, :inside, :inside].eq(1).all() and one_at_a_time.sum() == inside**2


def test_a_sphere_is_a_disc_without_holes():
    vertices, faces = sphere(64, 128)
    seen = draw(0.9 * vertices[None], faces, 101, 101)
    radius = centres(101, 101).norm(dim=-1)
    assert (seen.face[0][radius < 0.895] >= 0).all() and (seen.face[0][radius > 0.9] == -1).all()
    # The near side has negative z: smaller is nearer.
    assert vertices[faces[seen.face[0][50, 50]]][:, 2].max() < 0


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 64), (64, 160)])
def test_every_aspect_shows_the_same_at_the_same_place(height, width):
    vertices, faces = sphere(16, 32)
    vertices = vertices * 0.6 + torch.tensor([0.2, -0.1, 0])
    square = draw(vertices[None], faces, 64, 64).face[0]
    seen = draw(frame_to_ndc(vertices, height, width)[None], faces, height, width).face[0]
    top, left = (height - 64) // 2, (width - 64) // 2
    assert (seen[top : top + 64, left : left + 64] != square).float().mean() < 0.001
    assert (seen >= 0).sum() == (square >= 0).sum()


def test_a_batch_equals_its_images_one_by_one():
    vertices, faces = random_triangles(40)
    batch = torch.stack([vertices, vertices.flip(-1), vertices * 0.1])
    together = draw(batch, faces, 33, 47)
    for i in range(3):
        alone = draw(batch[i : i + 1], faces, 33, 47)
        assert torch.equal(together.face[i], alone.face[0]) and torch.equal(together.barycentric[i], alone.barycentric[0])


def test_equal_depths_go_to_the_smaller_number():
    triangle = torch.tensor([[-1.0, -1, 0.5], [3.0, -1, 0.5], [-1.0, 3, 0.5]])
    seen = draw(triangle[None], torch.tensor([[0, 1, 2], [0, 2, 1]]), 8, 8)
    assert seen.face.eq(0).all()


def test_both_sides_are_visible():
    triangle = torch.tensor([[[-1.0, -1, 0], [3.0, -1, 0], [-1.0, 3, 0]]])
    for order in ([[0, 1, 2]], [[0, 2, 1]]):
        assert draw(triangle, torch.tensor(order), 6, 6).face.eq(0).all()


def test_work_in_chunks_changes_nothing():
    layers = 2 * CHUNK // (200 * 200) + 3
    triangle = torch.tensor([[-1.0, -1, 0], [3.0, -1, 0], [-1.0, 3, 0]])
    depths = torch.rand(layers)
    vertices = triangle.repeat(layers, 1, 1)
    vertices[..., 2] = depths[:, None]
    seen = draw(vertices.view(1, -1, 3), torch.arange(3 * layers).view(-1, 3), 200, 200)
    assert seen.face.eq(depths.argmin()).all()


def test_faces_without_area_or_finite_corners_are_not_drawn():
    good, faces = random_triangles(5)
    bad = torch.tensor([[float("nan"), 0, 0], [1.0, 1, 0], [-1.0, 1, -9], [float("inf"), 0, -9], [0.0, 0.0, -9]])
    more = torch.tensor([[15, 16, 17], [16, 17, 18], [19, 19, 19], [16, 17, 16]])
    plain = draw(good[None], faces, 20, 20)
    assert torch.equal(draw(torch.cat([good, bad])[None], torch.cat([faces, more]), 20, 20).face, plain.face)


def test_corners_far_outside_do_no_harm():
    huge = torch.tensor([[[-1e6, -1e6, 0.0], [1e6, -1e6, 0.0], [0.0, 2e6, 0.0]]])
    seen = draw(huge, torch.tensor([[0, 1, 2]]), 16, 16)
    assert seen.face.eq(0).all() and torch.isfinite(seen.barycentric).all()


def test_an_empty_mesh_leaves_the_image_empty():
    seen = draw(torch.zeros(2, 0, 3), torch.zeros(0, 3, dtype=torch.int64), 5, 6)
    assert seen.face.shape == (2, 5, 6) and seen.face.eq(-1).all() and seen.barycentric.count_nonzero() == 0


@pytest.mark.usefixtures("without_type_checks")
def test_wrong_shapes_are_refused():
    with pytest.raises(BadInput, match=r"\[4, 3\]"):
        draw(torch.zeros(4, 3), torch.zeros(1, 3, dtype=torch.int64), 8, 8)
    with pytest.raises(BadInput, match="0 × 8"):
        draw(torch.zeros(1, 4, 3), torch.zeros(1, 3, dtype=torch.int64), 0, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_draws_what_the_cpu_draws():
    vertices, faces = sphere(48, 96)
    gpu = torch.device("cuda")
    there, here = draw(vertices[None].to(gpu), faces.to(gpu), 200, 300), draw(vertices[None], faces, 200, 300)
    assert (there.face.cpu() != here.face).float().mean() < 0.001
