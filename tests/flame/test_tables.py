"""Heads as tables of numbers."""

import dataclasses

import pytest
import torch

from capface.errors import BadFile, BadInput
from capface.flame.builtin import builtin_head
from capface.flame.editing import ARKIT, heads_from_arkit
from capface.flame.io import arkit_csv, heads_from_csv, read_table, vectors_csv
from capface.flame.model import HeadParams
from capface.tests.flame.heads import random_heads


@pytest.fixture(scope="module")
def model():
    return builtin_head()


@pytest.fixture(scope="module")
def flame(model):
    """The built-in head under FLAME's name: vectors are read and written for FLAME only."""
    return dataclasses.replace(model, kind="flame2020", name="FLAME 2020")


def test_vectors_are_read_again_without_loss(flame):
    heads = random_heads(3)
    text = vectors_csv(flame, heads)
    header, *rows = text.splitlines()
    names = header.split(",")
    assert names[:55] == [*(f"expression_{i}" for i in range(50)), "eyelid_0", "eyelid_1", "jaw_0", "jaw_1", "jaw_2"]
    assert len(rows) == 3
    again = heads_from_csv(text, flame, HeadParams.neutral())
    for name in ("expression", "jaw", "rotation", "neck", "eyes"):
        assert torch.equal(getattr(again, name), getattr(heads, name))
    assert torch.equal(again.shape, HeadParams.neutral(3).shape)


def numbers(*values):
    return ",".join(f"{value:g}" for value in values)


@pytest.mark.parametrize("separator", [",", ";", "\t", " ", ", "])
def test_rows_without_names_are_known_by_their_length(flame, separator):
    expression = [i / 100 for i in range(50)]

    def read(*more):
        return heads_from_csv(numbers(*expression, *more).replace(",", separator), flame, HeadParams.neutral())

    for head in (read(), read(0.1, 0.2, 0.3), read(0, 0, 0.1, 0.2, 0.3), read(0.4, 0.5, 0.6, 0.1, 0.2, 0.3)):
        assert torch.allclose(head.expression, torch.tensor([expression]))
    assert not read().jaw.any()
    for head in (read(0.1, 0.2, 0.3), read(0, 0, 0.1, 0.2, 0.3), read(0.4, 0.5, 0.6, 0.1, 0.2, 0.3)):
        assert torch.allclose(head.jaw, torch.tensor([[0.1, 0.2, 0.3]]))
    assert torch.allclose(read(0.4, 0.5, 0.6, 0.1, 0.2, 0.3).rotation, torch.tensor([[0.4, 0.5, 0.6]]))


def test_a_printed_list_of_numbers_is_read(flame):
    head = heads_from_csv("[" + ", ".join(["0.5"] * 50) + "]\n", flame, HeadParams.neutral())
    assert torch.equal(head.expression, torch.full((1, 50), 0.5))


def test_smirks_eyelids_close_the_eyes(flame):
    lids = heads_from_csv(numbers(*[0] * 50, 1, 0, 0, 0, 0), flame, HeadParams.neutral())
    rest, shut = (flame.landmarks(head)[0] for head in (HeadParams.neutral(), lids))
    opening = [(points[43] - points[47]).norm() for points in (rest, shut)]
    assert opening[1] < 0.4 * opening[0]
    assert (rest[37] - shut[37]).norm() < 0.001


def test_names_are_found_in_any_order_and_form(flame):
    text = "Frame; EXP 3; jaw_0; shape_1; Pose\n1; 0.5; 0.2; -1; 9\n2; 0.6; 0.1; -2; 9\n"
    heads = heads_from_csv(text, flame, HeadParams.neutral())
    assert heads.expression[:, 3].tolist() == pytest.approx([0.5, 0.6])
    assert heads.jaw[:, 0].tolist() == pytest.approx([0.2, 0.1])
    assert heads.shape[:, 1].tolist() == [-1, -2]
    assert heads.expression.count_nonzero() == 2


def test_blendshapes_are_read_as_live_link_face_writes_them(model):
    header = ["Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in ARKIT), "HeadYaw", "HeadPitch"]
    values = ["00:00:01:00.0", "61", *("0.5" if name == "jawOpen" else "0" for name in ARKIT), "0.3", "0.2"]
    base = random_heads(1)
    heads = heads_from_csv(",".join(header) + "\n" + ",".join(values) + "\n", model, base)
    expected = heads_from_arkit(model, {"jawOpen": torch.tensor([0.5])}, base)
    assert torch.equal(heads.jaw, expected.jaw) and torch.equal(heads.expression, expected.expression)
    assert torch.equal(heads.rotation, base.rotation)


def test_blendshapes_are_written_and_read_again(model):
    wanted = heads_from_arkit(model, {"mouthSmileLeft": torch.tensor([0.2, 0.9])}, HeadParams.neutral(2))
    text = arkit_csv(model, wanted)
    assert text.splitlines()[0].split(",") == list(ARKIT)
    again = heads_from_csv(text, model, HeadParams.neutral())
    assert (model.landmarks(again) - model.landmarks(wanted)).norm(dim=-1).max() < 0.0005


def test_the_base_keeps_what_the_table_does_not_state(flame):
    base = random_heads(2)
    heads = heads_from_csv(f"{numbers(*[0.1] * 50)}\n{numbers(*[0.2] * 50)}", flame, base)
    for name in ("shape", "rotation", "camera", "eyes", "light"):
        assert torch.equal(getattr(heads, name), getattr(base, name))
    pose = heads_from_csv("rotation_1\n0.5\n0.6\n", flame, base)
    assert torch.equal(pose.jaw, base.jaw) and torch.equal(pose.expression, base.expression)
    with pytest.raises(BadInput, match="has 3 rows, but the head has 2 frames"):
        heads_from_csv("jaw_0\n0\n0\n0\n", flame, base)


def test_vectors_are_flames(model):
    with pytest.raises(BadInput, match="components of FLAME 2020"):
        vectors_csv(model, HeadParams.neutral())
    with pytest.raises(BadInput, match="components of FLAME 2020"):
        heads_from_csv(numbers(*[0] * 50), model, HeadParams.neutral())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("jaw_0\n", "names but no row"),
        ("1,2,3\n", "rows of 50, 53, 55, 56 numbers; got 3 numbers"),
        ("a,b\n1,2\n", "no column that is known.*the first is a"),
        ("jaw_0,jaw_1\n1\n", "row 1: expected 2 numbers like the first row, got 1"),
        ("jaw_0\nnan\n", "row 1, column 1: expected a number.*got nan"),
        ("jaw_0\n1\nx\n", "row 2, column 1: .*got x"),
        ("jaw_0\n1e9\n", "got 1e9"),
        ("," * 2000, "2,001 columns"),
    ],
)
def test_other_tables_are_refused(flame, text, message):
    with pytest.raises(BadFile, match=message):
        heads_from_csv(text, flame, HeadParams.neutral())


def test_files_are_read_with_the_mark_of_their_encoding(model, tmp_path):
    path = tmp_path / "take.csv"
    path.write_bytes(b"\xef\xbb\xbfJawOpen\r\n0.5\r\n")
    assert read_table(path, model, HeadParams.neutral()).jaw[0, 0] > 0
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadFile, match="one row a frame"):
        read_table(path, model, HeadParams.neutral())
