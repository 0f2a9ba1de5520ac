import numpy as np
import pytest
import torch

from capface.errors import BadInput
from capface.flame import HeadModel, HeadParams
from capface.flame.model.landmarks import contour_yaw, five_point_weights
from capface.flame.model.rotation import axis_angle_to_matrix
from capface.tests.flame.heads import forward_numbers, golden_heads, golden_model, random_heads
from capface.tests.synthetic import relative_error


def golden_arrays(**changes):
    arrays = {name: value for name, value in forward_numbers().items() if not name.startswith(("in_", "out_"))}
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


def test_vertices_and_landmarks_equal_the_published_code():
    model, heads, golden = golden_model(), golden_heads(), forward_numbers()
    vertices = model.vertices(heads)
    for frame in range(heads.batch):
        assert relative_error(vertices[frame], golden["out_vertices"][frame]) < 1e-5
        assert relative_error(model.landmarks(heads, vertices)[frame], golden["out_landmarks2d"][frame]) < 1e-5
        assert relative_error(model.fixed_landmarks(vertices)[frame], golden["out_landmarks3d"][frame]) < 1e-5


def test_the_head_at_rest_is_the_template():
    model = golden_model()
    torch.testing.assert_close(model.vertices(HeadParams.neutral())[0], model.rig.template, atol=1e-6, rtol=0)


def test_root_rotation_is_rigid_about_the_root_joint():
    model = golden_model()
    heads = random_heads(3, scale=0.5)
    still = model.vertices(heads.replace(rotation=torch.zeros(3, 3)))
    turned = model.vertices(heads)
    root = model.rig.joints[0] + (model.coefficients(heads.shape, heads.expression) @ model.rig.joint_basis[:, 0])
    expected = (still - root[:, None]) @ axis_angle_to_matrix(heads.rotation).mT + root[:, None]
    torch.testing.assert_close(turned, expected, atol=1e-6, rtol=1e-5)


def test_a_batch_equals_its_heads_one_by_one():
    model, heads = golden_model(), random_heads(3)
    one_by_one = torch.cat([model.vertices(head) for head in heads])
    torch.testing.assert_close(model.vertices(heads), one_by_one, atol=1e-7, rtol=1e-6)


def test_fewer_components_use_the_first_coefficients():
    small = golden_model(
        shapedirs=np.concatenate([forward_numbers()["shapedirs"][:, :, :7], forward_numbers()["shapedirs"][:, :, 100:104]], 2),
        n_shape=7,
    )
    assert (small.n_shape, small.n_expression) == (7, 4)
    heads = golden_heads()
    cut = heads.replace(
        shape=torch.where(torch.arange(100) < 7, heads.shape, 0),
        expression=torch.where(torch.arange(50) < 4, heads.expression, 0),
    )
    torch.testing.assert_close(small.vertices(heads), golden_model().vertices(cut), atol=1e-6, rtol=1e-5)


def test_more_components_than_coefficients_stay_at_rest():
    directions = np.concatenate(
        [forward_numbers()["shapedirs"][:, :, :100]] * 2 + [forward_numbers()["shapedirs"][:, :, 100:]], 2
    )
    large = golden_model(shapedirs=directions, n_shape=200)
    torch.testing.assert_close(large.vertices(golden_heads()), golden_model().vertices(golden_heads()), atol=1e-7, rtol=1e-6)


def test_the_contour_follows_the_yaw_of_root_and_neck():
    model = golden_model()
    table = model.table
    assert table is not None
    yaw = torch.tensor([0.0, 0.4, 10.0, 38.6, 60.0, -1.0, -10.0, -39.0, -80.0])
    turn = yaw.deg2rad()[:, None] * torch.eye(3)[1]
    rows = torch.tensor([0, 0, 10, 39, 39, 40, 49, 78, 78])
    for share in (0.0, 0.5, 1.0):
        degrees = contour_yaw(share * turn, (1 - share) * turn).round()
        triangles, weights = model.landmark_places(degrees)
        assert torch.equal(triangles[:, :17], table.contour_faces[rows])
        assert torch.equal(weights[:, :17], table.contour_weights[rows])
        assert (triangles[:, 17:] == table.static_faces).all()


def test_a_model_without_contour_tables_gives_its_fixed_landmarks():
    dropped = dict.fromkeys(
        ["static_lmk_faces_idx", "static_lmk_bary_coords", "dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords"]
    )
    model = HeadModel.from_arrays(**golden_arrays(**dropped))
    golden = forward_numbers()
    assert relative_error(model.landmarks(golden_heads()), golden["out_landmarks3d"]) < 1e-5
    bare = HeadModel.from_arrays(**golden_arrays(**dropped, full_lmk_faces_idx=None, full_lmk_bary_coords=None), name="bare")
    with pytest.raises(BadInput, match="bare"):
        bare.landmarks(golden_heads())


def test_five_points_are_the_middles_of_eyes_the_nose_and_the_mouth_corners():
    points = torch.randn(68, 2)
    five = five_point_weights() @ points
    torch.testing.assert_close(five[0], points[36:42].mean(0))
    torch.testing.assert_close(five[1], points[42:48].mean(0))
    torch.testing.assert_close(five[2:], points[[30, 48, 54]])


def test_texture_is_the_mean_and_its_deviations():
    mean, basis = torch.rand(3, 4, 5), torch.randn(2, 3, 4, 5)
    model = golden_model(albedo_uv=None, texture_mean=mean, texture_basis=basis)
    head = HeadParams.neutral(2)
    head.texture[1, 0], head.texture[1, 1] = 0.5, -2.0
    expected = torch.stack([mean, mean + 0.5 * basis[0] - 2 * basis[1]])
    torch.testing.assert_close(model.albedo(head), expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"v_template": np.zeros((642, 2))}, r"v_template.*\[any, 3\].*\[642, 2\]"),
        ({"weights": np.zeros((641, 5))}, r"weights.*\[642, 5\]"),
        ({"faces": np.full((4, 3), 642)}, "faces.*0 to 641.*642"),
        ({"posedirs": np.zeros((642, 3, 9))}, r"posedirs.*\[642, 3, 36\]"),
        ({"parents": [-1, 2, 1, 1, 1]}, "parents"),
        ({"n_shape": 151}, "150 components"),
        ({"v_template": np.full((642, 3), np.nan)}, "v_template.*NaN"),
        ({"static_lmk_bary_coords": None}, "static_lmk_bary_coords"),
        ({"dynamic_lmk_faces_idx": None, "dynamic_lmk_bary_coords": None}, "neither"),
        ({"static_lmk_faces_idx": np.full(51, 5000)}, "1280 faces"),
        ({"dynamic_lmk_faces_idx": np.zeros((78, 17), int)}, r"\[79, 17\]"),
        ({"albedo_uv": np.zeros((3, 4, 4)), "texture_mean": np.zeros((3, 4, 4))}, "both"),
        ({"shape_names": ["width"]}, "100 names or no names, got 1"),
    ],
)
def test_invalid_arrays_are_refused_with_a_message(changes, words):
    with pytest.raises(BadInput, match=words):
        HeadModel.from_arrays(**golden_arrays(**changes))
