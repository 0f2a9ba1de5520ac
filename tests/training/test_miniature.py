"""The miniature's training, from pictures to a file, at the smallest size.

What it learns is tested with the shipped weights, in `test_portrait_sampler.py`.
"""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from capface.errors import BadFile, BadInput
from capface.experiments.miniature_tables import run, tables
from capface.experiments.miniature_tables.tables import ABLATIONS, ROWS, interval, pose_predicted
from capface.flame.builtin import builtin_head
from capface.flame.editing.edits import angles_of
from capface.flame.model.params import HeadParams
from capface.flame.render.maps import render_head
from capface.miniature.networks import HELD_OUT, PICTURE_SIDE, load_miniature
from capface.miniature.people import draw_people
from capface.training.miniature import make, train_capface
from capface.training.miniature.portrait_sampler import Recipe, head_hint, make_portraits, posed_tokens
from capface.training.miniature.scenes import SIZE, Appearances, SceneSet, render_scenes, sample_scene
from capface.training.miniature.train_capface import hints_of, inexact_hints
from capface.training.miniature.train_denoiser import prompt_of, vocabulary
from capface.training.miniature.train_evaluator import Attributes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in which each stage of the miniature was trained for one or two steps, and its file."""
    folder = tmp_path_factory.mktemp("miniature")
    where = ["--folder", str(folder), "--out", str(folder / "m.safetensors")]
    arguments = [*where, "--people", "3", "--views", "2", "--effort", "0.0002"]
    assert make.main(arguments) == 0
    return folder, arguments


@pytest.fixture(scope="module")
def miniature(made):
    return load_miniature(made[0] / "m.safetensors")


def test_the_file_is_small_enough_to_ship_and_loads_as_it_was(made, miniature):
    assert (made[0] / "m.safetensors").stat().st_size < 12e6
    assert miniature.text_encoder.vocabulary == tuple(vocabulary())
    channels = miniature.autoencoder.config.latent_channels
    assert miniature.capface.config.in_channels == miniature.denoiser.config.in_channels == channels


def test_the_same_command_gives_the_same_file_and_redoes_nothing(made, tmp_path):
    folder, arguments = made
    before = (folder / "m.safetensors").read_bytes()
    drawn = (folder / "pictures" / "picture.npy").stat().st_mtime_ns
    assert make.main(arguments) == 0
    assert (folder / "pictures" / "picture.npy").stat().st_mtime_ns == drawn
    again = load_miniature(folder / "m.safetensors")
    (folder / "first").write_bytes(before)
    first = load_miniature(folder / "first")
    for name in ("denoiser", "capface", "tokens", "recognizer", "text_encoder", "autoencoder", "evaluator"):
        ours, theirs = getattr(again, name).state_dict(), getattr(first, name).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_tables_hold_every_row_with_figures(made, capsys, monkeypatch):
    quick = [row if row.recipe is None else replace(row, recipe=replace(row.recipe, steps=2)) for row in ROWS]
    monkeypatch.setattr(tables, "ROWS", quick)
    assert run.main([*made[1], "--tables", "3", "--ablations"]) == 0
    printed = capsys.readouterr().out
    printed, contrasts = printed.split("| difference |")
    assert len(re.findall(r"^\|.* - ", contrasts, re.MULTILINE)) == len(tables.CONTRASTS)
    rows = [[cell.strip() for cell in text.split("|")[1:-1]] for text in printed.splitlines() if text.startswith("| ")]
    assert rows[0][2:-1] == list(tables.COLUMNS)
    assert {len(row) for row in rows} == {len(tables.COLUMNS) + 3}
    for row in ROWS:
        (shown,) = [cells for cells in rows if cells[0] == row.table and cells[1].startswith(row.name)]
        assert all(re.fullmatch(r"-?\d+\.\d+ ± \d+\.\d+", cell) for cell in shown[2:-1])
        assert ("(trained apart)" in shown[1]) == (row.model in ABLATIONS)
        assert ("to whose head it is" in shown[1]) == row.swapped
    (truth,) = [cells for cells in rows if "attainable" in cells[1]]
    assert truth[2 + tables.COLUMNS.index("face L1")] == "0.000 ± 0.000"


def test_interrupted_rendering_resumes(tmp_path):
    whole = SceneSet(tmp_path / "whole", range(5), 2)
    SceneSet(tmp_path / "part", range(5), 2)
    part = tmp_path / "part"
    (part / "drawn.txt").write_text("4")
    names = ("picture", "normal", "albedo", "light", "paint", "facing")
    for name in names:
        np.lib.format.open_memmap(part / f"{name}.npy", "r+")[4:] = 0
    again = SceneSet(part, range(5), 2)
    assert all(np.array_equal(getattr(whole, name), getattr(again, name)) for name in names)


@pytest.mark.parametrize("names", [("holiday.jpg",), ("picture.npy",), ("set.json", "holiday.jpg"), ("set.json",)])
@pytest.mark.parametrize("text", ["{}", '{"unfinished": true}', "not JSON"])
def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path, names, text):
    if names == ("set.json",) and "unfinished" in text:
        pytest.skip("this is the note of a set")
    for name in names:
        (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=rf"expected an empty folder.*{names[-1]}.*--folder; nothing was deleted"):
        SceneSet(tmp_path, range(1), 1)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, text)


def test_a_set_whose_start_was_interrupted_is_made_again(tmp_path):
    (tmp_path / "set.json").write_text('{"unfinished": true}')
    (tmp_path / "picture.npy").write_text("cut off")
    assert len(SceneSet(tmp_path, range(1), 1)) == 1


def test_a_set_of_other_people_is_replaced(tmp_path):
    SceneSet(tmp_path, range(1), 1)
    assert len(SceneSet(tmp_path, range(2), 1)) == 2


def test_a_set_can_be_rendered_with_other_lights_and_backgrounds(tmp_path):
    scenes, appearances = SceneSet(tmp_path, range(2), 2), Appearances(3, 5, 0)
    rows, lights, settings = torch.tensor([0, 3, 3]), torch.tensor([2, 0, 1]), torch.tensor([4, 4, 1])
    seen = scenes.relight(rows, appearances, lights, settings)
    drawn = [sample_scene(*place) for place in ((0, 0), (1, 1), (1, 1))]
    heads = HeadParams.cat([scene.head for scene in drawn]).replace(light=appearances.lights[lights])
    rendered = draw_people([scene.person for scene in drawn], heads, [appearances.settings[i] for i in settings], SIZE)
    assert (seen - rendered).abs().mean() < 0.005
    assert (seen[1] - seen[2]).abs().mean() > 0.05
    chosen = appearances.choose(64, torch.Generator().manual_seed(1))
    assert [set(part.tolist()) for part in chosen] == [set(range(3)), set(range(5))]


def test_head_maps_of_a_set_are_those_that_a_node_renders(tmp_path):
    scenes = SceneSet(tmp_path, range(3), 1)
    hint, mask = hints_of(scenes, np.arange(3))
    heads = HeadParams.cat([sample_scene(person, 0).head for person in range(3)])
    maps = render_head(builtin_head(), heads, SIZE, SIZE)
    assert torch.equal(mask, maps.alpha)
    assert (hint - maps.hint()).abs().max() < 0.03  # they are kept in 8 bits


def test_inexact_heads_have_the_given_rotation_error(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        train_capface, "render_head", lambda model, heads, *size: drawn.append(heads) or render_head(model, heads[:1], *size)
    )
    heads = HeadParams.neutral(400)
    for seed in (1, 1, 2):
        inexact_hints(heads, 20.0, torch.Generator().manual_seed(seed))
    one, same, other = (angles_of(given.rotation) for given in drawn)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.allclose(one.std(0), torch.full((3,), 20.0), rtol=0.15)
    assert one.mean(0).abs().max() < 4.0


def test_posed_tokens_contain_the_pose_and_are_otherwise_unchanged():
    tokens, angles = torch.randn(2, 16, 96), torch.tensor([[20.0, -5.0, 3.0], [-40.0, 0.0, 0.0]])
    posed = posed_tokens(tokens, angles)
    assert torch.equal(posed[..., 3:], tokens[..., 3:])
    assert torch.allclose(posed[..., :3] * 10, angles[:, None].expand(-1, 16, -1))


def test_held_out_people_are_not_trained_on():
    ours, theirs = render_scenes(np.array([1]), np.array([0]))[0], render_scenes(np.array([HELD_OUT + 1]), np.array([0]))[0]
    assert (ours.astype(int) - theirs).any()


def test_prompts_contain_only_known_words():
    known = set(vocabulary())
    for person in range(40):
        prompt = prompt_of(sample_scene(person, 0), np.random.Generator(np.random.PCG64(person)))
        assert set(prompt.replace(",", " ").split()) <= known


def test_known_words_keep_their_order_and_unknown_ones_are_dropped(miniature):
    words = miniature.text_encoder
    tokens = words.tokenize(["red hair, blue shirt", "blue hair, red shirt", "A photo of Red HAIR , blue shirt"])
    assert torch.equal(tokens[0], tokens[2])
    features = words(tokens)
    assert features.shape == (3, 32, miniature.denoiser.config.context_width)
    assert not torch.allclose(features[0].sum(0), features[1].sum(0), atol=1e-3)


def test_portraits_have_the_right_size_and_depend_on_the_seed(miniature):
    head = HeadParams.neutral(2)
    references = torch.rand(2, 3, PICTURE_SIDE, PICTURE_SIDE) * 2 - 1
    recipe = Recipe(steps=2)
    one, same, other = (
        make_portraits(miniature, head_hint(head), ["red shirt", "beach"], references, recipe, seed) for seed in (1, 1, 2)
    )
    assert one.shape == (2, 3, PICTURE_SIDE, PICTURE_SIDE)
    assert one.min() >= 0 and one.max() <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_landmarks_as_a_hint_are_68_dots(miniature):
    dots = head_hint(HeadParams.neutral(), landmarks=True)
    assert dots.shape == (1, 9, PICTURE_SIDE, PICTURE_SIDE)
    assert set(dots.unique().tolist()) == {0.0, 1.0}
    assert 68 < dots[0, 0].sum() < 68 * 9


def test_true_attributes_have_no_error():
    scenes = [sample_scene(person, 0) for person in range(4)]
    truth = Attributes.of(HeadParams.cat([s.head for s in scenes]), [s.setting for s in scenes])
    predicted = Attributes(
        truth.angles, truth.position, truth.light,
        torch.nn.functional.one_hot(truth.background, 8).float(), torch.nn.functional.one_hot(truth.shirt, 6).float(),
    )  # fmt: skip
    errors = predicted.errors(truth)
    assert all(errors[name].abs().max() < 1e-6 for name in ("pose", "position", "light"))
    assert errors["prompt"].min() == 1
    turned = Attributes(truth.angles + 5, truth.position, truth.light, predicted.background.roll(1, 1), predicted.shirt)
    assert turned.errors(truth)["pose"].sub(5).abs().max() < 1e-4
    assert turned.errors(truth)["prompt"].max() == 0


def test_poses_are_predicted_on_rows_that_the_regression_was_not_fitted_to():
    random = torch.Generator().manual_seed(0)
    angles = torch.randn(640, 2, generator=random)
    noise = torch.randn(640, 3, generator=random)
    predicted = pose_predicted(torch.cat([angles[:, :1] * 3 + 1, noise], dim=1), angles)
    assert predicted[0] > 0.98
    assert abs(predicted[1]) < 0.1


def test_intervals_narrow_with_the_number_of_portraits():
    mean, half = interval(torch.tensor([0.0, 1.0] * 50))
    assert mean == pytest.approx(0.5)
    assert half == pytest.approx(1.96 * 0.5025 / 10, rel=1e-2)


def test_a_missing_or_other_file_is_named(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(BadFile, match="There is no miniature"):
        load_miniature(tmp_path / "none.safetensors")
    save_file({"denoiser.x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(BadFile, match="is not a miniature"):
        load_miniature(tmp_path / "other.safetensors")
