"""The benchmark with a real ComfyUI and the miniature: kept work, dead or hanging processes, refusals."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from capface.iphc.comfy_host import ComfyHost, HostSettings
from capface.iphc.ledger import FAILED, MADE, Ledger
from capface.iphc.manifest import SETS
from capface.iphc.run import Run, RunOptions, run_here
from capface.iphc.trial import try_methods
from capface.iphc.units import units_of
from capface.iphc.worker import Worker
from capface.tests.iphc.conftest import Bench, alive, hurry_clock, until
from capface.training.ray_session import family

WORKFLOW = SETS.parent / "workflows" / "miniature.json"


@pytest.fixture(scope="module")
def settings(comfyui):
    return HostSettings(str(comfyui), cpu=True)


class Shared:
    """A ComfyUI that workers cannot end."""

    def __init__(self, host):
        self.host = host

    def __getattr__(self, name):
        return getattr(self.host, name)

    def close(self):
        pass


@pytest.fixture(scope="module")
def shared(settings):
    """Opens the ComfyUI that most tests share."""
    host = ComfyHost(settings)
    yield lambda settings: Shared(host)
    host.close()


def host_of(worker):
    """A worker's running ComfyUI."""
    assert isinstance(worker.host, ComfyHost)
    return worker.host


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture
def small():
    """Two people, two prompts and two heads of the miniature in two steps."""
    return {
        "people": {"synthetic": 1_000_000, "count": 2}, "prompts": ["red shirt, beach", "blue shirt, forest"], "images": 1,
        "size": [64, 64], "sampling": {"steps": 2, "cfg": 2}, "methods": {"CapFace": {"workflow": str(WORKFLOW)}},
        "heads": {"left": {"yaw": -20, "size": 1.2}, "right": {"yaw": 20, "size": 1.2}}, "unit_images": 2,
    }  # fmt: skip


def test_images_survive_a_killed_and_a_hanging_comfyui_and_are_the_same_in_another_order(
    bench, small, settings, shared, monkeypatch
):
    """A stopped process hangs: it lives, its socket is open, and it says nothing more."""
    manifest = bench.manifest(**small)
    run = Run(manifest, bench.out, RunOptions(show=False))
    worker = Worker(manifest, settings, open_host=shared)
    units = list(units_of(manifest))
    first = worker.make(units[0])
    ran = [row.ran for row in first]
    assert "Encode Identity" in ran[0] and "Load Miniature" in ran[0]
    assert not {"Encode Identity", "Load Miniature", "Prompt"} & set(ran[1]) and "KSampler" in ran[1]
    again = worker.make(units[1])
    assert not any("Encode Identity" in row.ran for row in again), "the person is read once"
    assert all(row.status == MADE and row.worker == "0" and row.environment for row in (*first, *again))

    done, stopped = [], []
    hurry_clock(monkeypatch, lambda: stopped == [second.host])

    def disturb(row):
        done.append(row)
        host = host_of(second)
        if len(done) == 1:
            os.kill(host.process.pid, signal.SIGKILL)
        elif len(done) == 3:
            queue = host.client.queue

            def queue_and_stop(prompt, **options):
                number = queue(prompt, **options)
                os.kill(host.process.pid, signal.SIGSTOP)
                stopped.append(host)
                return number

            host.client.queue = queue_and_stop

    second = Worker(manifest, settings, name="1", on_image=disturb)
    try:
        reverse = {unit.name: second.make(unit) for unit in reversed(units)}
    finally:
        second.close()
    assert second.starts == 3
    assert [row.tries for row in done] == [1, 2, 1, 2, 1, 1, 1, 1]
    for unit, rows in ((units[0], first), (units[1], again)):
        assert [row.pixels for row in reverse[unit.name]] == [row.pixels for row in rows]
    assert len({row.pixels for rows in reverse.values() for row in rows}) == 8
    for unit in units:
        run.ledger.write(unit, run.marks[unit.name], reverse[unit.name])
    finished = run_here(Run(manifest, bench.out, RunOptions(show=False)), None)
    assert (finished.status, finished.made) == (0, 8), "nothing is left to do, so no ComfyUI is needed"


