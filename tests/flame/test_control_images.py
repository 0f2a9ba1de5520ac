"""Control images: their conventions, and their drawing against OpenCV's."""

import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from capface.errors import BadInput, MissingPackage
from capface.flame.builtin import builtin_head
from capface.flame.control_images import KINDS, control_image, drawing, edges, face_points
from capface.flame.control_images.surface import NORMALS, depth_picture, head_surface
from capface.flame.model import HeadParams
from capface.flame.render import landmark_pixels, render_head
from capface.tests.flame.heads import golden_heads, golden_model

HEIGHT, WIDTH = 160, 128


@pytest.fixture(scope="module")
def model():
    return builtin_head()


@pytest.fixture(scope="module")
def heads():
    """A frontal head, and one turned to the viewer's right."""
    turned = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.7, 0.0]])
    return HeadParams.neutral(2).replace(rotation=turned, camera=torch.tensor([[5.0, 0.0, 0.0], [5.0, 0.1, 0.0]]))


def picture(kind, model, heads, **options):
    return control_image(kind, model, heads, HEIGHT, WIDTH, **options).picture


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_picture_of_each_head_at_the_given_size(model, heads, kind):
    made = control_image(kind, model, heads, HEIGHT, WIDTH)
    assert made.picture.shape == (2, 3, HEIGHT, WIDTH)
    assert made.picture.min() >= 0 and made.picture.max() <= 1
    assert not torch.equal(made.picture[0], made.picture[1])
    assert torch.equal(made.mask, render_head(model, heads, HEIGHT, WIDTH).alpha)
    assert len(made.keypoints) == 2


def test_depth_is_inverse_near_is_bright_and_each_picture_spans_the_range(model, heads):
    surface = head_surface(model, heads, HEIGHT, WIDTH)
    depth = depth_picture(surface, 0.3)[:, 0]
    inside = surface.alpha[:, 0] > 0
    for one, z, here in zip(depth, surface.height[:, 0], inside, strict=True):
        assert one[~here].unique().tolist() == [0]
        assert one.max() == 1
        behind = z[here].max() - z[here]
        assert torch.allclose(one[here], 0.3 / (0.3 + behind), atol=1e-6)
    nose = landmark_pixels(model, heads, HEIGHT, WIDTH)[0, 30].long()
    assert depth[0, nose[1], nose[0]] > 0.98
    assert depth_picture(surface, 3.0)[:, 0][inside].min() > depth[inside].min()


def test_depth_without_background_spans_the_range_too(model):
    near = HeadParams.neutral().replace(camera=torch.tensor([[60.0, 0.0, 0.0]]))
    depth = picture("depth", model, near)
    assert (render_head(model, near, HEIGHT, WIDTH).alpha == 1).all()
    assert depth.min() == 0
    assert depth.max() == 1


def test_depth_of_an_empty_frame_is_black(model):
    away = HeadParams.neutral().replace(camera=torch.tensor([[5.0, 9.0, 0.0]]))
    assert not picture("depth", model, away).any()


