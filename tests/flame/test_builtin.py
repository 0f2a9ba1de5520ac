"""The built-in head: a closed, symmetric human head whose joints, components, landmarks and paint match their names."""

import math
import time
from typing import Any

import numpy as np
import pytest
import torch

from capface.flame.builtin import EXPRESSION_NAMES, SHAPE_NAMES, TEXTURE_NAMES, builtin_head
from capface.flame.builtin.mesh import head_mesh
from capface.flame.model.camera import frame_to_ndc, project
from capface.flame.model.landmarks import five_point_weights
from capface.flame.model.params import HeadParams
from capface.flame.render.maps import render_head
from capface.flame.render.rasterizer import rasterize

YAWS = (-90, -60, -30, 0, 30, 60, 90, 180)


@pytest.fixture(scope="module")
def head():
    return builtin_head()


def posed(scale=7.0, **fields):
    """One head with some fields set; shape, expression and texture as {name: amount}."""
    names = {"shape": SHAPE_NAMES, "expression": EXPRESSION_NAMES, "texture": TEXTURE_NAMES}
    params = HeadParams.neutral()
    changes = {"camera": torch.tensor([[scale, 0.0, 0.0]])}
    for field, value in fields.items():
        if field in names:
            changes[field] = torch.zeros_like(getattr(params, field))
            for name, amount in value.items():
                changes[field][0, names[field].index(name)] = amount
        else:
            changes[field] = torch.tensor([value], dtype=torch.float32)
    return params.replace(**changes)


def turned(yaw, **fields):
    return posed(rotation=(0.0, math.radians(yaw), 0.0), **fields)


def visible_faces(head, params, size=160):
    """Return the visible faces of each head, one entry per pixel, and its vertices."""
    vertices = head.vertices(params)
    seen = rasterize(frame_to_ndc(project(vertices, params.camera), size, size), head.faces, size, size).face
    return [(one[one >= 0], points) for one, points in zip(seen, vertices, strict=True)]


def eyeball(head, side):
    """The vertices of the person's left (1) or right (-1) eyeball."""
    return head.rig.weights[:, 3 if side > 0 else 4] == 1


# The mesh


def test_size_and_names(head):
    assert head.kind == "builtin"
    assert head.rig.template.shape[0] <= 6000
    assert head.faces.min() == 0 and head.faces.max() == head.rig.template.shape[0] - 1
    assert (head.shape_names, head.expression_names) == (SHAPE_NAMES, EXPRESSION_NAMES)
    assert len(set(SHAPE_NAMES)) == head.n_shape >= 20
    assert len(set(EXPRESSION_NAMES)) == head.n_expression >= 20
    assert len(set(TEXTURE_NAMES)) == head.texture_basis.shape[0] >= 8


def numpy_random_state():
    return np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002


def test_is_built_once_in_little_time_and_always_the_same(head):
    assert builtin_head() is head
    torch_state, numpy_state = torch.get_rng_state(), numpy_random_state()
    start = time.process_time()
    again = builtin_head.__wrapped__()
    assert time.process_time() - start < 2.0
    assert torch.equal(again.rig.template, head.rig.template) and torch.equal(again.rig.basis, head.rig.basis)
    assert again.texture_mean is not None and again.texture_basis is not None
    assert torch.equal(again.texture_mean, head.texture_mean) and torch.equal(again.texture_basis, head.texture_basis)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(numpy_random_state(), numpy_state)


def test_every_edge_joins_two_faces_of_consistent_orientation(head):
    edges = torch.cat([head.faces[:, [0, 1]], head.faces[:, [1, 2]], head.faces[:, [2, 0]]])
    V = head.rig.template.shape[0]
    codes, counts = (edges[:, 0] * V + edges[:, 1]).unique(return_counts=True)
    assert (counts == 1).all(), "two faces run along an edge in the same direction"
    twins = edges[:, 1] * V + edges[:, 0]
    open_edges = edges[~torch.isin(twins, codes)]
    # only the neck's end may be open to the outside; the other borders are inside the head
    depth = head.rig.template[open_edges].mean(1)
    at_neck = depth[:, 1] < head.rig.template[:, 1].min() + 1e-4
    assert 40 < int(at_neck.sum()) < 100
    assert len(open_edges) < 0.03 * len(codes)


