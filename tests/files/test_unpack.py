"""Archives that are what they say, and archives that are not."""

import stat
import struct
import zipfile

import pytest

from capface.errors import BadFile
from capface.files.downloads.unpack import unpack
from capface.tests.files.shop import noise


@pytest.fixture
def make(tmp_path):
    """Makes an archive of `(name, data)`; a ZipInfo may stand for a name."""

    def make(*entries, method=zipfile.ZIP_STORED):
        with zipfile.ZipFile(tmp_path / "pack.zip", "w", method) as archive:
            for name, data in entries:
                archive.writestr(name, data)
        return tmp_path / "pack.zip"

    return make


def everything(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_files_of_the_pattern_are_unpacked_flat(make, tmp_path):
    archive = make(("pack/a.onnx", b"aa"), ("b.onnx", b"bb"), ("readme.txt", b"r"), ("pack/", b""))
    files = unpack(archive, tmp_path / "models" / "pack", "*.onnx")
    assert sorted(path.name for path in files) == ["a.onnx", "b.onnx"]
    assert (tmp_path / "models" / "pack" / "a.onnx").read_bytes() == b"aa"
    assert everything(tmp_path / "models") == {"pack/a.onnx", "pack/b.onnx"}


def test_what_is_there_is_kept(make, tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "a.onnx").write_bytes(b"mine")
    assert [path.name for path in unpack(make(("a.onnx", b"aa"), ("b.onnx", b"bb")), tmp_path / "pack", "*.onnx")] == ["b.onnx"]
    assert (tmp_path / "pack" / "a.onnx").read_bytes() == b"mine"


def link():
    info = zipfile.ZipInfo("a.onnx")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "name",
    ["../a.onnx", "pack/../../a.onnx", "/a.onnx", "C:/a.onnx", "..\\a.onnx", link()],
    ids=lambda n: getattr(n, "filename", n),
)
def test_an_unsafe_name_unpacks_nothing(make, tmp_path, name):
    with pytest.raises(BadFile, match="unsafe entry"):
        unpack(make(("good.onnx", b"aa"), (name, b"bb")), tmp_path / "models" / "pack", "*.onnx")
    assert everything(tmp_path) == {"pack.zip"}


def test_a_bomb_unpacks_nothing(make, tmp_path):
    archive = make(("a.onnx", bytes(5_000_000)), method=zipfile.ZIP_DEFLATED)
    with pytest.raises(BadFile, match=r"unpacks to 5\.0 MB; expected at most"):
        unpack(archive, tmp_path / "models" / "pack", "*.onnx")
    assert everything(tmp_path) == {"pack.zip"}


def test_a_bomb_that_lies_about_its_size_unpacks_nothing(make, tmp_path):
    archive = make(("a.onnx", bytes(5_000_000)), method=zipfile.ZIP_DEFLATED)
    data = archive.read_bytes()
    archive.write_bytes(data.replace(struct.pack("<L", 5_000_000), struct.pack("<L", 1000)))
    with pytest.raises(BadFile, match="broken archive"):
        unpack(archive, tmp_path / "models" / "pack", "*.onnx")
    assert everything(tmp_path) == {"pack.zip"}


def test_more_than_the_budget_unpacks_nothing(make, tmp_path):
    with pytest.raises(BadFile, match="expected at most 500 bytes"):
        unpack(make(("a.onnx", noise(300)), ("b.onnx", noise(300))), tmp_path / "pack", "*.onnx", largest=500)


def test_two_files_of_one_name_unpack_nothing(make, tmp_path):
    with pytest.raises(BadFile, match=r"two files named A\.onnx"):
        unpack(make(("one/a.onnx", b"aa"), ("two/A.onnx", b"bb")), tmp_path / "pack", "*.onnx")


def test_too_many_entries(make, tmp_path):
    with pytest.raises(BadFile, match="1001 entries"):
        unpack(make(*((f"{number}.onnx", b"") for number in range(1001))), tmp_path / "pack", "*.onnx")


def test_an_archive_without_the_files(make, tmp_path):
    with pytest.raises(BadFile, match=r"Expected files \*\.onnx"):
        unpack(make(("readme.txt", b"r")), tmp_path / "pack", "*.onnx")


def test_a_broken_archive(make, tmp_path):
    archive = make(("a.onnx", noise(5000)))
    data = bytearray(archive.read_bytes())
    data[2000] ^= 1
    archive.write_bytes(data)
    with pytest.raises(BadFile, match="broken archive"):
        unpack(archive, tmp_path / "models" / "pack", "*.onnx")
    archive.write_bytes(b"PK nothing")
    with pytest.raises(BadFile, match="broken archive"):
        unpack(archive, tmp_path / "models" / "pack", "*.onnx")
    assert everything(tmp_path) == {"pack.zip"}