def test_a_refused_prompt_is_a_row_with_comfyuis_words(bench, small, settings, shared):
    heads = {"left": {"yaw": -20}, "too-far": {"yaw": 200}}
    manifest = bench.manifest(**small | {"heads": heads, "prompts": ["beach"], "people": {"synthetic": 1_000_000, "count": 1}})
    outcome = run_here(Run(manifest, bench.out, RunOptions(show=False)), settings, open_host=shared)
    assert (outcome.made, outcome.failed) == (1, 1)
    (unit,) = units_of(manifest)
    made, failed = Ledger(bench.out).rows(unit)
    assert (made.status, failed.status, failed.head) == (MADE, FAILED, "too-far")
    # Fit Head is not invalid, so ComfyUI takes the prompt and runs a part of it
    assert "ComfyUI refused the prompt" in failed.reason and "yaw" in failed.reason


def test_a_full_disk_stops_the_run_and_keeps_what_is_whole(bench, small, settings, shared, tiny_disk):
    manifest = bench.manifest(**small)
    outcome = run_here(Run(manifest, tiny_disk / "out", RunOptions(show=False)), settings, open_host=shared)
    assert outcome.status == 1 and "is full" in outcome.stopped, outcome
    whole = [unit for unit in units_of(manifest) if Ledger(tiny_disk / "out").path_of(unit).exists()]
    assert 0 < len(whole) < 4 and outcome.made == 2 * len(whole)


def test_a_unit_that_kills_comfyui_is_given_up(bench, small, settings, monkeypatch):
    def deadly(settings):
        host = ComfyHost(settings)
        queue = host.client.queue

        def queue_and_die(prompt, **options):
            number = queue(prompt, **options)
            os.kill(host.process.pid, signal.SIGKILL)
            return number

        monkeypatch.setattr(host.client, "queue", queue_and_die)
        return host

    monkeypatch.setattr("capface.iphc.worker.TRIES", 1)
    small["heads"]["up"] = {"pitch": 10}
    worker = Worker(bench.manifest(**small), settings, open_host=deadly)
    rows = worker.make(next(units_of(worker.manifest)))
    assert worker.starts == 2 and [row.status for row in rows] == [FAILED] * 3
    assert "ComfyUI ended by itself with status -9" in rows[1].reason and rows[2].reason.startswith("not tried: ")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed; there is none for Intel Macs")
def test_a_killed_worker_a_killed_driver_and_a_broken_file_cost_nothing(bench, small, settings, shared):
    manifest = bench.manifest(**small)
    command = [sys.executable, "-m", "capface.iphc.command", "run", str(bench.file), str(bench.out), "--cpu", "--workers", "2"]
    environment = dict(os.environ, PYTHONSAFEPATH="1")
    driver = subprocess.Popen([*command, "--comfyui", settings.comfyui], stdout=subprocess.DEVNULL, env=environment)

    def running(name):
        """Processes of the run by a word of their command."""
        found = set()
        for pid in family(driver.pid):
            with contextlib.suppress(OSError):
                if name in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
                    found.add(pid)
        return found

    def files():
        return sorted(bench.out.rglob("*.parquet"))

    try:
        until(lambda: len(running("--whitelist-custom-nodes")) == 2, "the start of two ComfyUIs")
        victim = min(running("ray::RemoteWorker"))
        (child,) = set(family(victim)) & running("--whitelist-custom-nodes")
        os.kill(victim, signal.SIGKILL)
        until(lambda: not alive(child), "the end of the killed worker's ComfyUI")
        until(files, "the first unit")
        processes = set(family(driver.pid))
    finally:
        driver.kill()
        driver.wait()
    until(lambda: not any(map(alive, processes)), "the end of the killed driver's processes")
    broken, part = files()[0], files()[0].with_name(f"capface-{'1' * 32}.part")
    before = Ledger(bench.out).rows(next(unit for unit in units_of(manifest) if Ledger(bench.out).path_of(unit) == broken))
    broken.write_bytes(broken.read_bytes()[:-100])
    part.write_bytes(b"PAR1")
    outcome = run_here(Run(manifest, bench.out, RunOptions(show=False)), settings, open_host=shared)
    assert (outcome.status, outcome.made) == (0, 8) and not part.exists()
    rows = [row for unit in units_of(manifest) for row in Ledger(bench.out).rows(unit)]
    assert len({(row.person, row.prompt, row.head) for row in rows}) == len(rows) == len({row.pixels for row in rows}) == 8
    again = [row.pixels for row in rows if row.unit == before[0].unit]
    assert again == [row.pixels for row in before], "the same pixels on one worker as on two"


