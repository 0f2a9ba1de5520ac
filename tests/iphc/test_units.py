"""Seeds, fingerprints, the queue and the files of units."""

import os
import subprocess
import sys
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from PIL import Image

from capface.errors import BadFile, CannotWrite
from capface.iphc.ledger import FAILED, MADE, Ledger, Row, pixel_hash
from capface.iphc.units import fingerprint, seed_of, units_of, workflow_of
from capface.iphc.work_queue import MOST_DEATHS, WorkQueue


def test_a_seed_is_what_the_documentation_says():
    assert seed_of(0, "ann", "a {subject}", "left", 2) == 49778396025100
    assert seed_of(0, "ann", "a {subject}", "left", 2) < 2**48


def test_seeds_differ_between_images_but_not_between_methods(bench):
    methods = {name: {"workflow": "workflow.json"} for name in ("one", "two")}
    units = list(units_of(bench.manifest(methods=methods)))
    of = {name: [job.seed for unit in units if unit.method.name == name for job in unit.jobs] for name in methods}
    assert of["one"] == of["two"]
    assert len(set(of["one"])) == 16
    swapped = list(units_of(bench.manifest(methods=dict(reversed(methods.items())), unit_images=99)))
    assert [job.seed for unit in swapped if unit.method.name == "two" for job in unit.jobs] == of["two"]


def test_a_workflow_gets_everything_that_an_image_needs(bench):
    manifest = bench.manifest(methods={"one": {"workflow": "workflow.json", "subject": "sks woman"}})
    unit = next(units_of(manifest))
    graph = workflow_of(manifest, unit, unit.jobs[-1], "ann.png")
    assert graph["1"]["inputs"]["image"] == "ann.png"
    assert graph["2"]["inputs"]["text"] == "a sks woman at sea"
    assert graph["3"]["inputs"] | {"yaw": 20, "pose_mode": "absolute"} == graph["3"]["inputs"]
    assert graph["4"]["inputs"] == {"seed": unit.jobs[-1].seed, "steps": 3, "cfg": 1.0}


def test_a_fingerprint_changes_with_everything_that_decides_an_image(bench):
    def marks(**changes):
        before = dict(bench.content)
        manifest = bench.manifest(**changes)
        bench.content = before
        return [fingerprint(manifest, unit) for unit in units_of(manifest)]

    first = marks()
    assert len(set(first)) == len(first) == 4
    assert marks() == first
    assert marks(name="other", metrics=[]) == first
    for change in (
        {"seed": 6}, {"sampling": {"steps": 4}}, {"heads": {"left": {"yaw": -21}, "right": {"yaw": 20}}}, {"subject": "man"},
        {"methods": {"one": {"workflow": "workflow.json", "set": {"Apply.tau": 1}}}},
    ):  # fmt: skip
        assert not set(marks(**change)) & set(first), change
    assert marks(prompts=["a {subject} at sea", "another"])[::2] == first[::2]  # the first prompt's units
    Image.new("RGB", (8, 8), "red").save(bench.folder / "photos" / "ann.png")
    assert [a == b for a, b in zip(marks(), first, strict=True)] == [False, False, True, True]


def row_of(unit, job, status=MADE, **more):
    return Row(unit.name, unit.method.name, unit.person.name, job.prompt, job.head, job.image, job.seed, status, **more)


@pytest.fixture
def unit(bench):
    return next(units_of(bench.manifest()))


@pytest.fixture
def rows(unit):
    return [row_of(unit, job, file=b"png", pixels="f00", ran=["KSampler"], seconds=1.5) for job in unit.jobs]


def test_a_unit_comes_back_as_it_was_written(tmp_path, unit, rows):
    ledger = Ledger(tmp_path)
    rows[1] = row_of(unit, unit.jobs[1], FAILED, reason="refused", tries=3)
    assert ledger.state(unit, "mark") == "absent"
    ledger.write(unit, "mark", rows)
    assert ledger.state(unit, "mark") == "whole"
    assert ledger.state(unit, "another mark") == "other"
    assert ledger.rows(unit) == rows
    assert [row.file for row in ledger.rows(unit, files=False)] == [None] * 4
    assert pq.read_table(ledger.path_of(unit), columns=["seed"])["seed"].to_pylist() == [job.seed for job in unit.jobs]


