"""A training set made by workers of Ray: the same shards, also when a worker is killed."""

import importlib.util
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("facenet_pytorch", reason="MTCNN, which finds the faces, comes with facenet-pytorch")
pytest.importorskip("insightface", reason="insightface brings the picture of six people")
pytest.importorskip("open_clip", reason="open_clip_torch is not installed")

from capface.errors import BadInput, MissingFile
from capface.iphc.engine import Engine, family
from capface.tests.training import photo_sets
from capface.training import workers
from capface.training.photo_files import Photo
from capface.training.prepare import prepare
from capface.training.shards import digest

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed; there is none for Intel Macs"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def ray():
    with Engine(2, "", [], True) as engine:
        yield engine.ray


@pytest.fixture
def cluster(ray, monkeypatch):
    """A session of this machine in place of a cluster's."""

    @contextmanager
    def connected(address):
        assert address == "10.0.0.1:6379"
        yield ray

    monkeypatch.setattr(workers, "_connected", connected)
    return "10.0.0.1:6379"


def shards(out):
    return {path.name: digest(path) for path in sorted(out.glob("*.tar"))}


def test_a_cluster_makes_the_same_shards_although_a_worker_is_killed(cluster, tmp_path_factory, monkeypatch):
    base = tmp_path_factory.getbasetemp()
    expected, out = shards(photo_sets.prepared(base)), tmp_path_factory.mktemp("cluster")
    read, killed = workers.read_on_cluster, []

    @contextmanager
    def read_and_kill(*arguments):
        with read(*arguments) as batches:

            def disturbed(tasks):
                for batch in batches(tasks):
                    if not killed and sys.platform == "linux":
                        names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family(os.getpid())}
                        killed.extend(pid for pid, name in names.items() if b"_Reader" in name)
                        os.kill(killed[0], signal.SIGKILL)
                    yield batch

            yield disturbed

    monkeypatch.setattr("capface.training.prepare.read_on_cluster", read_and_kill)
    prepare(photo_sets.photos(base), out, photo_sets.settings(base), workers=2, address=cluster)
    assert len(expected) > 1 and shards(out) == expected
    assert killed or sys.platform != "linux"


@pytest.mark.parametrize(("kind", "error", "text"), [
    ("dies", BadInput, r"2 workers ended while they read [ab]\.png"), ("fails", MissingFile, "deca_model.tar is missing"),
])  # fmt: skip
def test_what_no_worker_can_read_ends_the_run_with_its_reason(cluster, monkeypatch, kind, error, text):
    class Reader:
        def __init__(self, settings):
            (self.kind,) = settings

        def read(self, task):
            if self.kind == "dies":
                os._exit(1)
            raise MissingFile("deca_model.tar is missing")

    monkeypatch.setattr(workers, "_Reader", Reader)
    photos = [Photo(name, name, "", 1, 1) for name in ("a.png", "b.png")]
    with workers.read_on_cluster(cluster, 2, (kind,)) as read, pytest.raises(error, match=text):
        list(read([[(i, photo)] for i, photo in enumerate(photos)]))
