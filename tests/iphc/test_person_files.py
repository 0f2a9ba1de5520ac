"""Files that are trained for each person: what a manifest may ask for, when they are made, and what prompts and nodes get."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from capface.iphc.comfy_host import ComfyHost
from capface.iphc.ledger import FAILED, MADE
from capface.iphc.manifest import SETS, BadManifest, read_manifest
from capface.iphc.people import synthetic_photo
from capface.iphc.person_files import MODULE, Trainer
from capface.iphc.units import fingerprint, units_of, workflow_of
from capface.iphc.worker import Worker
from capface.tests.iphc.conftest import workflow

LORA = {"class_type": "LoraLoader", "inputs": {"lora_name": "x"}, "_meta": {"title": "@lora"}}
BASE = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x"}, "_meta": {"title": "@checkpoint"}}


@pytest.fixture
def persons(bench, tmp_path):
    """A bench whose methods train: a LoRA, a word and whole weights."""
    bench.write("lora.json", {**workflow(), "7": LORA, "8": BASE})
    bench.write("base.json", {**workflow(), "8": BASE})
    (tmp_path / "models" / "checkpoints").mkdir(parents=True)
    (tmp_path / "models" / "checkpoints" / "toon.safetensors").write_bytes(b"weights")
    bench.content["sampling"] = {"steps": 3, "checkpoint": "toon.safetensors"}
    bench.content["methods"] = {
        "LoRA": {"workflow": "lora.json", "subject": "sks person", "person": {"train": "lora", "steps": 7, "text": True}},
        "word": {"workflow": "base.json", "person": {"train": "word", "caption": "a photo of {}"}},
        "whole": {"workflow": "base.json", "person": {"train": "whole"}},
    }
    return bench


@pytest.fixture
def worker(persons, fake, tmp_path):
    """A worker whose training is a stand-in."""
    worker = Worker(persons.manifest(), replace(fake, models=(str(tmp_path / "models"),)))
    worker.trainer.module = "capface.tests.iphc.fake_training"
    yield worker
    worker.close()


def trainings(tmp_path):
    log = tmp_path / "fake" / "trainings.txt"
    return log.read_text().splitlines() if log.exists() else []


def units_by_method(manifest):
    return {unit.method.name: unit for unit in units_of(manifest) if (unit.person.name, unit.chunk) == ("ann", 0)}


def test_each_person_is_trained_once_and_the_host_has_the_file(worker, tmp_path):
    units = [unit for unit in units_of(worker.manifest) if unit.method.name == "LoRA"]
    assert [(u.person.name, u.chunk) for u in units] == [("ann", 0), ("ann", 1), ("bob", 0), ("bob", 1)]
    places = []
    for unit in units:
        assert all(row.status == MADE for row in worker.make(unit))
        assert isinstance(worker.host, ComfyHost)
        places.append(sorted(p.name for p in (worker.host.process.base / "models" / "loras").iterdir()))
    assert places == [["LoRA-ann.safetensors"]] * 2 + [["LoRA-bob.safetensors"]] * 2, "the last person's file is removed"
    lines = trainings(tmp_path)
    assert [line.split()[0] for line in lines] == ["LoRA-ann", "LoRA-bob"]
    base = tmp_path / "models" / "checkpoints" / "toon.safetensors"
    assert f"--base {base} --method lora --subject sks person --steps 7 --text --seed " in lines[0]
    assert lines[0].endswith(" --cpu") and lines[0].split("--seed")[1] != lines[1].split("--seed")[1]


def test_a_restarted_comfyui_gets_the_file_without_another_training(worker, tmp_path):
    unit = units_by_method(worker.manifest)["LoRA"]
    worker.make(unit)
    first = worker.host.process.base
    worker.host.process._process.kill()
    rows = worker.make(unit)
    assert [row.status for row in rows] == [MADE] * 4 and worker.starts == 2
    assert worker.host.process.base != first
    assert (worker.host.process.base / "models" / "loras" / "LoRA-ann.safetensors").is_file()
    assert len(trainings(tmp_path)) == 1


def test_what_is_trained_is_named_in_nodes_and_prompts(worker):
    units = units_by_method(worker.manifest)
    graphs = {name: workflow_of(worker.manifest, unit, unit.jobs[0], "p.png") for name, unit in units.items()}
    assert graphs["LoRA"]["7"]["inputs"]["lora_name"] == "LoRA-ann.safetensors"
    assert graphs["LoRA"]["8"]["inputs"]["ckpt_name"] == graphs["word"]["8"]["inputs"]["ckpt_name"] == "toon.safetensors"
    assert graphs["whole"]["8"]["inputs"]["ckpt_name"] == "whole-ann.safetensors"
    texts = {name: graph["2"]["inputs"]["text"] for name, graph in graphs.items()}
    assert texts == {
        "LoRA": "a sks person at sea", "word": "a embedding:word-ann at sea", "whole": "a person at sea"
    }  # fmt: skip


def test_a_training_that_fails_is_tried_once_and_its_words_are_the_reason(persons, fake, tmp_path):
    persons.content["methods"]["LoRA"]["subject"] = "refused"
    worker = Worker(persons.manifest(), replace(fake, models=(str(tmp_path / "models"),)))
    worker.trainer.module = "capface.tests.iphc.fake_training"
    rows = worker.make(units_by_method(worker.manifest)["LoRA"])
    worker.close()
    assert {(row.status, row.reason) for row in rows} == {(FAILED, "The training of this person failed: refused on demand")}
    assert len(trainings(tmp_path)) == 1 and worker.starts == 0


def test_a_missing_base_is_named(persons, fake, tmp_path):
    worker = Worker(persons.manifest(), fake)
    rows = worker.make(units_by_method(worker.manifest)["LoRA"])
    worker.close()
    assert all("There is no checkpoint toon.safetensors to train on in " in row.reason for row in rows)


def test_other_trainings_give_other_fingerprints(persons):
    manifest = persons.manifest()
    before = {name: fingerprint(manifest, unit) for name, unit in units_by_method(manifest).items()}
    persons.content["methods"]["LoRA"]["person"]["steps"] = 8
    persons.content["methods"]["word"]["person"]["vectors"] = 2
    manifest = persons.manifest()
    after = {name: fingerprint(manifest, unit) for name, unit in units_by_method(manifest).items()}
    assert {name for name in before if before[name] != after[name]} == {"LoRA", "word"}


def test_mistakes_are_found_before_the_start(persons):
    methods = persons.content["methods"]
    methods["LoRA"]["person"] = {"train": "hypernet", "steps": "7", "speed": 1, "text": 1, "base": "other"}
    methods["word"]["subject"] = "a woman"
    methods["no mark"] = {"workflow": "base.json", "person": {"train": "lora"}}
    methods["no training"] = {"workflow": "lora.json"}
    persons.content["prompts"] = ["a beach", "a {subject}"]
    with pytest.raises(BadManifest) as error:
        persons.manifest()
    text = str(error.value)
    for part in (
        "methods.LoRA.person.train: expected one of lora, word, whole, got 'hypernet'",
        "methods.LoRA.person.steps: expected a value as `tasks.py person` takes for --steps, got '7'",
        "methods.LoRA.person.speed: unknown key",
        "methods.LoRA.person.text: expected a value",
        "methods.LoRA.person.base: expected 'miniature'",
        "methods.word.subject: expected {word} in it",
        "methods.word.person: a prompt has no {subject}",
        "methods.no mark.workflow: no node has the mark @lora",
        "methods.no training.workflow: a node has the mark @lora",
    ):
        assert part in text, part


def test_a_picture_of_a_synthetic_person_is_that_of_the_node(tmp_path):
    node = json.loads((SETS.parent / "workflows" / "miniature.json").read_text())["2"]["inputs"]
    path = synthetic_photo(1_000_000, node | {"size": 64}, tmp_path)
    with Image.open(path) as picture:
        assert picture.size == (64, 64) and picture.mode == "RGB"


def test_the_options_are_those_of_the_training(monkeypatch):
    """Everything that shipped manifests train is accepted by the real command."""
    from capface.training.persons.train import parse

    assert MODULE == "capface.training.persons.train" and Trainer().module == MODULE
    manifest = read_manifest(SETS / "quick_persons.json")
    trained = [method.person for method in manifest.methods if method.person is not None]
    assert [person.train for person in trained] == ["word", "lora", "whole"]
    for person in trained:
        options = parse(["a.png", "out", "--base", person.base, *person.arguments()])
        assert options.method == person.train and options.caption == ["{}, blue shirt, white studio, lit from front"]
        assert {name: getattr(options, name) for name, _ in person.options if name != "caption"} == {
            name: value for name, value in person.options if name != "caption"
        }
    assert Path(SETS / "paper.json").read_text().count('"train"') == 3
