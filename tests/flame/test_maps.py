import dataclasses

import pytest
import torch

from capface.errors import BadInput
from capface.flame import HeadMaps, HeadParams, landmark_pixels, render_head
from capface.flame.builtin import builtin_head
from capface.flame.model.camera import Window, deca_camera
from capface.flame.render.maps import vertex_normals
from capface.tests.flame.heads import golden_heads, golden_model, random_heads, render_numbers, sphere


def golden_scene():
    numbers = {name: torch.from_numpy(value) for name, value in render_numbers().items()}
    height, width = numbers["image_hw"].tolist()
    camera = deca_camera(numbers["cam"], numbers["tform"], height, width)
    return golden_heads().replace(camera=camera, light=numbers["light"]), numbers, height, width


def test_maps_equal_the_published_code():
    heads, numbers, height, width = golden_scene()
    maps = render_head(golden_model(), heads, height, width)
    for frame in range(heads.batch):
        covered, theirs = maps.alpha[frame, 0] > 0, numbers["alpha"][frame, 0]
        assert (covered != theirs).float().mean() <= 0.001
        for name in ("normal", "albedo", "lambertian"):
            error = (getattr(maps, name)[frame] - numbers[name][frame].float())[:, covered & theirs].abs().mean()
            assert error < 2e-3, f"{name}, head {frame}: {error}"


def test_landmarks_in_pixels_equal_the_published_code():
    heads, numbers, height, width = golden_scene()
    expected = (numbers["landmarks2d"] + 1) / 2 * torch.tensor([width, height])
    torch.testing.assert_close(landmark_pixels(golden_model(), heads, height, width), expected, atol=1e-3, rtol=0)


def test_the_hint_is_normal_albedo_lambertian():
    maps = HeadMaps(
        torch.full((2, 3, 4, 5), 1.0), torch.full((2, 3, 4, 5), 2.0), torch.full((2, 3, 4, 5), 3.0), torch.ones(2, 1, 4, 5)
    )
    assert maps.hint()[:, :, 0, 0].tolist() == [[1, 1, 1, 2, 2, 2, 3, 3, 3]] * 2


def test_the_background_is_0_and_the_head_is_not():
    maps = render_head(golden_model(), HeadParams.neutral(), 64, 96)
    assert 0.05 < maps.alpha.mean() < 0.9 and set(maps.alpha.unique().tolist()) == {0.0, 1.0}
    assert maps.hint()[(maps.alpha == 0).expand(-1, 9, -1, -1)].count_nonzero() == 0
    assert (maps.normal.norm(dim=1, keepdim=True) > 0).eq(maps.alpha > 0).all()


def test_normals_of_a_sphere_point_outwards():
    vertices, faces = sphere()
    normals = vertex_normals(vertices[None], faces)[0]
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(len(normals)))
    assert (normals * vertices).sum(1).min() > 0.99
    several = torch.stack([vertices, vertices * torch.tensor([1.0, 2.0, 3.0]), -vertices])
    assert torch.equal(vertex_normals(several, faces), torch.cat([vertex_normals(one, faces) for one in several.split(1)]))


def test_the_visible_side_of_a_sphere_faces_the_viewer():
    vertices, faces = sphere(32, 64)
    V = len(vertices)
    model = golden_model(
        v_template=0.15 * vertices, faces=faces, shapedirs=torch.zeros(V, 3, 1), n_shape=1, posedirs=None,
        J_regressor=torch.full((5, V), 1 / V), weights=torch.eye(5)[0].expand(V, 5), uv=torch.full((V, 2), 0.5),
        albedo_uv=torch.ones(3, 2, 2),
    )  # fmt: skip
    # Towards the rim, the visible area shrinks to 0, and interpolated normals may tip over by half a face.
    maps = render_head(model, HeadParams.neutral(), 65, 65)
    seen = maps.normal[0, :, maps.alpha[0, 0] > 0]
    assert (seen[2] > 0).float().mean() > 0.99 and seen[2].min() > -0.1
    x, y, z = maps.normal[0, :, 32, 32].tolist()
    assert z == pytest.approx(1, abs=0.02) and abs(x) < 0.02 and abs(y) < 0.02
    right, above = maps.normal[0, :, 32, 50], maps.normal[0, :, 14, 32]
    assert right[0] > 0.5 and above[1] > 0.5


