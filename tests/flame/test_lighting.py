import math
from typing import Any

import pytest
import torch

from capface.errors import BadInput
from capface.flame import HeadParams, render_head
from capface.flame.builtin import builtin_head
from capface.flame.editing.edits import turn_head
from capface.flame.editing.lighting import (
    CUSTOM,
    FROM_PHOTO,
    KEEP,
    LIGHTS,
    NEUTRAL,
    PRESETS,
    Lamp,
    Lighting,
    custom_light_of,
    relight,
    rgb_of,
)
from capface.flame.fitting.light_estimation import light_from_photo
from capface.flame.model.spherical_harmonics import directional_light, frontal_light, shade
from capface.tests.flame.heads import random_heads

DIRECTIONS = torch.nn.functional.normalize(torch.randn(3, 20000, generator=torch.Generator().manual_seed(1)), dim=0)
RIGHT, LEFT, UP, DOWN, FRONT = (
    torch.tensor(direction)[:, None]
    for direction in ((0.8, 0.0, 0.6), (-0.8, 0.0, 0.6), (0.0, 0.8, 0.6), (0.0, -0.8, 0.6), (0.0, 0.0, 1.0))
)


def towards(azimuth, elevation):
    """The unit vector towards a lamp, by turning (0, 0, 1) up and then to the right."""
    a, e = math.radians(azimuth), math.radians(elevation)
    return torch.tensor([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)])


@pytest.mark.parametrize(
    ("azimuth", "elevation"), [(0, 0), (90, 0), (-90, 0), (180, 0), (0, 90), (0, -60), (-50, 42), (125, 20)]
)
@pytest.mark.parametrize("softness", [0.0, 0.5, 1.0])
def test_a_lamp_is_brightest_where_it_comes_from(azimuth, elevation, softness):
    light = Lighting((Lamp(azimuth, elevation, 0.7, softness=softness),), 0.2).coefficients()
    assert shade(towards(azimuth, elevation)[:, None], light)[0].item() == pytest.approx(0.9, abs=1e-5)
    shading = shade(DIRECTIONS, light)[0]
    assert DIRECTIONS[:, shading.argmax()] @ towards(azimuth, elevation) > 0.995


def test_azimuth_90_is_the_pictures_right():
    light = Lighting((Lamp(90, 0),)).coefficients()
    assert shade(RIGHT, light)[0] > shade(LEFT, light)[0] + 0.5


def test_a_spread_lamp_is_the_mean_of_its_point_lights():
    spread = 1.1
    axis = towards(35, 20)
    points = DIRECTIONS.T[DIRECTIONS.T @ axis > math.cos(spread)]
    mean = torch.stack([directional_light(tuple(point.tolist())) for point in points[:2000]]).mean(0)
    torch.testing.assert_close(directional_light(tuple(axis.tolist()), spread=spread), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(
        directional_light((1, 2, 3), spread=math.pi), directional_light(diffuse=0, ambient=0.25), atol=1e-6, rtol=0
    )


def test_softer_light_has_less_contrast():
    contrast = []
    for softness in (0.0, 0.25, 0.5, 0.75, 1.0):
        shading = shade(DIRECTIONS, Lighting((Lamp(40, 30, softness=softness),)).coefficients())[0]
        contrast.append((shading.std() / shading.mean()).item())
    assert contrast == sorted(contrast, reverse=True) and contrast[-1] < contrast[0] / 2


def test_colours():
    assert rgb_of("#ff8000") == rgb_of(" FF8000 ") == (1.0, 128 / 255, 0.0)
    assert rgb_of("#fa0") == rgb_of("#ffaa00")
    light = Lighting((Lamp(color="#ff8000"),), 0.0).coefficients()
    torch.testing.assert_close(light, Lighting((Lamp(),)).coefficients() * torch.tensor([1.0, 128 / 255, 0.0]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rgb_of("orange"), "#ff9d52.*orange"),
        (lambda: rgb_of("#12345"), "#12345"),
        (lambda: Lighting((Lamp(softness=1.5),)).coefficients(), "softness"),
        (lambda: Lighting((Lamp(intensity=-1.0),)).coefficients(), "strength"),
        (lambda: directional_light(spread=4.0), "spread"),
        (lambda: relight(builtin_head(), random_heads(1), "disco"), "studio.*disco"),
        (lambda: relight(builtin_head(), random_heads(1), FROM_PHOTO), "photo"),
        (lambda: relight(builtin_head(), random_heads(1), CUSTOM), "lamps"),
        (lambda: relight(builtin_head(), random_heads(1), strength=-1.0), "at least 0"),
        (lambda: light_from_photo(builtin_head(), random_heads(3), torch.zeros(2, 3, 64, 64)), "or 3, one a head"),
    ],
)
def test_invalid_light_is_refused_with_a_message(make, words):
    with pytest.raises(BadInput, match=words):
        make()