@pytest.mark.parametrize("face", ["rest", "open", "closed"])
def test_no_hole_is_visible_from_any_direction(head, face):
    fields = {
        "rest": {},
        "open": {"jaw": (0.3, 0.0, 0.0)},
        "closed": {"expression": {"eye_closed_left": 2.0, "eye_closed_right": 2.0}},
    }[face]
    views = visible_faces(head, HeadParams.cat([turned(yaw, **fields) for yaw in YAWS]))
    for yaw, (seen, vertices) in zip(YAWS, views, strict=True):
        a, b, c = vertices[head.faces[seen]].unbind(1)
        normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
        backs = (normal[:, 2] < -0.02).float().mean()
        assert backs < 2e-3, f"{float(backs):.2%} of what is seen at {yaw}° is the inside of the surface"


def test_proportions_are_human(head):
    v = head.rig.template
    low, high = v.min(0).values, v.max(0).values
    points = head.fixed_landmarks(v[None])[0]
    chin, brow, nose_base = points[8, 1], points[[19, 24], 1].mean(), points[33, 1]
    height = high[1] - chin
    assert 0.20 < height < 0.25
    assert 0.60 < 2 * float(v[v[:, 1] > 0.07, 0].max()) / height < 0.72
    assert 0.17 < high[2] - low[2] < 0.23
    eyes = points[36:48, 1].mean()
    assert abs((eyes - chin) / height - 0.5) < 0.03
    assert 0.85 < (brow - nose_base) / (nose_base - chin) < 1.2
    eye_width, between = points[39, 0] - points[36, 0], points[42, 0] - points[39, 0]
    assert 0.85 < between / eye_width < 1.35
    assert 0.055 < head.rig.joints[3, 0] - head.rig.joints[4, 0] < 0.07
    assert points[:, :2].abs().max() < 0.1


def test_left_mirrors_right(head):
    mesh = head_mesh()
    pairs = torch.from_numpy(np.where(mesh.side > 0, mesh.right[mesh.source], mesh.source))
    flip = torch.tensor([-1.0, 1.0, 1.0])
    assert torch.equal(pairs[pairs], torch.arange(len(pairs)))
    assert torch.equal(head.rig.template * flip, head.rig.template[pairs])
    assert torch.equal(head.rig.weights[:, :3], head.rig.weights[pairs, :3])
    shapes = head.rig.basis[: head.n_shape]
    assert torch.allclose(shapes * flip, shapes[:, pairs], atol=1e-6)
    for name in EXPRESSION_NAMES:
        if name.endswith("_left") and (other := name[:-5] + "_right") in EXPRESSION_NAMES:
            left, right = (head.rig.basis[head.n_shape + EXPRESSION_NAMES.index(side)] for side in (name, other))
            assert torch.allclose(left * flip, right[pairs], atol=1e-6), name


# Joints


def test_weights_and_joints(head):
    assert head.rig.parents == (-1, 0, 1, 1, 1)
    assert (head.rig.weights >= 0).all()
    assert torch.allclose(head.rig.weights.sum(1), torch.ones(len(head.rig.weights)), atol=1e-6)
    for side, joint in ((1, 3), (-1, 4)):
        ball = head.rig.template[eyeball(head, side)]
        reach = (ball - head.rig.joints[joint]).norm(dim=1)
        assert reach.min() > 0.95 * reach.max(), "the eye does not turn about its middle"
        assert side * head.rig.joints[joint, 0] > 0


