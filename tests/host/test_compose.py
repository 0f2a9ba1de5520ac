"""Transfer, Animate, Save, Load and Render Head as ComfyUI calls them."""

import dataclasses
import json
import logging
import os
import sys
from pathlib import Path

import pytest
import torch

from capface.errors import BadFile, BadInput, MissingFile, MissingPackage
from capface.flame import HeadParams
from capface.flame.builtin import builtin_head
from capface.flame.model.params import SIZES
from capface.tests.flame.heads import random_heads


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in SIZES)


def defaults(node):
    """Return the widget values of a new node."""
    info = node.INPUT_TYPES()
    return {
        name: spec[1]["default"]
        for group in ("required", "optional")
        for name, spec in info.get(group, {}).items()
        if len(spec) > 1 and "default" in spec[1]
    }


def run(node, **inputs):
    """Return a node's first output, with all other inputs at their defaults."""
    return node.execute(**defaults(node) | inputs).result[0]


@pytest.fixture(scope="module")
def nodes(in_host):
    """The node classes of this part of the pack, in a host."""
    from capface.nodes import combine_heads, head_files, render_head

    both = (combine_heads.TransferHead, combine_heads.AnimateHead)
    files = (head_files.SaveHead, head_files.LoadHead)
    return {cls.__name__: cls for cls in (*both, *files, render_head.RenderHead)}


@pytest.fixture(scope="module")
def model():
    return builtin_head()


def test_transfer_takes_position_and_pose_by_default(nodes):
    a, b = random_heads(1), random_heads(3)
    mixed = run(nodes["TransferHead"], head=a, other=b)
    wanted = a.expand(3).replace(camera=b.camera, rotation=b.rotation, neck=b.neck)
    assert same(mixed, wanted)
    everything = run(
        nodes["TransferHead"], head=a, other=b, **dict.fromkeys(("position", "pose", "expression", "lighting", "shape"), True)
    )
    assert same(everything, b)


def test_all_heads_that_are_connected_are_keys(nodes, model):
    heads = random_heads(4)
    sequence = run(nodes["AnimateHead"], head=heads[:2], head_model=model, frames=4, head_2=heads[2], head_4=heads[3])
    assert same(sequence, heads)


def test_a_turntable_is_a_whole_turn_by_default(nodes, model):
    sequence = run(nodes["AnimateHead"], head=HeadParams.neutral(), head_model=model, motion="turntable", frames=4, loop=True)
    degrees = torch.rad2deg(sequence.rotation)
    torch.testing.assert_close(degrees[:, 1].abs(), torch.tensor([0.0, 90, 180, 90]), atol=1e-2, rtol=0)


def test_a_driving_sequence_sets_the_length(nodes, model):
    head, driving = HeadParams.neutral(), random_heads(5)
    sequence = run(nodes["AnimateHead"], head=head, head_model=model, motion="driving", driving=driving, relative=False)
    assert torch.equal(sequence.jaw, driving.jaw)
    with pytest.raises(BadInput, match=r"'driving'.*connect one"):
        run(nodes["AnimateHead"], head=head, head_model=model, motion="driving")


def output_name(in_host, path):
    return os.path.relpath(path, in_host.folder_paths.get_output_directory()).replace(os.sep, "/") + " [output]"


def test_a_saved_head_is_listed_and_loaded_unchanged(nodes, in_host, model):
    from capface.host.user_files import list_user_files

    heads = random_heads(2)
    first = run(nodes["SaveHead"], head=heads, head_model=model)
    second = run(nodes["SaveHead"], head=heads[1])
    numbers = [int(path[-11:-6]) for path in (first, second)]
    assert numbers[1] == numbers[0] + 1
    name = output_name(in_host, first)
    assert name in list_user_files(".json")
    assert nodes["LoadHead"].validate_inputs(name) is True
    assert same(run(nodes["LoadHead"], file=name), heads)


def test_an_edited_file_is_read_again(nodes, in_host):
    path = Path(in_host.folder_paths.get_input_directory()) / "mine.json"
    path.write_bytes(Path(run(nodes["SaveHead"], head=HeadParams.neutral())).read_bytes())
    before = nodes["LoadHead"].fingerprint_inputs("mine.json")
    assert nodes["LoadHead"].fingerprint_inputs("mine.json", head_model=None) == before
    data = json.loads(path.read_text(encoding="utf-8"))
    data["frames"][0]["scale"] = 7
    path.write_text(json.dumps(data), encoding="utf-8")
    assert nodes["LoadHead"].fingerprint_inputs("mine.json") != before
    assert run(nodes["LoadHead"], file="mine.json").camera[0, 0] == 7


