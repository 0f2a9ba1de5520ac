"""Samples of a prepared training set, and the order in which they come."""

import io
import itertools
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from capface.errors import BadFile, BadInput, MissingFile

pytest.importorskip("facenet_pytorch", reason="MTCNN, which finds the faces, comes with facenet-pytorch")
pytest.importorskip("insightface", reason="insightface brings the picture of six people")
pytest.importorskip("open_clip", reason="open_clip_torch is not installed")

from capface.flame.builtin import builtin_head
from capface.flame.io.heads_json import heads_from_json
from capface.flame.render.maps import render_head
from capface.tests.training import photo_sets
from capface.training.dataset import Position, Positions, TrainingSet
from capface.training.shards import read_json, write_json


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return photo_sets.prepared(tmp_path_factory.getbasetemp())


@pytest.fixture
def copy(out, tmp_path):
    return shutil.copytree(out, tmp_path / "copy")


def first(positions, count):
    return list(itertools.islice(positions, count))


# Samples


@pytest.mark.parametrize("size", [512, 96])
def test_a_sample_is_the_picture_and_its_rendered_head(out, size):
    samples = TrainingSet(out, size=size)
    assert len(samples) == 4
    for i in range(4):
        sample, about = samples[i], json.loads(samples.read(i, "json"))
        head = heads_from_json(json.dumps(about["head"]), "head").params
        maps = render_head(builtin_head(), head, size, size)
        assert torch.equal(sample["hint"], maps.hint()[0])
        assert torch.equal(sample["alpha"], maps.alpha[0])
        assert 0.1 < sample["alpha"].mean() < 0.9
        picture = Image.open(io.BytesIO(samples.read(i, "jpg")))
        assert sample["image"].shape == (3, size, size)
        small = np.array(picture.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs((sample["image"].numpy() + 1) * 127.5 - small).max() < 1.01
        assert sample["image"].min() >= -1 and sample["image"].max() <= 1
        assert (sample["caption"], sample["key"]) == (about["caption"], samples.places[i].key)
        assert torch.equal(sample["global"], torch.from_numpy(np.load(io.BytesIO(samples.read(i, "global.npy")))))
        assert sample["local"].dtype == torch.float32
        assert sample["local"].shape == (photo_sets.TOKENS, photo_sets.WIDTH)


def test_features_come_from_the_picture_or_from_another_of_the_person(out):
    """Anna has two photos, the others one."""
    own, other = TrainingSet(out), TrainingSet(out, other_reference=1.0)
    assert [own.reference(Position(0, i)) for i in range(4)] == [0, 1, 2, 3]
    assert [other.reference(Position(0, i)) for i in range(4)] == [1, 0, 2, 3]
    swapped, anna = other[0], own[1]
    assert swapped["reference"] == anna["key"] == own.places[1].key
    for feature in ("local", "global"):
        assert torch.equal(swapped[feature], anna[feature])
    assert torch.equal(swapped["image"], own[0]["image"])

    half = TrainingSet(out, other_reference=0.5, seed=3)
    drawn = [half.reference(Position(epoch, 0)) for epoch in range(400)]
    assert 150 < sum(drawn) < 250
    assert drawn == [TrainingSet(out, other_reference=0.5, seed=3).reference(Position(epoch, 0)) for epoch in range(400)]
    assert drawn != [TrainingSet(out, other_reference=0.5, seed=4).reference(Position(epoch, 0)) for epoch in range(400)]


# Order


def test_every_epoch_visits_each_sample_once_in_another_order():
    drawn = first(Positions(50, seed=1), 150)
    epochs = [[p.index for p in drawn if p.epoch == epoch] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(50))
    assert drawn == first(Positions(50, seed=1), 150)
    assert drawn != first(Positions(50, seed=2), 150)


def test_processes_share_an_order_and_resume_anywhere():
    whole = first(Positions(7), 60)
    for world in (1, 2, 3):
        ranks = [first(Positions(7, rank=rank, world=world), 60 // world) for rank in range(world)]
        assert [p for step in zip(*ranks, strict=True) for p in step] == whole
    # stopped after 24 samples on three processes, resumed on two
    ranks = [first(Positions(7, rank=rank, world=2, start=24), 18) for rank in range(2)]
    assert [p for step in zip(*ranks, strict=True) for p in step] == whole[24:]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_change_neither_order_nor_samples(out):
    def batches(workers, start=0, count=4):
        loader = torch.utils.data.DataLoader(
            TrainingSet(out, size=48, other_reference=0.5),
            batch_size=3,
            sampler=Positions(4, seed=5, start=start),
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
        )
        return list(itertools.islice(loader, count))

    alone, two, resumed = batches(0), batches(2), batches(2, start=6, count=2)
    assert [b["key"] for b in alone] == [b["key"] for b in two]
    for a, b in zip(alone + alone[2:], two + resumed, strict=True):
        assert a["key"] == b["key"] and a["reference"] == b["reference"] and a["caption"] == b["caption"]
        for name in ("image", "hint", "alpha", "global", "local"):
            assert torch.equal(a[name], b[name])


def test_an_empty_set_is_refused():
    with pytest.raises(BadInput, match=r"no samples.*report\.md"):
        Positions(0)


# Invalid training sets


def test_another_head_model_is_refused(out, copy):
    flame = replace(builtin_head(), kind="flame2020")
    with pytest.raises(BadInput, match="kind builtin, got one of kind flame2020"):
        TrainingSet(out, head_model=flame)
    about = read_json(copy / "dataset.json")
    write_json(copy / "dataset.json", about | {"head_model": {"kind": "flame2020"}})
    with pytest.raises(BadInput, match="kind flame2020, got none"):
        TrainingSet(copy)
    assert TrainingSet(copy, head_model=flame)[0]["hint"].shape == (9, 512, 512)


def test_numbers_out_of_range_are_refused(out):
    with pytest.raises(BadInput, match=r"0\.\.1, got 512 and 1\.5"):
        TrainingSet(out, other_reference=1.5)
    with pytest.raises(BadInput, match="size from 1"):
        TrainingSet(out, size=0)


def test_incomplete_sets_are_named(copy, tmp_path):
    with pytest.raises(MissingFile, match=r"dataset\.json"):
        TrainingSet(tmp_path)
    samples = TrainingSet(copy)
    (copy / "000000.tar").write_bytes((copy / "000000.tar").read_bytes()[:4000])
    with pytest.raises(BadFile, match=r"000000\.tar is truncated"):
        samples[0]
    (copy / "000000.tar").unlink()
    with pytest.raises(MissingFile, match=r"000000\.tar.*whole folder"):
        samples[0]
    (copy / "000001.json").unlink()
    with pytest.raises(BadFile, match=r"index beside 000001\.tar"):
        TrainingSet(copy)
    write_json(copy / "dataset.json", {"format": "something else"})
    with pytest.raises(BadFile, match="not a training set of version 1"):
        TrainingSet(copy)
    (copy / "dataset.json").write_text("{")
    with pytest.raises(BadFile, match="not readable JSON"):
        TrainingSet(copy)


@pytest.mark.parametrize("file", ["../000000.tar", "/etc/passwd", "a/000000.tar", "000000.TAR", "0.tar", 3, None])
def test_a_set_names_no_file_outside_its_folder(copy, file):
    about = read_json(copy / "dataset.json")
    about["shards"][0]["file"] = file
    write_json(copy / "dataset.json", about)
    with pytest.raises(BadFile, match="a shard is called"):
        TrainingSet(copy)


@pytest.mark.parametrize("place", [[0, 10**12], [-512, 512], [0], ["0", 3], [0.5, 1], None])
def test_an_index_names_no_byte_outside_its_shard(copy, place):
    index = read_json(copy / "000000.json")
    index["samples"][0]["members"]["json"] = place
    write_json(copy / "000000.json", index)
    with pytest.raises(BadFile, match=r"000000\.(tar|json)"):
        TrainingSet(copy)[0]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_a_shard_is_no_link(copy, tmp_path):
    (copy / "000000.tar").replace(tmp_path / "elsewhere.tar")
    (copy / "000000.tar").symlink_to(tmp_path / "elsewhere.tar")
    with pytest.raises(BadFile, match="is a link"):
        TrainingSet(copy)[0]