def test_a_trial_names_what_only_comfyui_knows(bench, small, settings, shared):
    small["methods"] = {
        "CapFace": {"workflow": str(WORKFLOW)},
        "bad": {"workflow": str(WORKFLOW), "set": {"KSampler.sampler_name": "dreams"}},
        "foreign": {"workflow": "foreign.json"},
    }
    bench.write(
        "foreign.json", json.loads(WORKFLOW.read_text().replace("CapFaceRenderHead", "RenderSomething").replace("@size R", "R"))
    )
    manifest = bench.manifest(**small | {"heads": {"left": {"yaw": -20}, "far": {"yaw": 200}}})
    problems = try_methods(manifest, settings, shared)
    assert problems[0] == "heads.far.yaw: expected -90 to 90, got 200"
    assert problems[1].startswith("methods.bad: ComfyUI refused the prompt") and "dreams" in problems[1]
    assert problems[2:] == ["methods.foreign.workflow: ComfyUI has no node RenderSomething. Name its pack in 'packs'"]


@pytest.mark.parametrize("file", sorted((SETS.parent / "workflows").glob("*.json")), ids=lambda file: file.stem)
def test_a_shipped_workflow_fits_comfyuis_nodes(file, settings, shared):
    """Names and links of all inputs; nodes of packs that are not installed here are left out."""
    known = shared(settings).nodes()
    workflow = json.loads(file.read_text(encoding="utf-8"))
    foreign = {node["class_type"] for node in workflow.values()} - known.keys()
    assert not any(name.startswith("CapFace") for name in foreign)
    assert bool(foreign) == file.stem.startswith(("instantid", "ipadapter", "pulid"))
    for key, node in workflow.items():
        if node["class_type"] in foreign:
            continue
        parts = known[node["class_type"]]["input"]
        taken = {name: entry for part in parts.values() for name, entry in part.items()}
        assert parts.get("required", {}).keys() <= node["inputs"].keys() <= taken.keys(), f"{key} {node['class_type']}"
        for name, value in node["inputs"].items():
            if isinstance(value, list) and workflow[value[0]]["class_type"] not in foreign:
                source = known[workflow[value[0]]["class_type"]]["output"][value[1]]
                assert source in taken[name][0].split(","), f"{key} {node['class_type']}.{name} gets {source}"


def test_people_are_trained_before_their_images(bench, small, settings, shared):
    """A LoRA and a word of the miniature change the images, and a person is trained once."""
    pytest.importorskip("accelerate")
    person = {"base": "miniature", "steps": 2, "batch": 1, "learning_rate": 0.1, "average": 0}
    folder = WORKFLOW.parent
    plain = {"workflow": str(WORKFLOW), "set": {"Apply CapFace.tau": 0}}
    small["methods"] = {
        "head": plain | {"subject": ""},
        "word": plain | {"person": {"train": "word", **person}},
        "LoRA": plain | {"workflow": str(folder / "miniature_lora.json"), "person": {"train": "lora", **person}},
    }
    small |= {"prompts": ["{subject}, red shirt, beach"], "people": {"synthetic": 1_000_000, "count": 1}}
    manifest = bench.manifest(**small)
    worker = Worker(manifest, settings, open_host=shared)
    rows = {unit.method.name: worker.make(unit) for unit in units_of(manifest)}
    worker.close()
    assert [[row.status for row in made] for made in rows.values()] == [[MADE, MADE]] * 3, rows
    assert len({row.pixels for made in rows.values() for row in made}) == 6
    assert "The person's LoRA" in rows["LoRA"][0].ran and "The person's LoRA" not in rows["LoRA"][1].ran