def test_rows_that_do_not_belong_to_the_unit_are_not_written(tmp_path, unit, rows):
    with pytest.raises(AssertionError):
        Ledger(tmp_path).write(unit, "mark", rows[:-1])
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("keep", [0, 100, -9, -1])
def test_a_half_written_file_is_not_whole(tmp_path, unit, rows, keep):
    ledger = Ledger(tmp_path)
    path = ledger.write(unit, "mark", rows)
    path.write_bytes(path.read_bytes()[:keep])
    assert ledger.state(unit, "mark") == "broken"
    with pytest.raises(BadFile, match="Run the same command again"):
        ledger.rows(unit)


def test_a_file_with_too_few_rows_is_not_whole(tmp_path, unit, rows):
    ledger = Ledger(tmp_path)
    path = ledger.write(unit, "mark", rows)
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 2), path)
    assert pq.read_schema(path).metadata[b"fingerprint"] == b"mark"
    assert ledger.state(unit, "mark") == "broken"


def test_unfinished_files_of_killed_processes_are_swept(tmp_path, unit, rows):
    ledger = Ledger(tmp_path)
    path = ledger.write(unit, "mark", rows)
    (part := path.with_name(f"capface-{'0' * 32}.part")).write_bytes(b"half")
    (own := path.with_name("mine.part")).write_bytes(b"a user's")
    ledger.sweep()
    assert (part.exists(), own.exists(), path.exists()) == (False, True, True)


def test_a_full_disk_leaves_no_file(tiny_disk, unit, rows):
    ledger = Ledger(tiny_disk)
    rows = [replace(row, file=os.urandom(40_000)) for row in rows]
    with pytest.raises(CannotWrite, match=r"the disk .* is full"):
        ledger.write(unit, "mark", rows)
    assert ledger.state(unit, "mark") == "absent"
    assert [path.name for path in tiny_disk.rglob("*.p*")] == []


def test_the_pixel_hash_does_not_depend_on_the_files_compression(tmp_path):
    image = Image.effect_noise((16, 16), 50)
    for level in (0, 9):
        image.save(tmp_path / f"{level}.png", compress_level=level)
    zero, nine = ((tmp_path / f"{level}.png").read_bytes() for level in (0, 9))
    assert zero != nine and pixel_hash(zero) == pixel_hash(nine)
    image.resize((8, 32)).save(tmp_path / "other.png")
    assert pixel_hash((tmp_path / "other.png").read_bytes()) != pixel_hash(nine)


@pytest.fixture
def many(bench):
    """Units of two methods, two people and two chunks."""
    methods = {name: {"workflow": "workflow.json"} for name in ("one", "two")}
    return list(units_of(bench.manifest(methods=methods)))


def test_one_worker_does_everything_in_the_manifests_order(many):
    queue, done, unit = WorkQueue(many), [], None
    while (unit := queue.take(unit)) is not None:
        done.append(unit)
    assert done == many and len(queue) == 0


def taken(queue, last=None, busy=()):
    """Take a unit from a queue that has one."""
    unit = queue.take(last, busy)
    assert unit is not None
    return unit


def test_workers_keep_their_method_and_person_and_avoid_each_others(many):
    queue = WorkQueue(many)
    first = taken(queue)
    second = taken(queue, None, [first])
    assert (first.method.name, first.person.name) == ("one", "ann")
    assert (second.method.name, second.person.name) == ("one", "bob")
    assert taken(queue, second, [first]).person.name == "bob"
    third = taken(queue, second, [first])
    assert third.name == "one/ann/001", "the checkpoint costs more to load than the person"
    fourth = taken(queue, third, [first])
    assert (fourth.method.name, fourth.person.name) == ("two", "ann")
    assert taken(queue, first, [fourth]).person.name == "bob", "nobody else has loaded bob with the new method"


def test_a_unit_that_kills_workers_is_given_up(many):
    queue = WorkQueue(many)
    unit = taken(queue)
    for _ in range(MOST_DEATHS - 1):
        assert queue.died(unit)
        assert taken(queue) is unit
    assert not queue.died(unit)
    assert unit not in [taken(queue) for _ in range(len(queue))]


def test_pyarrow_is_named_when_it_is_missing(tmp_path):
    code = "import sys; sys.modules['pyarrow'] = None\nfrom capface.iphc.ledger import parquet\nparquet()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "MissingPackage" in run.stderr and "pip install -r iphc/requirements.txt" in run.stderr


def test_a_worker_imports_no_torch():
    """Each of many workers would need 250 MB more, and five seconds to start."""
    code = "import sys, capface.iphc.engine, capface.iphc.command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
