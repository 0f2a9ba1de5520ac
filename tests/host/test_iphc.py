"""The benchmark with a real ComfyUI and the miniature: kept work, dead or hanging processes, refusals."""

import json
import os
import signal

import pytest

from capface.iphc.comfy_host import ComfyHost, HostSettings
from capface.iphc.ledger import FAILED, MADE, Ledger
from capface.iphc.manifest import SETS
from capface.iphc.run import Run, RunOptions, run_here
from capface.iphc.trial import try_methods
from capface.iphc.units import units_of
from capface.iphc.worker import Worker
from capface.tests.iphc.conftest import Bench, move_clock

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
    move_clock(monkeypatch, lambda: len(stopped))

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
                stopped.append(number)
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