# Red, green and blue where the surface faces the viewer, the viewer's left, and up. Arc2Face's normals are not of unit length.
@pytest.mark.parametrize(
    ("kind", "front", "left", "up", "background"),
    [
        ("normal BAE", (0.5, 0.5, 1), (1, 0.5, 0.5), (0.5, 1, 0.5), (0.5, 0.5, 1)),
        ("normal OpenGL", (0.5, 0.5, 1), (0, 0.5, 0.5), (0.5, 1, 0.5), (0.5, 0.5, 1)),
        ("normal MiDaS", (1, 0.5, 0.5), (0.5, 0.5, 1), (0.5, 1, 0.5), (1, 0.5, 0.5)),
        ("normal Arc2Face", (0.5, 0.5, 1), (0, 0.5, 0.5), (0.5, 1, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_axes_of_normals(model, heads, kind, front, left, up, background):
    surface = head_surface(model, heads[:1], HEIGHT, WIDTH)
    colors = picture(kind, model, heads[:1])[0]
    normal = surface.normal[0]
    for axis, sign, color in ((2, 1, front), (0, -1, left), (1, 1, up)):
        place = divmod(int((sign * normal[axis]).argmax()), WIDTH)
        assert sign * normal[axis][place] > 0.9
        assert torch.allclose(colors[:, place[0], place[1]], torch.tensor(color), atol=0.22)
        assert colors[:, place[0], place[1]].sub(0.5).abs().argmax() == torch.tensor(color).sub(0.5).abs().argmax()
    assert torch.allclose(colors[:, 0, 0], torch.tensor(background), atol=1e-6)
    length = (2 * colors - 1).norm(dim=0)[surface.alpha[0, 0] > 0]
    assert torch.allclose(length, torch.ones(()), atol=1e-4) == NORMALS[kind].unit


def test_arc2face_normals_are_those_of_the_released_renderer():
    """Render Head's normals equal the golden ones (test_maps); Arc2Face's demo saves `n · 0.5 + 0.5`."""
    model, heads = golden_model(), golden_heads()
    expected = render_head(model, heads, 64, 64).normal * 0.5 + 0.5
    surface = head_surface(model, heads, 64, 64)
    assert torch.allclose(surface.normal * 0.5 + 0.5, expected, atol=1e-5)


def test_a_surface_needs_neither_uvs_nor_texture():
    model = golden_model(albedo_uv=None)
    assert head_surface(model, golden_heads(), 32, 32).alpha.any()


def test_canny_finds_the_outline_and_lower_thresholds_find_more(model, heads):
    lines = picture("canny", model, heads)[:, 0]
    assert set(lines.unique().tolist()) == {0.0, 1.0}
    alpha = render_head(model, heads, HEIGHT, WIDTH).alpha
    outline = (torch.nn.functional.max_pool2d(alpha, 3, 1, 1) - alpha)[:, 0] > 0
    near = torch.nn.functional.max_pool2d(lines[:, None], 5, 1, 2)[:, 0] > 0
    assert near[outline].float().mean() > 0.97
    assert picture("canny", model, heads, low=0.4, high=0.8).sum() < picture("canny", model, heads, low=0.05, high=0.1).sum()


def test_canny_is_opencvs_within_a_pixel(model, heads):
    cv2 = pytest.importorskip("cv2")
    grey = (edges.edge_source(render_head(model, heads, HEIGHT, WIDTH))[:, 0] * 255).round().byte().numpy()
    theirs = np.stack([cv2.Canny(cv2.GaussianBlur(g, (5, 5), 1), 38, 77, L2gradient=True) for g in grey]) > 0
    mine = picture("canny", model, heads)[:, 0].numpy() > 0
    for one, other in ((mine, theirs), (theirs, mine)):
        near = torch.nn.functional.max_pool2d(torch.from_numpy(other)[:, None].float(), 3, 1, 1)[:, 0].numpy() > 0
        assert near[one].mean() > 0.97


def test_soft_edges_are_bright_at_edges_and_dark_elsewhere(model, heads):
    soft, lines = picture("soft edge", model, heads)[:, 0], picture("canny", model, heads)[:, 0]
    far = torch.nn.functional.max_pool2d(lines[:, None], 31, 1, 15)[:, 0] == 0
    assert soft[lines > 0].median() > 0.5
    assert soft[far].median() < 0.05


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.5), (0.5, 0.4), (0.5, 1.0)])
def test_thresholds_out_of_order_are_refused(model, heads, low, high):
    with pytest.raises(BadInput, match="0 < low < high < 1"):
        picture("canny", model, heads, low=low, high=high)


def test_a_missing_kornia_is_named_and_other_kinds_work(model, heads, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia", None)
    for options in ({"kind": "canny"}, {"kind": "soft edge"}, {"kind": "depth", "grow": 1}):
        with pytest.raises(MissingPackage, match="pip install kornia"):
            picture(options.pop("kind"), model, heads, **options)
    assert picture("depth", model, heads).any()


def test_masks_grow_round_shrink_and_fade():
    mask = torch.zeros(1, 1, 101, 101)
    mask[..., 50, 50] = 1
    grown = edges.shape_mask(mask, 30, 0)
    rows, columns = (grown[0, 0] > 0).nonzero().unbind(1)
    reach = ((rows - 50) ** 2 + (columns - 50) ** 2).float().sqrt()
    assert (columns - 50).abs().max() == 30
    border = torch.nn.functional.max_pool2d(1 - grown, 3, 1, 1)[0, 0] * grown[0, 0] > 0
    rows, columns = border.nonzero().unbind(1)
    reach = ((rows - 50) ** 2 + (columns - 50) ** 2).float().sqrt()
    assert reach.min() > 27
    assert reach.max() < 33
    assert edges.shape_mask(grown, -30, 0).sum() <= 9
    assert torch.equal(edges.shape_mask(grown, 0, 0), grown)
    soft = edges.shape_mask(grown, 0, 16)[0, 0, 50]
    assert soft[50] > 0.99
    assert 0.4 < soft[80] < 0.6
    assert soft[92] < 0.01
    with pytest.raises(BadInput, match="at most 512 pixels"):
        edges.shape_mask(mask, 513, 0)


def test_keypoints_are_the_landmarks_and_pupils(model, heads):
    points = face_points.face_keypoints(model, heads, HEIGHT, WIDTH)
    assert torch.equal(points[:, :68], landmark_pixels(model, heads, HEIGHT, WIDTH))
    right, left = points[0, 68], points[0, 69]
    assert (right - points[0, 36:42].mean(0)).norm() < 1
    assert (left - points[0, 42:48].mean(0)).norm() < 1
    looking = heads[:1].replace(eyes=torch.tensor([[0.0, 0.5, 0.0, 0.0, 0.5, 0.0]]))
    moved = face_points.face_keypoints(model, looking, HEIGHT, WIDTH)[0, 68:] - points[0, 68:]
    assert (moved[:, 0] > 0.5).all()


def test_keypoints_in_openposes_json(model, heads):
    out = heads.replace(camera=torch.tensor([[5.0, 0.9, 0.0], [5.0, 0.0, 0.0]]))
    points = face_points.face_keypoints(model, out, HEIGHT, WIDTH)
    made = control_image("depth", model, out, HEIGHT, WIDTH).keypoints
    for pose, face in zip(made, points, strict=True):
        assert (pose["canvas_width"], pose["canvas_height"]) == (WIDTH, HEIGHT)
        (person,) = pose["people"]
        assert person["pose_keypoints_2d"] == [0.0] * 54
        numbers = torch.tensor(person["face_keypoints_2d"]).view(-1, 3)
        assert len(numbers) == 70
        visible = (face >= 0).all(1) & (face[:, 0] < WIDTH) & (face[:, 1] < HEIGHT)
        assert torch.equal(numbers[:, 2] == 1, visible)
        assert torch.allclose(numbers[visible, :2], face[visible])
        assert not numbers[~visible].any()
    assert 0 < sum(made[0]["people"][0]["face_keypoints_2d"][2::3]) < 70


def drawn(points, draw):
    return (draw(points, HEIGHT, WIDTH)[0] * 255).round().byte().movedim(0, -1).numpy()


def test_keypoints_are_drawn_as_dwpose_draws_them(model, heads):
    cv2 = pytest.importorskip("cv2")
    points = face_points.face_keypoints(model, heads[:1], HEIGHT, WIDTH)
    theirs = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for x, y in points[0].tolist():
        cv2.circle(theirs, (int(x), int(y)), 3, (255, 255, 255), thickness=-1)
    assert np.array_equal(drawn(points, face_points.keypoint_picture), theirs)


def test_the_face_mesh_is_drawn_as_by_mediapipe(model, heads):
    cv2 = pytest.importorskip("cv2")
    points = face_points.mesh_pixels(model, heads[1:], HEIGHT, WIDTH)
    theirs = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    chains = [(color, chain) for color, part in face_points._MESH_LINES for chain in part]
    assert sum(len(chain) - 1 for _, chain in chains) == 36 + 2 * 16 + 2 * 8 + 40
    place: list = [(int(x), int(y)) if x == x else None for x, y in points[0].tolist()]
    for color, chain in chains:
        for a, b in pairwise(chain):
            cv2.line(theirs, place[a], place[b], color, 2)
    for index, color in ((468, (250, 200, 10)), (473, (10, 200, 250))):
        x, y = place[index]
        theirs[y - 2 : y + 2, x - 2 : x + 2] = color
    mine = drawn(points, face_points.mesh_picture)
    common = mine.any(-1) & theirs.any(-1)
    assert common.sum() / (mine.any(-1) | theirs.any(-1)).sum() > 0.99
    assert (mine == theirs).all(-1)[common].mean() > 0.99


def test_the_right_eye_of_the_mesh_is_on_the_viewers_left(model, heads):
    points = face_points.mesh_pixels(model, heads[:1], HEIGHT, WIDTH)
    mesh = drawn(points, face_points.mesh_picture)
    yellow, cyan = (mesh == (180, 200, 10)).all(-1).nonzero()[1], (mesh == (10, 200, 180)).all(-1).nonzero()[1]
    assert yellow.max() < WIDTH / 2 < cyan.min()
    landmarks = landmark_pixels(model, heads[:1], HEIGHT, WIDTH)
    assert (points[:, 61] - landmarks[:, 48]).norm() < 2
    assert (points[:, 152] - landmarks[:, 8]).norm() < 4


def test_five_points_are_drawn_as_instantid_draws_them(model, heads):
    cv2 = pytest.importorskip("cv2")
    heads = heads[1:].replace(rotation=torch.tensor([[0.2, 0.5, 0.4]]))
    points = face_points.five_points(model, heads, HEIGHT, WIDTH)
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)]
    places = points[0].double().numpy()
    theirs = np.zeros((HEIGHT, WIDTH, 3))
    for i in (0, 1, 3, 4):
        (x1, y1), (x2, y2) = places[i], places[2]
        degrees = int(np.degrees(np.arctan2(y1 - y2, x1 - x2)))
        axes = int(np.hypot(x1 - x2, y1 - y2) / 2), 4
        shape = cv2.ellipse2Poly((int((x1 + x2) / 2), int((y1 + y2) / 2)), axes, degrees, 0, 360, 1)
        theirs = cv2.fillConvexPoly(theirs, shape, colors[i])
    theirs = (theirs * 0.6).astype(np.uint8)
    for (x, y), color in zip(places, colors, strict=True):
        theirs = cv2.circle(theirs, (int(x), int(y)), 10, color, -1)
    mine = drawn(points, face_points.five_point_picture)
    assert (mine == theirs).all(-1).mean() > 0.999