def test_another_kind_of_head_model_gives_a_warning(nodes, in_host, model, caplog):
    flame = output_name(in_host, run(nodes["SaveHead"], head=HeadParams.neutral(), head_model=model))
    unknown = output_name(in_host, run(nodes["SaveHead"], head=HeadParams.neutral()))
    other = dataclasses.replace(model, kind="flame2020")
    with caplog.at_level(logging.WARNING, "capface"):
        run(nodes["LoadHead"], file=flame, head_model=model)
        run(nodes["LoadHead"], file=unknown, head_model=other)
        assert not caplog.records
        run(nodes["LoadHead"], file=flame, head_model=other)
    assert "'builtin'" in caplog.text and "'flame2020'" in caplog.text


@pytest.mark.parametrize(
    "name", ["../secret.json", "a/../../secret.json", "/etc/passwd.json", "../x.json [output]", "photo.png", "a\0.json", ""]
)
def test_names_outside_the_folder_are_refused(nodes, name):
    assert "within the input or output folder" in nodes["LoadHead"].validate_inputs(name)
    with pytest.raises(BadInput, match="within the input or output folder"):
        run(nodes["LoadHead"], file=name)


def test_a_missing_file_is_named_with_its_folder(nodes, in_host):
    assert "gone.json is not in" in nodes["LoadHead"].validate_inputs("gone.json")
    with pytest.raises(MissingFile, match=r"gone\.json is not in"):
        run(nodes["LoadHead"], file="gone.json")


def test_another_json_file_is_refused_with_its_name(nodes, in_host):
    (Path(in_host.folder_paths.get_input_directory()) / "workflow.json").write_text('{"nodes": []}', encoding="utf-8")
    with pytest.raises(BadFile, match=r"workflow\.json is not a head"):
        run(nodes["LoadHead"], file="workflow.json")


@pytest.mark.parametrize("prefix", ["../head", "/tmp/head", "a/../../head", "", "  ", "folder/"])
def test_heads_are_saved_only_in_the_output_folder(nodes, prefix):
    with pytest.raises(BadInput, match="within the output folder"):
        run(nodes["SaveHead"], head=HeadParams.neutral(), filename_prefix=prefix)


def test_render_head_gives_every_map_of_every_frame(nodes, model):
    heads = random_heads(3, scale=0.05)
    condition, normal, albedo, lambertian, mask, landmarks = nodes["RenderHead"].execute(heads, model, 48, 32).result
    for picture in (normal, albedo, lambertian, landmarks):
        assert picture.shape == (3, 32, 48, 3) and picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0.01
    assert mask.shape == (3, 32, 48) and set(mask.unique().tolist()) == {0.0, 1.0}
    assert condition.batch == 3 and condition.hint(64, 40).shape == (3, 9, 64, 40)


def test_a_head_as_control_image_fits_the_hosts_sockets(nodes, model):
    from capface.nodes.control_image import ControlImage

    heads = random_heads(3, scale=0.05)
    kinds = next(entry.options for entry in ControlImage.GET_SCHEMA().inputs if entry.id == "kind")
    for kind in kinds:
        image, mask, keypoints = ControlImage.execute(heads, model, kind, 48, 32, grow_mask=2, feather_mask=4).result
        assert image.shape == (3, 32, 48, 3) and image.min() >= 0 and image.max() <= 1 and image.std() > 0.01
        assert mask.shape == (3, 32, 48) and len(mask.unique()) > 2
        assert [(pose["canvas_width"], pose["canvas_height"]) for pose in keypoints] == [(48, 32)] * 3
    with pytest.raises(BadInput, match="Choose a smaller width and height"):
        ControlImage.execute(HeadParams.neutral(900), model, "depth", 8192, 8192)


def test_a_head_outside_the_frame_gives_a_warning(nodes, model, caplog):
    heads = HeadParams.neutral(2).replace(camera=torch.tensor([[5.0, 0, 0], [5.0, 9, 0]]))
    with caplog.at_level(logging.WARNING, "capface"):
        nodes["RenderHead"].execute(heads, model, 32, 32)
    assert "head 2 of 2 is outside the frame" in caplog.text


def test_the_chosen_backend_draws_the_condition_too(nodes, model, monkeypatch):
    condition, *_ = nodes["RenderHead"].execute(HeadParams.neutral(), model, 32, 32).result
    assert condition.backend == "built-in"
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    with pytest.raises(MissingPackage, match="pytorch3d"):
        nodes["RenderHead"].execute(HeadParams.neutral(), model, 32, 32, "pytorch3d")