def test_jaw_opens_the_mouth_and_leaves_the_upper_face(head):
    rest, opened = (head.landmarks(posed(jaw=(angle, 0.0, 0.0)))[0] for angle in (0.0, 0.3))
    gap = opened[[61, 62, 63], 1] - opened[[67, 66, 65], 1]
    assert (rest[[61, 62, 63], 1] - rest[[67, 66, 65], 1]).abs().max() < 5e-4
    assert (gap > 0.015).all()
    assert (opened[17:48] - rest[17:48]).norm(dim=1).max() < 1e-3
    assert rest[8, 1] - opened[8, 1] > 0.014
    corner = (rest[48, 1] - opened[48, 1]) / (rest[66, 1] - opened[66, 1])
    assert 0.2 < corner < 0.8


def test_eyes_turn_alone(head):
    rest = head.vertices(posed())[0]
    turned_left = head.vertices(posed(eyes=(0.0, 0.35, 0.0, 0.0, 0.0, 0.0)))[0]
    moved = (turned_left - rest).norm(dim=1) > 1e-7
    ball = eyeball(head, 1)
    assert not (moved & ~ball).any()
    pupil = rest[ball][:, 2].argmax()
    radius = (rest[ball][pupil] - head.rig.joints[3]).norm()
    assert torch.isclose(turned_left[ball][pupil, 0] - rest[ball][pupil, 0], radius * math.sin(0.35), rtol=1e-3)
    assert (turned_left[ball] - rest[ball]).norm(dim=1).max() > 0.002


# Components


def test_components_are_bounded_and_independent(head):
    reach = head.rig.basis.norm(dim=2).max(dim=1).values
    names = SHAPE_NAMES + EXPRESSION_NAMES
    for name, amount in zip(names, reach.tolist(), strict=True):
        assert 3e-4 < amount < 0.015, f"{name} moves the mesh by {1000 * amount:.2f} mm"
    unit = torch.nn.functional.normalize(head.rig.basis.flatten(1).double(), dim=1)
    cosines = unit @ unit.T - torch.eye(len(names), dtype=torch.float64)
    worst = divmod(int(cosines.abs().argmax()), len(names))
    assert cosines.abs().max() < 0.92, f"{names[worst[0]]} and {names[worst[1]]} are alike"
    assert torch.linalg.svdvals(unit).min() > 0.05


@pytest.mark.parametrize(
    ("name", "measure", "unit"),
    [
        ("face_length", lambda p: p[27, 1] - p[8, 1], 0.002),
        ("face_width", lambda p: p[15, 0] - p[1, 0], 0.003),
        ("jaw_width", lambda p: p[12, 0] - p[4, 0], 0.003),
        ("chin_length", lambda p: p[57, 1] - p[8, 1], 0.003),
        ("nose_length", lambda p: p[27, 1] - p[33, 1], 0.002),
        ("nose_width", lambda p: p[35, 0] - p[31, 0], 0.002),
        ("nose_tip", lambda p: p[30, 2] - p[33, 2], 0.001),
        ("eye_spacing", lambda p: p[42:48, 0].mean() - p[36:42, 0].mean(), 0.002),
        ("eye_size", lambda p: p[45, 0] - p[42, 0], 0.001),
        ("eye_tilt", lambda p: p[45, 1] - p[42, 1], 0.001),
        ("brow_height", lambda p: p[22:27, 1].mean() - p[42:48, 1].mean(), 0.001),
        ("mouth_width", lambda p: p[54, 0] - p[48, 0], 0.003),
        ("mouth_height", lambda p: p[60:68, 1].mean() - p[8, 1], 0.001),
        ("lower_lip", lambda p: p[66, 1] - p[57, 1], 0.001),
        ("smile_left", lambda p: p[54, 1] - p[48, 1], 0.003),
        ("frown_right", lambda p: p[54, 1] - p[48, 1], 0.003),
        ("pucker", lambda p: p[48, 0] - p[54, 0], 0.008),
        ("mouth_wide", lambda p: p[54, 0] - p[48, 0], 0.005),
        ("upper_lip_raised_left", lambda p: p[63, 1] - p[65, 1], 0.001),
        ("lower_lip_lowered_right", lambda p: p[61, 1] - p[67, 1], 0.001),
        ("brow_inner_up_left", lambda p: p[22, 1] - p[21, 1], 0.002),
        ("brow_outer_up_right", lambda p: p[18, 1] - p[25, 1], 0.002),
        ("brow_down_left", lambda p: p[19, 1] - p[23, 1], 0.001),
        ("squint_left", lambda p: (p[37:39, 1] - p[40:42, 1]).mean() - (p[43:45, 1] - p[46:48, 1]).mean(), 0.001),
        ("jaw_forward", lambda p: p[8, 2], 0.002),
    ],
)  # fmt: skip
def test_component_matches_its_name(head, name, measure, unit):
    group = "shape" if name in SHAPE_NAMES else "expression"
    edits: list[dict[str, Any]] = [{group: {name: amount}} for amount in (0.0, 1.0)]
    rest, more = (head.landmarks(posed(**edit))[0] for edit in edits)
    assert measure(more) - measure(rest) > unit


