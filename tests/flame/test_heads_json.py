import json

import numpy as np
import pytest
import torch

from capface.errors import BadFile
from capface.flame import HeadParams
from capface.flame.io.heads_json import heads_from_json, heads_to_json
from capface.flame.model.params import SIZES
from capface.tests.flame.heads import random_heads


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in SIZES)


def edited(change, batch=1):
    """Return the text of a file after `change` has edited the parsed JSON."""
    data = json.loads(heads_to_json(HeadParams.neutral(batch)))
    change(data)
    return json.dumps(data)


def test_nothing_is_lost():
    for scale in (1e-6, 0.1, 1.0):
        heads = random_heads(20, scale).replace(camera=torch.rand(20, 3) + 1e-3)
        assert same(heads_from_json(heads_to_json(heads), "heads.json").params, heads)


def test_every_float32_survives_as_an_angle():
    bits = np.random.default_rng(0).integers(0, 2**32, 30_000, dtype=np.uint32).view(np.float32)
    angles = torch.from_numpy(bits[np.isfinite(bits) & (np.abs(bits) < 1e30)].copy())
    angles = angles[: len(angles) // 3 * 3].view(-1, 3)
    heads = HeadParams.neutral(len(angles)).replace(rotation=angles)
    assert torch.equal(heads_from_json(heads_to_json(heads), "heads.json").params.rotation, angles)


def test_the_file_is_short_and_in_plain_numbers():
    head = HeadParams.neutral().replace(
        rotation=torch.deg2rad(torch.tensor([[0.0, 30, 0]])),
        expression=torch.tensor([[0.0, 1.2] + [0.0] * 48]),
        camera=torch.tensor([[5.5, 0.1, -0.25]]),
    )
    text = heads_to_json(head, "builtin")
    for line in ('"rotation": [0.0, 30.0, 0.0]', '"expression": [0.0, 1.2]', '"scale": 5.5', '"position": [0.1, -0.25]',
                 '"shape": []', '"head_model": "builtin"'):  # fmt: skip
        assert line in text
    assert len(text.splitlines()) < 30 and all(len(line) < 500 for line in text.splitlines())


def test_the_kind_of_head_model_is_kept():
    assert heads_from_json(heads_to_json(HeadParams.neutral(), "flame2020"), "a").kind == "flame2020"
    assert heads_from_json(heads_to_json(HeadParams.neutral()), "a").kind is None


def test_frames_keep_their_order():
    heads = random_heads(3)
    data = json.loads(heads_to_json(heads))
    data["frames"].reverse()
    assert same(heads_from_json(json.dumps(data), "a").params, heads[[2, 1, 0]])


def test_bytes_are_read_with_and_without_a_byte_order_mark():
    head = random_heads(1)
    text = heads_to_json(head)
    for data in (text.encode(), text.encode("utf-8-sig")):
        assert same(heads_from_json(data, "a").params, head)


def test_edits_and_comments_are_read():
    def edit(data):
        data["comment"] = "looking left"
        data["frames"][0] |= {"rotation": [0, -90, 0], "shape": [1], "comment": "mine"}

    head = heads_from_json(edited(edit), "a").params
    assert head.rotation.tolist() == [[0.0, pytest.approx(-np.pi / 2), 0.0]] and head.shape[0, :2].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"head\.json is not readable as JSON"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", r"head\.json is not readable as JSON"),
        ('{"format": "capface.head"', r"head\.json is not readable as JSON.*line 1"),
        ("[" * 100_000, r"head\.json is not readable as JSON"),
        ("[1, 2]", r"is not a head.*without it.*Save Head"),
        ('{"nodes": [], "links": []}', r"is not a head.*without it"),
        ('{"format": "other"}', r"'other'"),
        ('{"format": "capface.head", "version": 2}', r"version 1.*got 2.*newer"),
        ('{"format": "capface.head", "version": "1"}', r"version 1.*got '1'"),
        ('{"format": "capface.head", "version": true}', r"version 1.*got True"),
        ('{"format": "capface.head"}', r"version 1.*got None"),
    ],
)
def test_the_message_says_what_another_file_is(text, words):
    with pytest.raises(BadFile, match=words):
        heads_from_json(text, "head.json")


