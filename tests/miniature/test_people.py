"""Synthetic people: the same number gives the same person, and the pictures match the descriptions."""

from dataclasses import replace

import pytest
import torch

from capface.flame.builtin import builtin_head
from capface.flame.editing.edits import rotation_of
from capface.flame.model.params import HeadParams
from capface.flame.render.maps import landmark_pixels, render_head
from capface.miniature.people import (
    BACKGROUNDS,
    PERSON_LIGHTS,
    SHIRTS,
    Person,
    Setting,
    backdrop,
    draw_people,
    draw_surfaces,
    light_named,
)
from capface.miniature.people.person import GLASSES, HAIR_COLOURS, HAIR_STYLES

SIZE = 64
PLAIN = replace(Person.sample(3), hair="bald", beard="none", glasses="none", lips="natural")
STUDIO = Setting("blue", "white studio")


def draw(person, setting=STUDIO, head=None, size=SIZE):
    return draw_people([person], HeadParams.neutral() if head is None else head, [setting], size)[0]


def region(picture, heads, points):
    """Mean colour around landmarks."""
    pixels = landmark_pixels(builtin_head(), heads, *picture.shape[-2:])[0, points].mean(0).int().tolist()
    x, y = pixels
    return picture[:, y - 1 : y + 2, x - 1 : x + 2].mean((1, 2))


def test_each_number_is_a_different_person():
    assert Person.sample(7) == Person.sample(7)
    assert Setting.sample(7) == Setting.sample(7)
    assert len({Person.sample(i) for i in range(50)}) == 50
    assert torch.equal(draw(Person.sample(7)), draw(Person.sample(7)))


def test_pictures_have_the_requested_size_and_range():
    people = [Person.sample(i) for i in range(8)]
    pictures = draw_people(people, HeadParams.neutral(8), [Setting.sample(i) for i in range(8)], 48)
    assert pictures.shape == (8, 3, 48, 48)
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert pictures.flatten(1).std(0).mean() > 0.05  # they differ


@pytest.mark.parametrize("colour", HAIR_COLOURS)
def test_hair_has_its_colour(colour):
    person = replace(PLAIN, hair="swept", hair_colour=colour)
    changed = (draw(person) - draw(PLAIN)).abs().sum(0) > 0.05
    seen = draw(person)[:, changed][:, :200].mean(1)
    nearest = min(HAIR_COLOURS, key=lambda name: (torch.tensor(HAIR_COLOURS[name]) - seen).abs().sum())
    assert nearest == colour


@pytest.mark.parametrize("style", [style for style in HAIR_STYLES if style != "bald"])
def test_hair_stands_out_beyond_the_head(style):
    head = HeadParams.neutral()
    outside = render_head(builtin_head(), head.replace(shape=PLAIN.shape_row()), SIZE, SIZE).alpha[0, 0] == 0
    changed = (draw(replace(PLAIN, hair=style)) - draw(PLAIN)).abs().sum(0) > 0.1
    assert (changed & outside).sum() > 8


def test_glasses_sit_before_the_eyes_and_turn_with_the_head():
    for yaw in (0.0, 35.0):
        head = HeadParams.neutral().replace(rotation=rotation_of(torch.tensor([[yaw, 0.0, 0.0]])))
        changed = (draw(replace(PLAIN, glasses="black"), head=head) - draw(PLAIN, head=head)).abs().sum(0) > 0.15
        eyes = landmark_pixels(builtin_head(), head.replace(shape=PLAIN.shape_row()), SIZE, SIZE)[0, 36:48]
        rows, cols = changed.nonzero().float().unbind(1)
        assert abs(rows.mean() - eyes[:, 1].mean()) < 3
        assert cols.min() < eyes[:, 0].min() and cols.max() > eyes[:, 0].max()


def test_lips_are_painted_where_the_mouth_is():
    head = HeadParams.neutral().replace(shape=PLAIN.shape_row())
    natural, red = (region(draw(replace(PLAIN, lips=lips), size=256), head, slice(48, 60)) for lips in ("natural", "red"))
    assert red[0] - red[1] > natural[0] - natural[1] + 0.1


