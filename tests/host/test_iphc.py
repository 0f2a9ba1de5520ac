"""The benchmark with a real ComfyUI and the miniature: kept work, the same images again, a killed process, a refused prompt."""

import json
import os
import signal
from dataclasses import replace

import pytest

from capface.iphc.comfy_host import ComfyHost, HostSettings
from capface.iphc.ledger import FAILED, MADE, Ledger
from capface.iphc.manifest import SETS
from capface.iphc.run import Run, RunOptions, run_here
from capface.iphc.trial import try_methods
from capface.iphc.units import units_of
from capface.iphc.worker import Worker
from capface.tests.iphc.conftest import Bench

WORKFLOW = SETS.parent / "workflows" / "miniature.json"


@pytest.fixture(scope="module")
def settings(comfyui):
    return HostSettings(str(comfyui), cpu=True)


def host_of(worker):
    """A worker's running ComfyUI."""
    assert isinstance(worker.host, ComfyHost)
    return worker.host


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture
def small():
    """Two people, two prompts and two heads of the miniature in four steps."""
    return {
        "people": {"synthetic": 1_000_000, "count": 2}, "prompts": ["red shirt, beach", "blue shirt, forest"], "images": 1,
        "size": [64, 64], "sampling": {"steps": 4, "cfg": 2}, "methods": {"CapFace": {"workflow": str(WORKFLOW)}},
        "heads": {"left": {"yaw": -20, "size": 1.2}, "right": {"yaw": 20, "size": 1.2}}, "unit_images": 2,
    }  # fmt: skip


def test_images_survive_a_killed_comfyui_and_are_the_same_in_another_order(bench, small, settings):
    manifest = bench.manifest(**small)
    run = Run(manifest, bench.out, RunOptions(show=False))
    worker = Worker(manifest, settings)
    try:
        units = list(units_of(manifest))
        first = worker.make(units[0])
        ran = [row.ran for row in first]
        assert "Encode Identity" in ran[0] and "Load Miniature" in ran[0]
        assert not {"Encode Identity", "Load Miniature", "Prompt"} & set(ran[1]) and "KSampler" in ran[1]
        again = worker.make(units[1])
        assert not any("Encode Identity" in row.ran for row in again), "the person is read once"
        assert all(row.status == MADE and row.worker == "0" and row.environment for row in (*first, *again))
    finally:
        worker.close()

    killed = []

    def kill(row):
        if not killed:
            os.kill(host_of(second).process.pid, signal.SIGKILL)
            killed.append(row)

    second = Worker(manifest, settings, name="1", on_image=kill)
    try:
        reverse = {unit.name: second.make(unit) for unit in reversed(units)}
    finally:
        second.close()
    assert second.starts == 2 and max(row.tries for rows in reverse.values() for row in rows) == 2
    for unit, rows in ((units[0], first), (units[1], again)):
        assert [row.pixels for row in reverse[unit.name]] == [row.pixels for row in rows]
    assert len({row.pixels for rows in reverse.values() for row in rows}) == 8
    for unit in units:
        run.ledger.write(unit, run.marks[unit.name], reverse[unit.name])
    finished = run_here(Run(manifest, bench.out, RunOptions(show=False)), None)
    assert (finished.status, finished.made) == (0, 8), "nothing is left to do, so no ComfyUI is needed"


def test_a_refused_prompt_is_a_row_with_comfyuis_words(bench, small, settings):
    heads = {"left": {"yaw": -20}, "too-far": {"yaw": 200}}
    manifest = bench.manifest(**small | {"heads": heads, "prompts": ["beach"], "people": {"synthetic": 1_000_000, "count": 1}})
    outcome = run_here(Run(manifest, bench.out, RunOptions(show=False)), settings)
    assert (outcome.made, outcome.failed) == (1, 1)
    (unit,) = units_of(manifest)
    made, failed = Ledger(bench.out).rows(unit)
    assert (made.status, failed.status, failed.head) == (MADE, FAILED, "too-far")
    # Fit Head is not invalid, so ComfyUI takes the prompt and runs a part of it
    assert "ComfyUI refused the prompt" in failed.reason and "yaw" in failed.reason


def test_a_stopped_comfyui_counts_as_hanging(bench, small, settings):
    """SIGSTOP: the process lives, its socket is open, and it says nothing more."""
    manifest = bench.manifest(**small | {"people": {"synthetic": 1_000_000, "count": 1}, "prompts": ["beach"]})

    def stop(row):
        if worker.starts == 1:
            client, queue = host_of(worker).client, host_of(worker).client.queue

            def queue_and_stop(prompt, **options):
                number = queue(prompt, **options)
                os.kill(host_of(worker).process.pid, signal.SIGSTOP)
                return number

            client.queue = queue_and_stop

    worker = Worker(manifest, replace(settings, silence=30), on_image=stop)
    try:
        rows = worker.make(next(units_of(manifest)))
    finally:
        worker.close()
    assert [(row.status, row.tries) for row in rows] == [(MADE, 1), (MADE, 2)]
    assert worker.starts == 2


def test_a_trial_names_what_only_comfyui_knows(bench, small, settings):
    small["methods"] = {
        "CapFace": {"workflow": str(WORKFLOW)},
        "bad": {"workflow": str(WORKFLOW), "set": {"KSampler.sampler_name": "dreams"}},
        "foreign": {"workflow": "foreign.json"},
    }
    bench.write(
        "foreign.json", json.loads(WORKFLOW.read_text().replace("CapFaceRenderHead", "RenderSomething").replace("@size R", "R"))
    )
    manifest = bench.manifest(**small | {"heads": {"left": {"yaw": -20}, "far": {"yaw": 200}}})
    problems = try_methods(manifest, settings)
    assert problems[0] == "heads.far.yaw: expected -90 to 90, got 200"
    assert problems[1].startswith("methods.bad: ComfyUI refused the prompt") and "dreams" in problems[1]
    assert problems[2:] == ["methods.foreign.workflow: ComfyUI has no node RenderSomething. Name its pack in 'packs'"]