def set_field(name, value):
    return lambda data: data["frames"][1].__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("frames"), r"frames: expected a list.*got nothing"),
        (lambda d: d.update(frames=[]), r"frames: .*an empty list"),
        (lambda d: d.update(frames=[3]), r"frames\[0\]: .*a number"),
        (lambda d: d.update(head_model=3), r"head_model: .*a number"),
        (lambda d: d["frames"][1].pop("jaw"), r"frames\[1\]: lacks jaw"),
        (set_field("expresion", []), r"unknown field 'expresion'; did you mean expression"),
        (set_field("hair", []), r"unknown field 'hair'; known are scale, position"),
        (set_field("rotation", [0, 1]), r"frames\[1\]\.rotation: expected 3 numbers, got 2"),
        (set_field("rotation", 30), r"rotation: expected a list of 3 numbers, got a number"),
        (set_field("rotation", [0, "30", 0]), r"rotation: .*a text among them"),
        (set_field("rotation", [0, None, 0]), r"rotation: .*nothing among them"),
        (set_field("rotation", [0, True, 0]), r"rotation: .*true or false among them"),
        (set_field("rotation", [0, float("nan"), 0]), r"NaN is not a valid number"),
        (set_field("rotation", [0, float("-inf"), 0]), r"-Infinity is not a valid number"),
        (set_field("position", [10**400, 0]), r"position: .*too large"),
        (set_field("shape", [1e39]), r"shape: .*too large"),
        (set_field("shape", [0] * 101), r"shape: expected at most 100 numbers, got 101"),
        (set_field("eyes", [[0, 0, 0]]), r"eyes: expected two lists.*a list of 1"),
        (set_field("eyes", [[0, 0, 0], [0, 0]]), r"eyes\[1\]: expected 3 numbers, got 2"),
        (set_field("scale", 0), r"scale: expected a number above 0, got 0"),
        (set_field("scale", -5), r"scale: expected a number above 0, got -5"),
        (set_field("scale", 1e-60), r"scale: expected a number above 0"),
        (set_field("scale", [5]), r"scale: expected 1 number, got a list of 1"),
        (set_field("light", [[0, 0, 0]] * 9), r"light: expected the harmonics 1, x.*a list of 9"),
        (lambda d: d["frames"][1]["light"].pop("xz"), r"light: lacks xz"),
        (lambda d: d["frames"][1]["light"].update(x=[0, 0]), r"light\[x\]: expected 3 numbers, got 2"),
    ],
)
def test_invalid_fields_are_refused_with_a_message(change, words):
    with pytest.raises(BadFile, match=words):
        heads_from_json(edited(change, batch=2), "head.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_field("scale", 3e38), r"scale: expected 1 number from -1e\+18 to 1e\+18"),
        (set_field("texture", [3e38]), r"texture: expected at most 50 numbers from -10000 to 10000"),
        (lambda d: d["frames"][1]["light"].update(x=[3e38, 0, 0]), r"light\[x\]: expected 3 numbers from -10000 to 10000"),
        (set_field("rotationposition" * 400_000, 1), r"unknown field 'rotationposition"),
        (lambda d: d.update(frames=d["frames"] * 10_000), r"20,000 heads, expected at most 16,384"),
        (lambda d: d.update(head_model=[[]] * 2_000_000), "brackets, expected at most"),
        (lambda d: d.update(format="x" * 5_000_000), "the format 'xxx"),
    ],
)
def test_a_file_states_neither_much_nor_large_numbers(change, words):
    with pytest.raises(BadFile, match=words) as error:
        heads_from_json(edited(change, batch=2), "head.json")
    assert len(str(error.value)) < 300
