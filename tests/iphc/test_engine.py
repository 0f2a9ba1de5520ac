"""Several workers on Ray with a fake ComfyUI: the same images as one worker makes, and what happens when workers die."""

import importlib.util
import json
import os
import socket
from collections import Counter
from dataclasses import replace

import pytest

from capface.errors import BadInput
from capface.iphc.comfy_host import HostSettings
from capface.iphc.engine import Engine, run_on_ray
from capface.iphc.ledger import FAILED, MADE
from capface.iphc.run import Run, run_here
from capface.iphc.units import units_of
from capface.tests.iphc.conftest import FAKE, SECONDS
from capface.tests.iphc.test_run import QUIET, rows_of
from capface.training.ray_session import open_ports

pytestmark = [
    # the engine imports it, after it has set what keeps its ports on loopback
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed; there is none for Intel Macs"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The folder of the fake ComfyUI. Ray's workers see the environment that Ray was started in."""
    folder = tmp_path_factory.mktemp("fake")
    before = os.environ.get("FAKE_COMFY")
    os.environ["FAKE_COMFY"] = str(folder)
    yield folder
    if before is None:
        del os.environ["FAKE_COMFY"]


@pytest.fixture(scope="module")
def engine(shared):
    with Engine(2, "", [], True) as engine:
        yield engine


@pytest.fixture
def settings(shared):
    for path in shared.iterdir():
        path.unlink()
    return HostSettings(str(FAKE), cpu=True, start_seconds=SECONDS, silence=SECONDS)


def log(shared, word):
    return [line for line in (shared / "log.txt").read_text().splitlines() if line.startswith(word)]


def test_two_workers_make_what_one_makes_and_survive_a_killed_comfyui(bench, engine, settings, shared):
    manifest = bench.manifest(prompts=["a [die once]", "b", "c", "d", "e [refuse]"])
    outcome = run_on_ray(Run(manifest, bench.out, QUIET), settings, engine)
    assert (outcome.status, outcome.made, outcome.failed) == (3, 32, 8), outcome.stopped
    rows = rows_of(manifest, bench.out)
    assert {row.worker for row in rows} == {"0", "1"}
    assert len(log(shared, "start")) == 3 and len(log(shared, "image")) == 32, "each image is made once"
    assert run_here(Run(manifest, bench.folder / "one", QUIET), settings).made == 32
    alone = rows_of(manifest, bench.folder / "one")
    assert [(row.seed, row.pixels, row.status, row.reason) for row in rows] == [
        (row.seed, row.pixels, row.status, row.reason) for row in alone
    ]
    progress = json.loads((bench.out / "progress.json").read_text())
    assert (progress["state"], progress["done"]) == ("finished", 40)
    resumed = run_on_ray(Run(manifest, bench.out, QUIET), settings, engine)
    assert (resumed.made, len(log(shared, "start"))) == (32, 4), "nothing is left to do"


def test_a_killed_worker_is_replaced_and_its_unit_made_once(bench, engine, settings, shared):
    manifest = bench.manifest(prompts=["a", "b [orphan once]", "c"])
    outcome = run_on_ray(Run(manifest, bench.out, QUIET), settings, engine)
    assert (outcome.status, outcome.made) == (0, 24), outcome.stopped
    assert len(log(shared, "orphan")) == 1
    rows = rows_of(manifest, bench.out)
    assert Counter((row.person, row.prompt, row.head, row.image) for row in rows).most_common()[0][1] == 1
    assert all(row.status == MADE for row in rows)


def test_a_unit_that_kills_its_workers_ends_as_failed_rows(bench, engine, settings, shared):
    manifest = bench.manifest(prompts=["a [orphan]", "b", "c"], people={"photos": "photos", "count": 1})
    outcome = run_on_ray(Run(manifest, bench.out, QUIET), settings, engine)
    assert (outcome.status, outcome.made, outcome.failed) == (3, 8, 4), outcome.stopped
    assert {row.reason for row in outcome.failures} == {"2 workers died while they made this unit"}
    assert len(log(shared, "orphan")) == 2
    assert all((row.status == FAILED) == (row.prompt == 0) for row in rows_of(manifest, bench.out))


def test_workers_whose_comfyui_does_not_start_end_the_run_with_its_log(bench, engine, settings, shared):
    (shared / "no-start").touch()
    manifest = bench.manifest()
    outcome = run_on_ray(Run(manifest, bench.out, QUIET), settings, engine)
    assert outcome.status == 1
    assert "No worker is left. Worker" in outcome.stopped and "no start on demand" in outcome.stopped
    assert not list(bench.out.rglob("*.parquet"))
    (shared / "no-start").unlink()
    assert run_on_ray(Run(manifest, bench.out, QUIET), settings, engine).made == 16


def test_images_of_another_device_are_not_mixed_in(bench, engine, settings):
    manifest = bench.manifest()
    run = Run(manifest, bench.out, QUIET)
    bench.out.mkdir()
    run.note_environment({"device": ["another"], "ComfyUI": "0"})
    outcome = run_on_ray(run, settings, engine)
    assert outcome.status == 1 and "device: ['another'] before, ['fake'] now" in outcome.stopped
    mixed = Run(manifest, bench.out, replace(QUIET, mixed=True))
    assert run_on_ray(mixed, settings, engine).made == 16


def test_ray_listens_on_loopback_only(engine):
    assert open_ports(os.getpid()) == set()
    with socket.socket() as everywhere:
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        assert open_ports(os.getpid()) == {f"00000000:{everywhere.getsockname()[1]}"}


def test_a_session_that_listens_elsewhere_is_refused(engine, monkeypatch):
    import capface.training.ray_session as module

    class Session:
        def init(self, **_):
            opened.append(True)

        def shutdown(self):
            opened.append(False)

    opened = []
    monkeypatch.setattr(module, "import_ray", Session)
    monkeypatch.setattr(module, "open_ports", lambda pid: {"00000000:6379"})
    with pytest.raises(BadInput, match="Ray listens on 00000000:6379, which other machines can reach"), Engine(2, "", [], True):
        pass
    assert opened == [True, False]


def test_units_are_pickled_as_they_are(bench):
    import pickle

    manifest = bench.manifest()
    assert pickle.loads(pickle.dumps(list(units_of(manifest)))) == list(units_of(manifest))