@pytest.mark.parametrize("side", ["left", "right"])
def test_closed_lids_cover_the_eye(head, side):
    upper, lower = ([43, 44], [47, 46]) if side == "left" else ([37, 38], [41, 40])
    other_upper, other_lower = ([37, 38], [41, 40]) if side == "left" else ([43, 44], [47, 46])

    def gap(points, above, below):
        return points[above, 1] - points[below, 1]

    rest = head.landmarks(posed())[0]
    shut = posed(expression={f"eye_closed_{side}": 2.0})
    points = head.landmarks(shut)[0]
    assert (gap(rest, upper, lower) > 0.006).all()
    assert gap(points, upper, lower).abs().max() < 5e-4
    assert torch.equal(gap(points, other_upper, other_lower), gap(rest, other_upper, other_lower))
    ball = eyeball(head, 1 if side == "left" else -1)
    views = [turned(yaw, expression={f"eye_closed_{side}": 2.0}) for yaw in (-30, 0, 30)]
    *closed, opened = visible_faces(head, HeadParams.cat([*views, posed()]), size=320)
    for seen, _ in closed:
        assert not ball[head.faces[seen]].any(), "the eyeball is seen through the closed lids"
    assert ball[head.faces[opened[0]]].any()


# Landmarks


def test_landmarks_are_at_the_right_features(head):
    p = head.landmarks(posed())[0]
    x, y, z = p.unbind(1)
    assert (x[:17].diff() > 0).all(), "the contour runs from the viewer's left to the right"
    assert y[8] == y[:17].min() and (y[:9].diff() < 0).all()
    assert (x[17:27].diff() > 0).all() and (y[17:27] > y[36:48].max()).all()
    assert (y[27:31].diff() < 0).all() and z[30] == z.max() and (x[31:36].diff() > 0).all()
    assert x[36] < x[37] < x[38] < x[39] < 0 < x[42] < x[43] < x[44] < x[45]
    assert (y[[37, 38, 43, 44]] > y[[41, 40, 47, 46]]).all()
    assert (x[48:55].diff() > 0).all() and (x[54:60].diff() < 0).all()
    assert (y[[50, 51, 52]] > y[[61, 62, 63]]).all() and (y[[67, 66, 65]] > y[[58, 57, 56]]).all()
    assert (y[48:68] < y[33]).all() and (y[48:68] > y[8]).all()


def test_landmarks_are_symmetric(head):
    # the person's right and left, point by point
    swap = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46]
    swap += [39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65]
    flip = torch.tensor([-1.0, 1.0, 1.0])
    for yaw in (0, 17, 39):
        one, other = (head.landmarks(turned(sign * yaw))[0] for sign in (1, -1))
        assert torch.allclose(one * flip, other[swap], atol=1e-5)


