"""Writing: complete or absent, under names that are nobody else's, and errors that say what failed."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from capface.errors import BadInput, CannotWrite
from capface.files.atomic import check_name, publish, remove_partial_files, write_atomically, write_numbered

LARGE = {"x": torch.zeros(200_000)}
WRITERS = {
    "text": lambda part: part.write_text("x" * 800_000),
    "safetensors": lambda part: save_file(LARGE, part),
    "torch": lambda part: torch.save(LARGE, part),
}


def failing(number):
    def write(part):
        part.write_bytes(b"half")
        raise OSError(number, os.strerror(number))

    return write


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_named_and_nothing_is_left(tiny_disk, kind):
    (tiny_disk / "old.json").write_text("old")
    for write in (write_atomically, lambda path, w: write_numbered(lambda n: path, 1, w)):
        with pytest.raises(
            CannotWrite, match=r"old\.json was not written: the disk of .*tiny is full \([\d.]+ [kM]?B|bytes free\)"
        ):
            write(tiny_disk / "old.json", WRITERS[kind])
    assert [path.name for path in tiny_disk.iterdir()] == ["old.json"] and (tiny_disk / "old.json").read_text() == "old"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EROFS, "may not be written to"),
        (errno.EACCES, "may not be written to"),
        (errno.ENAMETOOLONG, "its path is too long"),
        (errno.EFBIG, "takes no file of this size"),
        (errno.EIO, r"was not written \(EIO\)"),
    ],
)
def test_each_failure_says_what_to_do(tmp_path, number, words):
    with pytest.raises(CannotWrite, match=words) as caught:
        write_atomically(tmp_path / "a.bin", failing(number))
    assert os.strerror(number) not in str(caught.value) and len(str(caught.value)) < 400
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user")
def test_a_closed_folder(tmp_path):
    """As a user who may not write there; root may write everywhere."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    for above in (folder, *folder.parents):
        if above != Path("/tmp") and above.is_relative_to("/tmp"):
            above.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(CannotWrite, match=r"closed may not be written to\. Change its permissions"):
            write_atomically(folder / "a.bin", WRITERS["text"])
    finally:
        os.seteuid(0)


def test_names_that_no_file_can_have(tmp_path):
    check_name("caps/ä" + "n" * 253)
    for name, words in {
        "n" * 256: "at most 255 bytes, got one of 256",
        "x/" + "\N{CJK UNIFIED IDEOGRAPH-5934}" * 86: "got one of 258",
        "a\0b": "null",
        "\ud800": "surrogate",
    }.items():
        with pytest.raises(BadInput, match=words) as caught:
            check_name(name)
        str(caught.value).encode()
    for name in ("n" * 256, "\ud800", "a\0b"):
        with pytest.raises(CannotWrite) as caught:
            write_atomically(tmp_path / name, WRITERS["text"])
        str(caught.value).encode()
    with pytest.raises(CannotWrite, match="there is no folder"):
        write_atomically(tmp_path / "nowhere" / "a.bin", WRITERS["text"])
    write_atomically(tmp_path / ("n" * 255), WRITERS["text"])  # the temporary name is not longer
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


def test_a_users_files_are_never_touched(tmp_path):
    mine = [tmp_path / name for name in ("a.bin.part", "a.part", "capface-1.part", "mine.00000000g.part", "12.tar.part")]
    for path in mine:
        path.write_bytes(b"mine")
    write_atomically(tmp_path / "a.bin", WRITERS["text"])
    write_atomically(tmp_path / "a", WRITERS["text"])
    with pytest.raises(CannotWrite, match="a file of this name exists"):
        write_atomically(tmp_path / "a.part", WRITERS["text"], replace=False)
    remove_partial_files(tmp_path)
    assert all(path.read_bytes() == b"mine" for path in mine)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
@pytest.mark.parametrize("kind", WRITERS)
def test_files_have_the_permissions_of_the_users_other_files(tmp_path, kind):
    (tmp_path / "usual").touch()
    write_atomically(tmp_path / "written", WRITERS[kind])
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_what_was_killed_in_mid_write_leaves_only_its_own_name(tmp_path):
    script = "import os, sys; from pathlib import Path; from capface.files.atomic import write_atomically\n"
    script += "write_atomically(Path(sys.argv[1]), lambda part: (part.write_text('half'), os._exit(9)))"
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.json")]).returncode == 9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("capface-") and left.suffix == ".part"
    remove_partial_files(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_numbers_are_given_once(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr("pathlib.Path.hardlink_to", _refuse)
    (tmp_path / "dangling_00003").symlink_to(tmp_path / "nothing")

    def save(text):
        return write_numbered(lambda n: tmp_path / f"dangling_{n:05}", 1, lambda part: part.write_text(str(text)))

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(save, range(100)))
    assert len(set(paths)) == 100 and {path.read_text() for path in paths} == {str(i) for i in range(100)}
    assert not (tmp_path / "nothing").exists() and len(list(tmp_path.iterdir())) == 101


def _refuse(self, target):
    raise OSError(errno.EPERM, "no links here")


def test_a_reserved_name_is_given_back_if_the_file_cannot_be_moved(tmp_path, monkeypatch):
    (tmp_path / "part").write_text("x")
    monkeypatch.setattr("pathlib.Path.hardlink_to", _refuse)
    monkeypatch.setattr("pathlib.Path.replace", _refuse)
    with pytest.raises(OSError, match="no links here"):
        publish(tmp_path / "part", tmp_path / "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_other_errors_of_the_writer_pass(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "a", lambda part: 1 // 0)
    with pytest.raises(BadInput):
        write_atomically(tmp_path / "a", lambda part: check_name("\0"))
    assert not list(tmp_path.iterdir())