# The characteristic of each preset.
CHARACTER = {
    "studio": lambda s: s(FRONT).mean() > 0.7 and s(RIGHT).mean() > s(LEFT).mean() > 0.3,
    "rim": lambda s: min(s(RIGHT).mean(), s(LEFT).mean()) > 1.5 * s(FRONT).mean() > 0,
    "Rembrandt": lambda s: s(LEFT).mean() > 3 * s(RIGHT).mean() and s(UP).mean() > s(DOWN).mean(),
    "from below": lambda s: s(DOWN).mean() > 4 * s(UP).mean(),
    "overcast": lambda s: s(UP).mean() > s(DOWN).mean() and (s(RIGHT) - s(LEFT)).abs().max() < 1e-3 and s(UP)[2] > s(UP)[0],
    "sunset": lambda s: s(RIGHT)[0] > 1.5 * s(RIGHT)[2] and s(LEFT)[2] > s(LEFT)[0],
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_characteristic(name):
    light = PRESETS[name].coefficients()
    assert CHARACTER[name](lambda direction: shade(direction, light))
    visible = shade(DIRECTIONS[:, DIRECTIONS[2] > 0], light)
    assert visible.min() > -0.1 and visible.max() < 1.7


def test_relighting_changes_only_the_light():
    model, head = builtin_head(), random_heads(2)
    assert relight(model, head) is head
    torch.testing.assert_close(relight(model, head, KEEP, 0.5).light, head.light / 2)
    torch.testing.assert_close(relight(model, head, NEUTRAL).light, frontal_light().expand(2, 9, 3))
    lamps = Lighting((Lamp(20, 10),), 0.1)
    torch.testing.assert_close(relight(model, head, CUSTOM, 2.0, lamps).light[1], 2 * lamps.coefficients())
    for name in PRESETS:
        lit = relight(model, head, name)
        torch.testing.assert_close(lit.light, PRESETS[name].coefficients().expand(2, 9, 3))
        assert lit.rotation is head.rotation and lit.shape is head.shape
    assert set(PRESETS) | {KEEP, CUSTOM, FROM_PHOTO, NEUTRAL} == set(LIGHTS)


@pytest.fixture(scope="module")
def sitter():
    """A head, and normals that face the viewer."""
    head = turn_head(builtin_head(), HeadParams.neutral(), yaw=20, pitch=5)
    return head, DIRECTIONS[:, DIRECTIONS[2] > 0.2]


def off_by(light, truth, normals):
    """Return the RMS difference of two lights' shadings, as a fraction of the true shading's RMS."""
    wanted = shade(normals, truth)
    return ((shade(normals, light) - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("name", ["studio", "Rembrandt", "from below", "overcast", "sunset"])
def test_the_light_of_a_photo_is_found(sitter, name):
    head, normals = sitter
    truth = PRESETS[name].coefficients()
    photo = render_head(builtin_head(), head.replace(light=truth[None]), 320, 256).lambertian.clamp(0, 1)
    light = light_from_photo(builtin_head(), head, photo)
    assert light.shape == (1, 9, 3) and light.dtype == torch.float32
    assert off_by(light[0], truth, normals) < 0.02


@pytest.mark.parametrize("name", ["studio", "Rembrandt", "overcast", "sunset"])
def test_noise_and_a_bar_across_the_face_hardly_change_the_light_of_a_photo(sitter, name):
    head, normals = sitter
    truth = PRESETS[name].coefficients()
    photo = render_head(builtin_head(), head.replace(light=truth[None]), 320, 256).lambertian
    photo = (photo + 0.02 * torch.randn_like(photo)).clamp(0, 1)
    photo[:, :, 90:130] = 0.08
    assert off_by(light_from_photo(builtin_head(), head, photo)[0], truth, normals) < 0.06


def test_darker_skin_than_the_heads_gives_dimmer_light(sitter):
    head, normals = sitter
    truth = PRESETS["studio"].coefficients()
    photo = render_head(builtin_head(), head.replace(light=truth[None]), 256, 256).lambertian.clamp(0, 1)
    light = light_from_photo(builtin_head(), head, photo * torch.tensor([0.5, 0.4, 0.3])[:, None, None])
    assert off_by(light[0], truth * torch.tensor([0.5, 0.4, 0.3]), normals) < 0.03


def test_one_photo_for_all_heads_or_one_per_head(sitter):
    head = HeadParams.cat([sitter[0], sitter[0]])
    lights = torch.stack([PRESETS["studio"].coefficients(), PRESETS["sunset"].coefficients()])
    photos = render_head(builtin_head(), head.replace(light=lights), 128, 96).lambertian.clamp(0, 1)
    found = light_from_photo(builtin_head(), head, photos)
    for i in range(2):
        torch.testing.assert_close(found[i], light_from_photo(builtin_head(), head[i], photos[i : i + 1])[0])
    torch.testing.assert_close(light_from_photo(builtin_head(), head, photos[:1]), found[:1].expand(2, 9, 3))


def test_a_photo_without_the_face_is_refused(sitter):
    head = sitter[0]
    away = head.replace(camera=torch.tensor([[5.0, 9.0, 0.0]]))
    with pytest.raises(BadInput, match=r"100 well exposed pixels.*got 0"):
        light_from_photo(builtin_head(), away, torch.full((1, 3, 64, 64), 0.5))
    with pytest.raises(BadInput, match="got 0"):
        light_from_photo(builtin_head(), head, torch.ones(1, 3, 64, 64))


@pytest.mark.parametrize(
    "lamp", [Lamp(-50, 40, 1.1, "#ffd0a0", 0.3), Lamp(120, -20, 0.5), Lamp(0, 80, 2.0, "#a0a0ff", 1.0)], ids=str
)
def test_one_lamp_and_its_ambient_light_are_read_back(lamp):
    read = custom_light_of(Lighting((lamp,), 0.25).coefficients())
    assert read == {
        "ambient": pytest.approx(0.25, abs=1e-3),
        "key_azimuth": pytest.approx(lamp.azimuth, abs=0.1),
        "key_elevation": pytest.approx(lamp.elevation, abs=0.1),
        "key_intensity": pytest.approx(lamp.intensity, rel=0.01),
        "key_softness": pytest.approx(lamp.softness),
        "key_color": lamp.color,
    }


@pytest.mark.parametrize("light", [*PRESETS.values(), Lighting((), 0.5), Lighting((), 0.0)], ids=str)
def test_the_nearest_custom_light_is_near(light):
    wanted = light.coefficients()
    read: dict[str, Any] = custom_light_of(wanted)
    lamp = Lamp(read["key_azimuth"], read["key_elevation"], read["key_intensity"], read["key_color"], read["key_softness"])
    found = Lighting((lamp,), read["ambient"]).coefficients()
    difference, size = (shade(DIRECTIONS, part).square().mean().sqrt().item() for part in (found - wanted, wanted))
    # Two lamps from opposite sides are farthest from one lamp.
    assert difference <= 0.45 * size + 1e-6