@pytest.mark.parametrize("yaw", [10, 25, 39])
def test_contour_follows_the_outline_of_the_far_cheek(head, yaw):
    params = turned(yaw)
    vertices = head.vertices(params)[0]
    points = head.landmarks(params)[0]
    skin = vertices[head.rig.template[:, 2] > -0.028]  # in front of the ear
    for k in range(10, 15):
        level = skin[(skin[:, 1] - points[k, 1]).abs() < 0.004]
        assert level[:, 0].max() - points[k, 0] < 0.004, f"landmark {k} lies inside the outline"


# Paint


def test_texture_is_a_colour_everywhere(head):
    assert head.texture_mean.min() >= 0 and head.texture_mean.max() <= 1
    assert head.uv.min() >= 0 and head.uv.max() <= 1
    for name, component in zip(TEXTURE_NAMES, head.texture_basis, strict=True):
        assert 0.02 < component.abs().max() < 0.3, name
    flat = torch.nn.functional.normalize(head.texture_basis.flatten(1), dim=1)
    assert torch.linalg.svdvals(flat).min() > 0.1


def test_no_seam_is_visible(head):
    maps = render_head(head, HeadParams.cat([turned(yaw) for yaw in (0, 90, 180)]), 256, 256)
    dark = (maps.albedo.max(1, keepdim=True).values < 0.12) & (maps.alpha > 0)
    front, side, back = dark.sum(dim=(1, 2, 3)).tolist()
    # only pupils and lashes are that dark; a seam would be a black line from the crown to the nape
    assert 0 < front < 120 and side < 60 and back == 0


def test_paint_is_on_the_features(head):
    size = 512
    params = posed(scale=9.0)
    albedo = render_head(head, params, size, size).albedo[0]
    points = head.landmarks(params)[0, :, :2] * torch.tensor([9.0, -9.0]) * size / 2 + size / 2

    def colour(*numbers, below=0.0):
        at = points[list(numbers)].mean(0).long()
        row, column = int(at[1] + below * 4.5 * size), int(at[0])
        return albedo[:, row - 2 : row + 3, column - 2 : column + 3].mean((1, 2))

    forehead, chin = colour(21, 22, below=-0.02), colour(8, below=-0.015)
    lip = colour(57, 66)
    assert lip[0] - lip[1] > chin[0] - chin[1] + 0.05
    for brow in ((18,), (19,), (24,), (25,)):
        assert colour(*brow).mean() < 0.7 * forehead.mean()
    for eye in (range(36, 42), range(42, 48)):
        assert colour(*eye).mean() < 0.25, "no pupil in the middle of the eye"


# Detection by other software


@pytest.fixture(scope="module")
def detector():
    facenet_pytorch = pytest.importorskip("facenet_pytorch", reason="facenet-pytorch is not installed")
    return facenet_pytorch.MTCNN(keep_all=True, post_process=False)


@pytest.mark.parametrize("yaw", [-30, 0, 30])
def test_a_face_detector_finds_the_face(head, detector, yaw):
    size = 512
    params = turned(yaw)
    image = render_head(head, params, size, size).lambertian[0].permute(1, 2, 0)
    image = (image.clamp(0, 1) * 255).byte().numpy()
    boxes, probabilities, points = detector.detect(image, landmarks=True)
    assert boxes is not None and len(boxes) == 1 and probabilities[0] > 0.98
    five = five_point_weights() @ head.landmarks(params)[0]
    five = five[:, :2] * torch.tensor([7.0, -7.0]) * size / 2 + size / 2
    error = np.linalg.norm(np.asarray(points[0], dtype=np.float64) - five.numpy(), axis=1)
    # the eyes are 112 pixels apart
    assert error.max() < 20 and error.mean() < 9