@pytest.mark.parametrize("seed", range(3))
def test_shapes_are_opencvs(seed):
    cv2 = pytest.importorskip("cv2")
    random = np.random.default_rng(seed)
    same = total = 0
    for _ in range(60):
        mine, theirs = np.zeros((2, 96, 96, 3), np.uint8)
        start = random.integers(-8, 104, 2)
        end = start + random.integers(-25, 26, 2)
        start, end = (int(start[0]), int(start[1])), (int(end[0]), int(end[1]))
        drawing.line(mine, start, end, (1, 2, 3))
        cv2.line(theirs, start, end, (1, 2, 3), 2)
        same += (mine.any(-1) & theirs.any(-1)).sum()
        total += (mine.any(-1) | theirs.any(-1)).sum()
        mine[:], theirs[:] = 0, 0
        radius = int(random.integers(0, 12))
        drawing.disc(mine, start, radius, (1, 2, 3))
        cv2.circle(theirs, start, radius, (1, 2, 3), -1)
        assert np.array_equal(mine, theirs)
    assert same / total > 0.97


def test_points_outside_are_left_out(model):
    away = HeadParams.neutral().replace(camera=torch.tensor([[5.0, 9.0, 0.0]]))
    for kind in ("face keypoints", "face mesh", "five points"):
        assert not picture(kind, model, away).any()


def test_an_unknown_kind_is_refused(model, heads):
    with pytest.raises(BadInput, match=r"Expected a control image among depth, .*; got lines"):
        picture("lines", model, heads)
