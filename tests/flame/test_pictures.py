import pytest
import torch

from capface.errors import BadInput
from capface.flame.builtin import builtin_head
from capface.flame.model.params import HeadParams
from capface.flame.render.maps import render_head
from capface.flame.render.pictures import landmark_picture, normal_colors, overlay


@pytest.fixture(scope="module")
def maps():
    return render_head(builtin_head(), HeadParams.neutral(1), 64, 48)


def test_the_overlay_shows_the_head_on_the_photo_and_the_photo_beside_it(maps):
    photo = torch.full((1, 3, 64, 48), 0.5)
    shown = overlay(photo, maps, 1.0)
    head = (maps.alpha > 0).expand_as(shown)
    assert torch.equal(shown[~head], photo[~head])
    assert torch.allclose(shown[head], maps.lambertian.clamp(0, 1)[head])
    assert torch.equal(overlay(photo, maps, 0.0), photo)


def test_normals_become_colours_on_grey(maps):
    colors = normal_colors(maps)
    background = (maps.alpha == 0).expand_as(colors)
    assert colors[background].unique().tolist() == [0.5]
    assert 0 <= colors.min() <= colors.max() <= 1


def test_landmarks_become_white_dots_without_those_at_the_left_or_top_edge():
    points = torch.tensor([[[20.0, 10.0], [0.0, 10.0], [20.0, 0.0], [100.0, 5.0], [-3.0, 5.0]]])
    picture = landmark_picture(points, 32, 48)
    assert picture.shape == (1, 3, 32, 48)
    rows, columns = picture[0, 0].nonzero().unbind(1)
    assert len(rows) == 29  # pixels of a disc of radius 3
    assert ((rows - 10) ** 2 + (columns - 20) ** 2).max() == 9
    assert picture.unique().tolist() == [0, 1]


@pytest.mark.usefixtures("without_type_checks")
def test_points_of_another_shape_are_refused():
    with pytest.raises(BadInput, match=r"\[B, N, 2\].*\[68, 2\]"):
        landmark_picture(torch.zeros(68, 2), 8, 8)