@pytest.mark.parametrize("shirt", SHIRTS)
def test_a_setting_changes_clothes_and_background_and_not_the_face(shirt):
    one, other = draw(PLAIN, Setting("white", "forest")), draw(PLAIN, Setting(shirt, "sunset"))
    face = render_head(builtin_head(), HeadParams.neutral(), SIZE, SIZE).alpha[0, 0].bool()
    face[SIZE * 5 // 8 :] = False  # the neck is behind the collar
    inner = torch.nn.functional.avg_pool2d(face.float()[None, None], 5, 1, 2)[0, 0] == 1
    assert torch.equal(one[:, inner], other[:, inner])
    assert (one - other).abs()[:, : SIZE // 8].mean() > 0.05
    shown = other[:, -2, SIZE // 2]
    assert (shown / shown.max() - torch.tensor(SHIRTS[shirt]) / max(SHIRTS[shirt])).abs().max() < 0.2


def test_backgrounds_differ_and_vary():
    empty = HeadParams.neutral().replace(camera=torch.tensor([[0.01, 0.0, 9.0]]))
    shown = [draw(PLAIN, Setting("red", name), empty) for name in BACKGROUNDS]
    for i, a in enumerate(shown):
        assert all((a - b).abs().mean() > 0.05 for b in shown[i + 1 :])
    assert (draw(PLAIN, Setting("red", "forest", 1), empty) - draw(PLAIN, Setting("red", "forest", 2), empty)).abs().max() > 0.1


def test_light_comes_from_its_named_direction():
    middle = landmark_pixels(builtin_head(), HeadParams.neutral(), SIZE, SIZE)[0, 27, 0].int().item()
    face = render_head(builtin_head(), HeadParams.neutral(), SIZE, SIZE).alpha[0, 0].bool()
    sides = {}
    for name in PERSON_LIGHTS:
        shown = draw(PLAIN, head=HeadParams.neutral().replace(light=light_named(name)[None])).mean(0) * face
        sides[name] = (shown[:, :middle].sum() / face[:, :middle].sum(), shown[:, middle:].sum() / face[:, middle:].sum())
    assert sides["left"][0] > 1.4 * sides["left"][1]
    assert sides["right"][1] > 1.4 * sides["right"][0]
    assert abs(sides["front"][0] / sides["front"][1] - 1) < 0.15


def test_surfaces_can_be_shaded_with_other_lights_shirts_and_backgrounds():
    people, settings = [Person.sample(i) for i in range(6)], [Setting.sample(i) for i in range(6)]
    others = [Setting(shirt, place, 9) for shirt, place in zip(SHIRTS, BACKGROUNDS, strict=False)]
    heads = HeadParams.neutral(6).replace(rotation=rotation_of(torch.tensor([[-40.0 + 15 * i, 5.0, 0.0] for i in range(6)])))
    pictures, surfaces = draw_surfaces(people, heads, settings, SIZE)
    assert torch.equal(pictures, draw_people(people, heads, settings, SIZE))
    for light, chosen in (("front", settings), ("left", others), ("above", settings)):
        given = heads.replace(light=light_named(light).expand(6, -1, -1))
        drawn = draw_people(people, given, chosen, SIZE)
        places = torch.stack([backdrop(s.background, SIZE, s.seed) for s in chosen])
        shirts = torch.tensor([SHIRTS[s.shirt] for s in chosen])
        off = (surfaces.lit(given.light, shirts, (places * 255).round().byte()) - drawn).abs()
        assert off.mean() < 0.005
        assert off.amax(1).flatten().quantile(0.9) < 0.03  # but for edges
    assert (pictures - drawn).abs().mean() > 0.03


def test_words_describe_the_visible_features():
    person = replace(PLAIN, hair="bob", hair_colour="red", glasses="red", beard="full", lips="dark", eyes="green")
    words = person.words()
    assert {"bob red hair", "red glasses", "full beard", "dark lips", "green eyes"} <= set(words)
    assert "bald" in PLAIN.words() and not any("glasses" in word for word in PLAIN.words())
    assert set(GLASSES) == {"none", "black", "red"}
    assert STUDIO.words() == ["blue shirt", "white studio"]