@pytest.mark.parametrize(("height", "width"), [(96, 64), (64, 96)])
def test_the_head_keeps_its_place_in_frames_of_any_aspect(height, width):
    heads = random_heads(2, scale=0.05)
    square = render_head(golden_model(), heads, 64, 64).hint()
    long = render_head(golden_model(), heads, height, width).hint()
    top, left = (height - 64) // 2, (width - 64) // 2
    middle = long[:, :, top : top + 64, left : left + 64]
    assert (middle - square).abs().mean() < 1e-3


def test_twice_the_size_shows_the_same_head():
    heads = random_heads(1, scale=0.05)
    small, large = (render_head(golden_model(), heads, size, size) for size in (64, 128))
    shrunk = torch.nn.functional.avg_pool2d(large.alpha, 2)
    assert ((shrunk > 0.5) != (small.alpha > 0.5)).float().mean() < 0.02


def test_a_batch_equals_its_heads_one_by_one():
    heads = random_heads(3, scale=0.05)
    together = render_head(golden_model(), heads, 48, 80)
    for frame in range(3):
        alone = render_head(golden_model(), heads[frame], 48, 80)
        torch.testing.assert_close(together.hint()[frame], alone.hint()[0], atol=1e-4, rtol=0)


def test_light_changes_only_the_lambertian_map_and_linearly():
    head = HeadParams.neutral()
    plain, bright = (render_head(golden_model(), head.replace(light=factor * head.light), 48, 48) for factor in (1, 3))
    torch.testing.assert_close(bright.lambertian, 3 * plain.lambertian)
    assert torch.equal(bright.albedo, plain.albedo) and torch.equal(bright.normal, plain.normal)


def test_uvs_indexed_apart_give_the_same_maps():
    model = golden_model()
    assert model.uv is not None
    shuffled = torch.randperm(len(model.uv))
    apart = golden_model(uv=model.uv[shuffled], uv_faces=shuffled.argsort()[model.faces])
    heads = random_heads(1, scale=0.05)
    assert torch.equal(render_head(apart, heads, 48, 48).hint(), render_head(model, heads, 48, 48).hint())


def test_models_that_cannot_be_rendered_name_what_is_missing():
    with pytest.raises(BadInput, match="UVs"):
        render_head(dataclasses.replace(golden_model(), uv=None), HeadParams.neutral(), 8, 8)
    with pytest.raises(BadInput, match="texture"):
        render_head(golden_model(albedo_uv=None), HeadParams.neutral(), 8, 8)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (128, 80), (80, 144)])
def test_a_window_shows_its_part_of_the_frame(height, width):
    """At the frame's own scale, the window equals that part, except for pixels on edges of faces."""
    model, params = builtin_head(), HeadParams.neutral(1)
    params = params.replace(camera=params.camera + torch.tensor([[-1.0, 0.2, -0.1]]), rotation=torch.tensor([[0.1, 0.5, 0.2]]))
    whole = render_head(model, params, height, width).hint()
    top, bottom, left, right = 16, 72, 24, 80
    window = Window(left / width, top / height, right / width, bottom / height)
    part = render_head(model, params, bottom - top, right - left, window=window).hint()
    expected = whole[..., top:bottom, left:right]
    assert (expected != 0).any()
    assert ((part - expected).abs() > 1e-4).float().mean() < 1e-3
    finer = render_head(model, params, 4 * (bottom - top), 4 * (right - left), window=window).hint()
    exact = render_head(model, params, 4 * height, 4 * width).hint()
    exact = exact[..., 4 * top : 4 * bottom, 4 * left : 4 * right]
    assert ((finer - exact).abs() > 1e-3).float().mean() < 1e-3


def test_a_window_may_reach_beyond_the_frame_and_be_shown_stretched():
    model, params = builtin_head(), HeadParams.neutral(1)
    whole = render_head(model, params, 64, 96).alpha
    wider = render_head(model, params, 128, 192, window=Window(-0.5, -0.5, 1.5, 1.5)).alpha
    assert ((wider[..., 32:96, 48:144] - whole).abs() > 1e-3).float().mean() < 1e-3
    stretched = render_head(model, params, 128, 96, window=Window(aspect=1.5)).alpha
    assert ((stretched[..., ::2, :] + stretched[..., 1::2, :]) / 2 - whole).abs().mean() < 0.01
    with pytest.raises(BadInput, match="right > left"):
        Window(0.5, 0.0, 0.5, 1.0)


def test_windows_of_windows():
    outer, inner = Window(0.25, 0.0, 0.75, 0.5), Window(0.5, 0.5, 1.0, 1.0)
    assert inner.within(outer) == Window(0.5, 0.25, 0.75, 0.5)
    assert outer.within(outer.inverse()) == Window()
