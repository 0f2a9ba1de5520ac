"""From photos to shards: real faces found by a real detector, encoded by stand-ins for the other networks."""

import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from capface.errors import BadInput, MissingFile

pytest.importorskip("facenet_pytorch", reason="MTCNN, which finds the faces, comes with facenet-pytorch")
pytest.importorskip("insightface", reason="insightface brings the picture of six people")
pytest.importorskip("open_clip", reason="open_clip_torch is not installed")

from capface.flame.builtin import builtin_head
from capface.flame.fitting.deca_codes import deca_heads
from capface.flame.io.heads_json import heads_from_json
from capface.flame.model.camera import frame_to_pixels, project
from capface.flame.model.landmarks import five_point_weights
from capface.flame.model.params import HeadParams
from capface.flame.model.spherical_harmonics import directional_light, frontal_light
from capface.flame.render.maps import landmark_pixels, render_head
from capface.models.clip.image_tokens import load_clip_tokens
from capface.models.faces.crops import facenet_face
from capface.models.faces.deca import CODE_SIZE, load_deca, split_code
from capface.models.faces.detection import FaceDetection
from capface.models.faces.facenet import load_facenet
from capface.models.faces.parsing import keep_face, load_parser
from capface.photos.analysis import PlainNetworks
from capface.photos.portrait import align, deca_face
from capface.tests.synthetic import state_dict
from capface.tests.training import photo_sets
from capface.tests.training.photo_sets import RULES, TOKENS, WIDTH, astronaut, group, save
from capface.training.dataset import TrainingSet
from capface.training.photo_files import find_photos
from capface.training.prepare import main, prepare
from capface.training.ray_session import RaySession
from capface.training.report import as_table, make_report
from capface.training.rules import REASONS, Rejected, Rules, outside_fraction, turned_away
from capface.training.samples import Networks, SampleMaker, array_bytes, load_photo
from capface.training.shards import Sample, digest, read_index, read_json, read_member, write_shard
from capface.training.workers import LOCAL, RemoteMaker


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photo_sets.photos(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return photo_sets.networks(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return photo_sets.settings(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return photo_sets.prepared(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def reader(folder, networks):
    return SampleMaker(folder, networks, RULES, "a photo of a person")


def shards(out):
    return {path.name: digest(path) for path in sorted(out.glob("*.tar"))}


# The content of a training set


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_can_read_it(out):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    urls = [str(path) for path in sorted(out.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb"))
    gc.collect()  # webdataset leaves its files open; ignore the warnings about it only here
    assert [sample["json"]["source"] for sample in samples] == ["anna/1.png", "anna/2.jpg", "bob.png", "people/carol.png"]
    for sample in samples:
        assert sample["jpg"].shape == (512, 512, 3)
        assert sample["global.npy"].shape == (512,) and sample["global.npy"].dtype == np.float32
        assert sample["local.npy"].shape == (TOKENS, WIDTH) and sample["local.npy"].dtype == np.float16
        assert sample["parsing.png"].shape[:2] == (512, 512)
    assert [sample["json"]["identity"] for sample in samples] == ["anna", "anna", "bob.png", "people"]
    assert [sample["json"]["caption"] for sample in samples] == [
        *2 * ["a photo of a person"],
        "a man before a window",
        "a photo of a person",
    ]


def test_the_set_has_a_description(out, folder, networks):
    about = read_json(out / "dataset.json")
    assert (about["photos"], about["accepted"], about["identities"]) == (6, 4, 3)
    assert about["head_model"]["kind"] == "builtin"
    assert about["encoders"]["local"]["shape"] == [TOKENS, WIDTH]
    assert about["encoders"]["global"]["sha256"] == digest(Path(networks.facenet))
    assert about["detector"] == "mtcnn"
    assert about["rules"] == asdict(RULES)
    assert {shard["file"]: shard["sha256"] for shard in about["shards"]} == shards(out)
    assert sum(shard["samples"] for shard in about["shards"]) == 4
    for shard in about["shards"]:
        assert (out / shard["file"]).stat().st_size == shard["bytes"]


def test_features_equal_those_of_separate_network_calls(out, folder, networks, reader):
    """Computed again from each photo: portrait, embedding, labels, and the tokens of the face on white."""
    for index in (read_json(path) for path in sorted(out.glob("0*.json"))):
        for sample in index["samples"]:
            image = load_photo(folder / sample["source"])
            portrait, face, _ = align(image, reader.analyzer.detect(image)[0])
            files = {ending: read_member(out, index["shard"], place) for ending, place in sample["members"].items()}
            stored = np.array(Image.open(io.BytesIO(files["jpg"])))
            assert np.abs(stored - portrait.mul(255).movedim(0, -1).numpy()).mean() < 1.5
            with torch.inference_mode():
                embedding = load_facenet(networks.facenet)(facenet_face(portrait, face.box)[None])[0]
                labels = load_parser(networks.parser).parse(portrait[None])
                tokens = load_clip_tokens(networks.clip)(keep_face(portrait[None], labels))[0]
            assert np.abs(np.load(io.BytesIO(files["global.npy"])) - embedding.numpy()).max() < 1e-5
            assert (np.array(Image.open(io.BytesIO(files["parsing.png"]))) == labels[0].numpy()).mean() > 0.999
            found = np.load(io.BytesIO(files["local.npy"])).astype(np.float32)
            assert np.abs(found - tokens.numpy()).max() < 1e-3 * np.abs(tokens.numpy()).max()


def test_heads_lie_over_the_faces_they_were_fitted_to(out, folder, reader):
    for index in (read_json(path) for path in sorted(out.glob("0*.json"))):
        for sample in index["samples"]:
            about = json.loads(read_member(out, index["shard"], sample["members"]["json"]))
            head = heads_from_json(json.dumps(about["head"]), "head").params
            image = load_photo(folder / sample["source"])
            _, face, _ = align(image, reader.analyzer.detect(image)[0])
            found = landmark_pixels(builtin_head(), head, 512, 512)[0] - 0.5
            eyes = torch.stack([found[36:42].mean(0), found[42:48].mean(0)])
            apart = (face.points5[1] - face.points5[0]).norm()
            assert (eyes - face.points5[:2]).norm(dim=1).max() < 0.15 * apart
            assert about["fit_error"] < RULES.max_error
            assert about["turn"] == pytest.approx(turned_away(head), abs=0.01)
            assert (head.light != HeadParams.neutral().light).any()


def test_a_rendered_head_is_recovered_with_its_expression_and_light(reader, tmp_path, monkeypatch):
    """For a picture of a head with 68 known landmarks, the maps of its sample resemble the picture."""
    model = builtin_head()
    light = directional_light((0.6, 0.3, 0.75), (0.8, 0.8, 0.8)) + 0.4 * frontal_light()
    known = HeadParams.neutral().replace(
        rotation=torch.tensor([[0.1, 0.35, 0.2]]),
        camera=torch.tensor([[3.5, 0.05, 0.1]]),
        expression=torch.nn.functional.one_hot(torch.tensor([2]), 50).float() * 1.5,
        light=light[None],
    )
    maps = render_head(model, known, 700, 600)
    save(tmp_path / "drawn.png", (maps.lambertian[0].clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy())
    fixed = model.fixed_landmarks(model.vertices(known))  # a 3D detector's, whose contour does not slide
    points = frame_to_pixels(project(fixed, known.camera)[..., :2], 700, 600)[0] - 0.5
    box = torch.cat([points.amin(0), points.amax(0)])
    face = FaceDetection(box, 1.0, five_point_weights() @ points, points)
    monkeypatch.setattr(reader, "folder", tmp_path)
    monkeypatch.setattr(reader.analyzer.networks.detector, "detect", lambda image: [face])
    sample = reader.read(list(enumerate(find_photos(tmp_path)))).samples[0]
    about = json.loads(sample.members["json"])
    assert about["landmarks"] == 68
    assert about["fit_error"] < 0.005
    head = heads_from_json(json.dumps(about["head"]), "head").params
    assert turned_away(head) == pytest.approx(turned_away(known), abs=1)
    assert head.expression[0, 2] > 0.75
    picture = torch.from_numpy(np.array(Image.open(io.BytesIO(sample.members["jpg"])))).movedim(-1, 0) / 255
    drawn = render_head(model, head, 512, 512)
    assert (drawn.lambertian[0] - picture).abs().mean() < 0.02
    unlit = render_head(model, head.replace(light=HeadParams.neutral().light), 512, 512)
    assert (unlit.lambertian[0] - picture).abs().mean() > 0.04


def test_the_report_lists_rejected_photos_and_durations(out):
    report = read_json(out / "report.json")
    assert report["rejected"] == {"unreadable": 1, "duplicate": 1}
    assert {one["source"]: one["reason"] for one in report["left_out"]} == {"broken.jpg": "unreadable", "copy.png": "duplicate"}
    assert any("of anna/1.png" in one["detail"] for one in report["left_out"])
    assert set(report["stages"]) == {"decode", "detect", "align", "fit", "light", "parse", "FaceNet", "CLIP", "write"}
    assert report["stages"]["decode"]["photos"] == 5
    for stage in report["stages"].values():
        assert stage["per_second"] == pytest.approx(stage["photos"] / stage["seconds"], rel=0.1) or stage["seconds"] < 0.05
    assert any("five landmarks" in note for note in report["notes"])
    assert any(f"{TOKENS} tokens of {WIDTH}" in note for note in report["notes"])
    table = (out / "report.md").read_text()
    assert "4 of 6 photos (67%)" in table
    for reason in ("unreadable", "duplicate"):
        assert REASONS[reason] in table


def test_folders_with_photos_of_several_people_are_reported(tmp_path):
    def sample(key, identity, *vector):
        unit = np.asarray(vector, np.float32) / np.linalg.norm(vector)
        return Sample(key, identity, f"{key}.jpg", {"global.npy": array_bytes(torch.from_numpy(unit))})

    rows = [sample("a", "one", 1, 0.2), sample("b", "one", 1, 0), sample("c", "alone", 1, 0)]
    rows += [sample("d", "mixed|up", 1, 0), sample("e", "mixed|up", 0, 1), sample("f", "mixed|up", 1, 1)]
    write_shard(tmp_path, 0, rows, {"rejected": [], "stages": {}})
    index = read_index(tmp_path, 0)
    assert index is not None
    report = make_report(tmp_path, [index], {}, [], {"photos": 6, "seconds": 1, "workers": 0})
    assert report["strangers"] == []  # a mean of 0.47
    rows[5] = sample("f", "mixed|up", -1, 1)
    write_shard(tmp_path, 0, rows, {"rejected": [], "stages": {}})
    index = read_index(tmp_path, 0)
    assert index is not None
    report = make_report(tmp_path, [index], {}, [], {"photos": 6, "seconds": 1, "workers": 0})
    assert [(one["identity"], one["photos"]) for one in report["strangers"]] == [("mixed|up", 3)]
    assert report["strangers"][0]["cosine"] == pytest.approx((0 - np.sqrt(0.5) + np.sqrt(0.5)) / 3, abs=1e-3)
    assert "| mixed\\|up" in as_table(report)


# Rejected photos


def reasons(reader, rules, *photos):
    """Return the reasons for which photos are rejected."""
    reader.rules = replace(RULES, **rules)
    try:
        batch = reader.read(list(enumerate(photos)))
    finally:
        reader.rules = RULES
    assert len(batch.samples) + len(batch.rejected) == len(photos)
    return [one["reason"] for one in batch.rejected]


BROKEN = {
    "unreadable": ({}, b"no picture"),
    "no face": ({}, np.full((128, 128, 3), 128, np.uint8)),
    "doubtful": ({"min_score": 1.1}, "astronaut"),
    "several faces": ({}, "group"),
    "small": ({"min_side": 200}, "astronaut"),
    "cut off": ({"max_outside": 0.05}, "cut"),
    "turned": ({"max_turn": 2.0}, "astronaut"),
    "bad fit": ({"max_error": 0.001}, "astronaut"),
    "badly exposed": ({}, "red light"),
    "hidden": ({"min_face": 1.0}, "astronaut"),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_each_rule_rejects_a_photo(networks, reader, tmp_path, monkeypatch, reason):
    rules, content = BROKEN[reason]
    known = {
        "astronaut": astronaut(),
        "group": group(),
        "cut": astronaut()[70:],
        "red light": np.concatenate([np.full((512, 512, 1), 255, np.uint8), astronaut()[..., 1:]], axis=2),
    }
    content = known[content] if isinstance(content, str) else content
    if isinstance(content, bytes):
        (tmp_path / "photo.png").write_bytes(content)
    else:
        save(tmp_path / "photo.png", content)
    monkeypatch.setattr(reader, "folder", tmp_path)
    assert reasons(reader, rules, *find_photos(tmp_path)) == [reason]


def test_captions_that_are_not_text_and_duplicates_are_rejected(reader, tmp_path, monkeypatch):
    save(tmp_path / "a.png", astronaut())
    save(tmp_path / "b" / "c.png", astronaut())
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setattr(reader, "folder", tmp_path)
    assert reasons(reader, {}, *find_photos(tmp_path)) == ["caption", "duplicate"]
    assert set(BROKEN) | {"caption", "duplicate"} == set(REASONS)


def test_only_the_photo_without_a_valid_head_is_rejected(reader, folder, monkeypatch):
    """All landmarks on one point in the first of two photos, which a detector should never return."""
    detect, seen = reader.analyzer.networks.detector.detect, []

    def odd(image):
        seen.append(image)
        faces = detect(image)
        return faces if len(seen) > 1 else [replace(faces[0], points5=torch.full((5, 2), 50.0))]

    monkeypatch.setattr(reader.analyzer.networks.detector, "detect", odd)
    batch = reader.read(list(enumerate(find_photos(folder)[:2])))
    assert [(one["source"], one["reason"]) for one in batch.rejected] == [("anna/1.png", "bad fit")]
    assert "face landmarks" in batch.rejected[0]["detail"]
    assert [sample.source for sample in batch.samples] == ["anna/2.jpg"]


def test_the_fraction_outside_is_that_of_the_portrait():
    inside = torch.tensor([[4.0, 0, -100], [0, 4, -100], [0, 0, 1]])  # shows x and y from 25 to 153
    assert outside_fraction(inside, 200, 200) == 0
    assert outside_fraction(inside, 200, 89) == pytest.approx(0.5, abs=0.02)
    assert outside_fraction(inside, 89, 89) == pytest.approx(0.75, abs=0.02)


def test_limits_are_numbers_from_0():
    with pytest.raises(BadInput, match="limits from 0"):
        Rules(max_turn=-1)
    with pytest.raises(Rejected) as error:
        Rules().choose([])
    assert str(error.value) == REASONS["no face"]


# Finding photos


def test_identities_are_folders_or_photos(folder):
    by_folder = {photo.source: photo.identity for photo in find_photos(folder)}
    assert list(by_folder) == ["anna/1.png", "anna/2.jpg", "bob.png", "broken.jpg", "copy.png", "people/carol.png"]
    assert by_folder["anna/1.png"] == by_folder["anna/2.jpg"] == "anna"
    assert by_folder["bob.png"] == "bob.png"
    assert all(photo.identity == photo.source for photo in find_photos(folder, "photo"))
    with pytest.raises(BadInput, match="folder or photo"):
        find_photos(folder, "face")


def test_known_files_are_not_read_again(folder):
    found = find_photos(folder)
    assert find_photos(folder, known=[replace(photo, digest="known") for photo in found])[0].digest == "known"
    assert find_photos(folder, known=[replace(photo, digest="known", size=1) for photo in found]) == found


def test_folders_without_photos_are_named(tmp_path):
    with pytest.raises(MissingFile, match="There is no folder"):
        find_photos(tmp_path / "none")
    with pytest.raises(MissingFile, match=r"no photo in .*\.jpg"):
        find_photos(tmp_path)


def test_photos_are_read_in_their_displayed_orientation(tmp_path):
    grey = np.linspace(0, 255, 20 * 10).reshape(20, 10).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # must be rotated by 90° clockwise
    save(tmp_path / "turned.png", grey, exif=exif)
    image = load_photo(tmp_path / "turned.png")
    assert image.shape == (3, 10, 20)
    assert torch.equal(image[1], torch.from_numpy(np.rot90(grey, -1).copy()) / 255)


# Interruption and resume


def command(folder, out, networks, *more):
    names = {name: getattr(networks, name) for name in ("facenet", "clip", "parser")}
    limits = {"min-side": RULES.min_side, "min-face": RULES.min_face, "max-outside": RULES.max_outside}
    flags = {**names, **limits, "detector": "mtcnn", "per-shard": 2, "batch": 2, "workers": 1}
    return [str(folder), str(out), *(f"--{name}={value}" for name, value in flags.items()), *more]


def alive(pid):
    """Return whether a process still runs; a zombie does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers in /proc")
def test_a_killed_run_resumes_to_the_same_shards(folder, networks, settings, out, tmp_path):
    """Killed after its first shard, with a worker process, and resumed in this process."""
    again = tmp_path / "again"
    environ = dict(os.environ, OMP_WAIT_POLICY="PASSIVE")
    arguments = [sys.executable, "-m", "capface.training.prepare", *command(folder, again, networks)]
    process = subprocess.Popen(arguments, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        deadline = time.monotonic() + 300
        while not (again / "000000.json").is_file():
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert len(workers) >= 1
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers outlive what started them"
        time.sleep(0.05)
    assert not (again / "dataset.json").exists()
    (again / "000001.tar.part").write_bytes(b"half")
    first = (again / "000000.tar").stat().st_mtime_ns

    report = prepare(folder, again, settings)
    assert shards(again) == shards(out)
    assert (again / "000000.tar").stat().st_mtime_ns == first
    assert report["run"]["photos"] < report["photos"] == 6
    assert not list(again.glob("*.part"))
    assert read_json(again / "dataset.json") == read_json(out / "dataset.json")


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed; there is none for Intel Macs")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_workers_of_ray_make_the_same_shards_and_one_may_die(folder, networks, settings, out, tmp_path, monkeypatch):
    start, started = RaySession.actor, []

    def actor(session, *arguments):
        started.append(start(session, *arguments))
        if len(started) == 1:
            session.ray.kill(started[0])
        return started[-1]

    monkeypatch.setattr(RaySession, "actor", actor)
    report = prepare(folder, tmp_path / "ray", settings, workers=2, address=LOCAL)
    assert shards(tmp_path / "ray") == shards(out) and report["photos"] == 6
    assert len(started) == 3


def test_paths_of_networks_do_not_depend_on_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = Networks("facenet.pt", "/models/clip.pt", detector="mtcnn").absolute()
    assert (found.facenet, found.clip) == (str(tmp_path.resolve() / "facenet.pt"), str(Path("/models/clip.pt").resolve()))
    assert (found.parser, found.detector) == (None, "mtcnn")


def test_a_worker_of_ray_returns_the_packs_own_errors(folder, networks, settings, tmp_path):
    without = replace(networks, facenet=str(tmp_path / "nothing.pt"))
    error = RemoteMaker((folder, without, settings.rules, settings.caption, "cpu")).read([])
    assert isinstance(error, MissingFile) and "nothing.pt" in str(error)


def test_a_finished_set_is_not_changed(folder, settings, out, capsys):
    before = shards(out), (out / "000001.tar").stat().st_mtime_ns
    report = prepare(folder, out, settings)
    assert report["run"]["photos"] == 0 and report["accepted"] == 4
    assert (shards(out), (out / "000001.tar").stat().st_mtime_ns) == before


def test_other_settings_or_photos_are_refused(folder, settings, out, tmp_path):
    with pytest.raises(BadInput, match=r"other settings: caption was a photo of a person, now a face"):
        prepare(folder, out, replace(settings, caption="a face"))
    with pytest.raises(BadInput, match=r"other settings: rules was .*'max_turn': 60.0.* now .*'max_turn': 50"):
        prepare(folder, out, replace(settings, rules=replace(RULES, max_turn=50.0)))
    save(tmp_path / "bob.png", astronaut())
    with pytest.raises(BadInput, match=r"1 are new or changed \(bob\.png\), 6 gone or changed \(anna/1\.png, anna/2\.jpg, bob"):
        prepare(tmp_path, out, settings)
    (tmp_path / "x.tar").write_bytes(b"")
    with pytest.raises(BadInput, match=r"holds tars but no plan\.json"):
        prepare(folder, tmp_path, settings)


def test_a_set_may_be_empty(settings, tmp_path):
    save(tmp_path / "photos" / "grey.png", np.full((64, 64, 3), 128, np.uint8))
    report = prepare(tmp_path / "photos", tmp_path / "out", settings)
    assert (report["accepted"], report["rejected"]) == (0, {"no face": 1})
    assert "0 of 1 photos (0%)" in (tmp_path / "out" / "report.md").read_text()
    assert read_json(tmp_path / "out" / "dataset.json")["shards"] == []
    assert len(TrainingSet(tmp_path / "out")) == 0
    assert prepare(tmp_path / "photos", tmp_path / "out", settings)["run"]["photos"] == 0


# The command


def test_the_command_prints_its_report(folder, networks, out, capsys):
    assert main(command(folder, out, networks, "--workers=0")) == 0
    printed = capsys.readouterr().out
    assert "4 of 6 photos" in printed
    assert networks.facenet in printed
    assert main(command(folder, out, networks, "--workers=0", "--max-turn=50")) == 1
    assert "begun with other settings" in capsys.readouterr().err


def test_files_are_found_in_a_models_folder(folder, networks, tmp_path, capsys):
    arguments = [str(folder), str(tmp_path / "set"), "--models", str(tmp_path)]
    assert main(arguments) == 1
    assert "facenet/20180402-114759-vggface2.pt" in capsys.readouterr().err
    for place in ("facenet/20180402-114759-vggface2.pt", "open_clip/open_clip_model.safetensors", "deca/deca_model.tar"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_bytes(b"")
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert f"facenet      {tmp_path / 'facenet'}" in printed.out
    assert "deca         none" in printed.out
    assert "is empty" in printed.err
    assert main([*arguments, "--deca", str(tmp_path / "deca/deca_model.tar"), "--clip", networks.clip]) == 1


def test_deca_with_the_built_in_head_is_refused(folder, networks):
    with pytest.raises(BadInput, match=r"do not apply to the head model.*--head generic_model.pkl"):
        SampleMaker(folder, replace(networks, deca="deca_model.tar"), RULES, "x")


def test_heads_are_estimated_by_deca_and_refined_by_landmarks(folder, networks, tmp_path, monkeypatch):
    """Random weights that estimate a plausible head: used directly without landmarks in the head model, else as a start."""
    weights = state_dict("deca_encoder.shapes.json", "E_flame.")
    weights["layers.2.weight"] *= 0.02
    weights["layers.2.bias"][split_code(torch.arange(CODE_SIZE).float()[None]).camera[0].long()] = torch.tensor([8.0, 0.0, 0.0])
    torch.save({"E_flame": weights}, tmp_path / "deca_model.tar")
    face = replace(builtin_head(), kind="flame2020")
    rules = replace(RULES, max_turn=180.0, max_error=10.0)
    photo = find_photos(folder)[0]
    heads, stages = {}, {}
    for model in (face, replace(face, table=None, full_landmarks=None)):
        monkeypatch.setattr("capface.training.samples.load_head", lambda path, model=model: model)
        reader = SampleMaker(folder, replace(networks, deca=str(tmp_path / "deca_model.tar"), parser=None), rules, "x")
        batch = reader.read([(0, photo)])
        about = json.loads(batch.samples[0].members["json"])
        heads[model.has_landmarks] = heads_from_json(json.dumps(about["head"]), "head").params
        stages[model.has_landmarks] = set(batch.stages)
        assert (about["fit_error"] is not None) == model.has_landmarks
        assert "parsing.png" not in batch.samples[0].members
    assert stages[True] - stages[False] == {"fit"}
    assert "light" not in stages[True]
    with monkeypatch.context() as patched:
        patched.setattr(PlainNetworks, "deca", lambda self, crops: torch.full((len(crops), CODE_SIZE), -1.0))
        (left_out,) = reader.read([(0, photo)]).rejected
    assert left_out["reason"] == "bad fit" and "scales above 0" in left_out["detail"]
    image = load_photo(folder / photo.source)
    portrait, found, _ = align(image, reader.analyzer.detect(image)[0])
    crop, transform = deca_face(portrait, found)
    with torch.inference_mode():
        code = split_code(load_deca(tmp_path / "deca_model.tar")(crop[None]))
    wanted = deca_heads(code, transform[None], 512, 512)
    for name in ("shape", "expression", "texture", "light", "rotation", "camera"):
        assert torch.allclose(getattr(heads[False], name), getattr(wanted, name), atol=1e-5)
    for name in ("shape", "texture", "light"):
        assert torch.allclose(getattr(heads[True], name), getattr(wanted, name), atol=1e-5)
    assert (heads[True].camera - wanted.camera).abs().max() > 0.01
