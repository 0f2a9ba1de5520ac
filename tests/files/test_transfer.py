"""Fetching from a server that serves well, and from one that stalls, lies, changes its mind and breaks off."""

import shutil
import time
from collections import namedtuple

import pytest

from capface.errors import DownloadFailed
from capface.files.downloads import transfer
from capface.files.downloads.progress import Progress
from capface.files.downloads.transfer import Request, fetch
from capface.files.downloads.web import Web
from capface.tests.files.shop import Goods, Shop, noise, sha256

PIECE = 100_000
DATA = noise(1_050_000)
OTHER = noise(1_050_000, seed=1)


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shop():
    with Shop() as shop:
        yield shop


class Getter:
    """Fetches an address to `file.bin`; `said` has the lines."""

    def __init__(self, folder):
        self.folder, self.said = folder, []

    def __call__(self, address, *, size=None, checksum=None, md5=None, timeout=5.0, name="file.bin", **how):
        request = Request(name, address, self.folder / name, "the page", size, checksum, md5)
        web = Web(endpoint=how.pop("endpoint", None), token=how.pop("token", ""), timeout=timeout)
        return fetch(request, web, **{"piece": PIECE, "pause": 0.01, "say": self.said.append, **how})


@pytest.fixture
def get(tmp_path):
    return Getter(tmp_path / "models")


def left(folder):
    return sorted(path.name for path in folder.iterdir())


# Served well


def test_a_file_is_fetched_in_parts_over_several_connections(shop, get):
    path = get(shop.offer("/file", DATA, pause=0.01), size=len(DATA), checksum=sha256(DATA))
    assert path.read_bytes() == DATA and left(get.folder) == ["file.bin"]
    asked = shop.ranges("/file")
    starts = range(0, len(DATA), PIECE)
    parts = [f"bytes={start}-{min(start + PIECE, len(DATA)) - 1}" for start in starts]
    assert asked[0] == "bytes=0-0" and sorted(asked[1:]) == sorted(parts)
    assert shop.most >= 2 and get.said == []


@pytest.mark.parametrize("data", [b"x", DATA[:PIECE], DATA[: PIECE + 1]], ids=["a byte", "a piece", "a piece and a byte"])
def test_sizes_at_the_edge(shop, get, data):
    assert get(shop.offer("/file", data), checksum=sha256(data)).read_bytes() == data


def test_a_server_without_parts_is_read_as_a_whole(shop, get):
    assert get(shop.offer("/file", DATA, ranges=False), checksum=sha256(DATA)).read_bytes() == DATA
    assert len(shop.asked) == 1


def test_an_answer_of_unknown_length_needs_a_checksum(shop, get):
    address = shop.offer("/file", DATA, ranges=False, chunked=True)
    with pytest.raises(DownloadFailed, match="does not say how long"):
        get(address)
    assert get(address, checksum=sha256(DATA)).read_bytes() == DATA


# Resuming


def test_what_breaks_off_is_resumed_where_it_broke(shop, get):
    path = get(shop.offer("/file", DATA, breaks=[50_000, None, 20_000]), checksum=sha256(DATA), connections=1)
    assert path.read_bytes() == DATA
    assert {"bytes=50000-99999", "bytes=120000-199999"} <= set(shop.ranges("/file"))
    assert shop.sent in (len(DATA), len(DATA) + 1)  # with the byte of the first question
    assert get.said == [f"the connection broke off at {place} bytes: trying again" for place in ("50,000", "120,000")]


def test_a_run_that_gives_up_keeps_what_is_good_and_the_next_goes_on_there(shop, get):
    address = shop.offer("/file", DATA, breaks=[None, None, None, *[0] * 100])
    with pytest.raises(DownloadFailed, match=r"broke off .*, 5 times\. 300\S* .*are kept: run the same command again"):
        get(address, checksum=sha256(DATA), connections=1)
    assert left(get.folder) == ["file.bin.part", "file.bin.part.json"]
    shop.goods["/file"].breaks.clear()
    before = shop.sent
    assert get(address, checksum=sha256(DATA)).read_bytes() == DATA
    assert get.said[-1] == "resuming at 29% (300,000 bytes are there)"
    assert 0 <= shop.sent - before - (len(DATA) - 300_000) <= 2 and left(get.folder) == ["file.bin"]


def test_what_stalls_counts_as_broken(shop, get):
    start = time.monotonic()
    path = get(shop.offer("/file", DATA, stalls=[30_000]), checksum=sha256(DATA), timeout=0.4)
    assert path.read_bytes() == DATA and time.monotonic() - start < 5


def test_without_parts_a_break_starts_again(shop, get):
    path = get(shop.offer("/file", DATA, ranges=False, breaks=[400_000]), checksum=sha256(DATA))
    assert path.read_bytes() == DATA and "starting again" in get.said[0]


def test_without_parts_a_broken_chunk_is_noticed(shop, get):
    address = shop.offer("/file", DATA, ranges=False, chunked=True, breaks=[400_000])
    assert get(address, checksum=sha256(DATA)).read_bytes() == DATA
    assert len(shop.asked) == 2


def interrupted(shop, get, **how):
    address = shop.offer("/file", DATA, breaks=[None, None, None, *[0] * 100])
    with pytest.raises(DownloadFailed):
        get(address, connections=1, **how)
    shop.goods["/file"].breaks.clear()
    return address


def test_another_version_is_not_glued_to_the_old_one(shop, get):
    address = interrupted(shop, get)
    shop.offer("/file", OTHER, etag='"two"')
    assert get(address).read_bytes() == OTHER
    assert get.said[-2].startswith("the file has changed on the server: starting again")


def test_without_a_version_or_a_checksum_nothing_is_resumed(shop, get):
    shop.goods["/file"] = Goods(DATA, etag=None, breaks=[None, None, None, *[0] * 100])
    with pytest.raises(DownloadFailed):
        get(f"{shop.address}/file", connections=1)
    shop.offer("/file", OTHER, etag=None)
    assert get(f"{shop.address}/file").read_bytes() == OTHER


def test_a_mirror_goes_on_where_the_other_stopped_if_the_checksum_is_the_same(shop, get):
    interrupted(shop, get, checksum=sha256(DATA))
    before = shop.sent
    mirror = shop.offer("/mirror/file", DATA, etag='"mirror"')
    assert get(mirror, checksum=sha256(DATA)).read_bytes() == DATA
    assert 0 <= shop.sent - before - (len(DATA) - 300_000) <= 2


@pytest.mark.parametrize(
    "record", ["", "[]", '{"address": 1}', '{"address": "a", "size": 9, "tag": null, "sha256": null, "pieces": [[0, 9, 10]]}']
)
def test_a_broken_record_starts_again(shop, get, record):
    address = interrupted(shop, get, checksum=sha256(DATA))
    (get.folder / "file.bin.part.json").write_text(record)
    assert get(address, checksum=sha256(DATA)).read_bytes() == DATA


def test_a_file_that_changes_while_it_is_fetched_is_fetched_anew(shop, get):
    shop.goods["/file"] = Goods(DATA, later=(4, Goods(OTHER, etag='"two"')))
    assert get(f"{shop.address}/file", connections=1).read_bytes() == OTHER
    assert get.said[0] == "the file has changed on the server: starting again"


def test_a_server_that_stops_serving_parts_is_read_as_a_whole(shop, get):
    shop.goods["/file"] = Goods(DATA, later=(4, Goods(DATA, ranges=False)))
    assert get(f"{shop.address}/file").read_bytes() == DATA
    assert get.said[0] == "the server sends the file only as a whole: starting again"


def test_a_file_that_keeps_changing_ends_the_run(shop, get):
    shop.offer("/file", DATA, changing=lambda: f'"{len(shop.asked)}"')
    with pytest.raises(DownloadFailed, match="another version of the file in each of 3 attempts"):
        get(f"{shop.address}/file", connections=1)


def test_a_mirror_that_tags_each_answer_anew_does_with_a_checksum(shop, get):
    shop.offer("/file", DATA, changing=lambda: f'"{len(shop.asked)}"')
    assert get(f"{shop.address}/file", checksum=sha256(DATA)).read_bytes() == DATA
    assert get.said == ["the file has changed on the server: starting again"]


# Lies


def test_a_length_other_than_the_catalogue_s_is_refused_before_anything_is_fetched(shop, get):
    with pytest.raises(DownloadFailed, match=r"Expected 9 bytes .*catalogue.* offers 1,050,000"):
        get(shop.offer("/file", DATA), size=9)
    assert shop.sent <= 1 and left(get.folder) == []


def test_a_body_shorter_than_its_stated_length_is_a_break(shop, get):
    address = shop.offer("/file", DATA, ranges=False, headers={"Content-Length": str(len(DATA) + 5)})
    with pytest.raises(DownloadFailed, match="broke off"):
        get(address)
    assert not (get.folder / "file.bin").exists()


def test_a_body_longer_than_the_file_is_refused(shop, get):
    address = shop.offer("/file", DATA, ranges=False, chunked=True)
    with pytest.raises(DownloadFailed, match="sends more than"):
        get(address, size=len(DATA) - 1, checksum=sha256(DATA))


def test_other_bytes_than_those_asked_for_are_refused(shop, get):
    shop.goods["/file"] = Goods(DATA, later=(1, Goods(DATA, shift=7)))
    with pytest.raises(DownloadFailed, match=r"Asked .* for the bytes 0-99999, got 7-99999"):
        get(f"{shop.address}/file", connections=1)


@pytest.mark.parametrize("kind", ["SHA-256", "MD5"])
def test_a_wrong_checksum_keeps_the_file_out(shop, get, kind):
    expected = {"checksum": "0" * 64} if kind == "SHA-256" else {"md5": "0" * 32}
    with pytest.raises(DownloadFailed, match=rf"file\.bin from 127.*: expected {kind} 0+, got [0-9a-f]+\. .*has been removed"):
        get(shop.offer("/file", DATA), **expected)
    assert left(get.folder) == []


def test_without_a_checksum_safetensors_are_looked_into(shop, get):
    with pytest.raises(DownloadFailed, match="not a safetensors file"):
        get(shop.offer("/file", DATA), name="file.safetensors")


def test_a_web_page_is_refused(shop, get):
    page = b"<!doctype html><title>Log in</title>"
    with pytest.raises(DownloadFailed, match=r"got a web page .*the page in a browser"):
        get(shop.offer("/file", page, headers={"Content-Type": "text/html; charset=utf-8"}))


def test_a_compressed_answer_is_refused(shop, get):
    with pytest.raises(DownloadFailed, match="compressed"):
        get(shop.offer("/file", DATA, headers={"Content-Encoding": "gzip"}))


@pytest.mark.parametrize("ranges", [True, False])
def test_an_empty_file_is_refused(shop, get, ranges):
    with pytest.raises(DownloadFailed, match="sends an empty file"):
        get(shop.offer("/file", b"", ranges=ranges))
    assert left(get.folder) == []


def test_a_web_page_after_a_break_is_refused(shop, get):
    page = Goods(b"<html>", headers={"Content-Type": "text/html"}, ranges=False)
    shop.goods["/file"] = Goods(DATA, ranges=False, breaks=[400_000], later=(1, page))
    with pytest.raises(DownloadFailed, match="web page"):
        get(f"{shop.address}/file")


def test_another_length_after_a_break_starts_again(shop, get):
    shop.goods["/file"] = Goods(DATA, ranges=False, breaks=[400_000], later=(1, Goods(OTHER[:-9], ranges=False)))
    assert get(f"{shop.address}/file").read_bytes() == OTHER[:-9]


# Refusals


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "refuses the file .*Log in"),
        (403, "refuses the file"),
        (404, "does not have the file"),
        (410, "does not have the file"),
        (451, "got status 451"),
    ],
)
def test_a_refusal_ends_the_run_in_words(shop, get, status, message):
    address = shop.offer("/file", DATA, statuses=[(status, {})])
    with pytest.raises(DownloadFailed, match=message):
        get(address)
    assert len(shop.asked) == 1


def test_a_busy_server_is_asked_again_when_it_wants(shop, get):
    start = time.monotonic()
    address = shop.offer("/file", DATA, statuses=[(429, {"Retry-After": "1"}), (503, {}), (500, {})])
    assert get(address).read_bytes() == DATA
    assert 1 <= time.monotonic() - start < 4 and len(shop.asked) > 4


def test_a_server_that_is_busy_for_long_ends_the_run(shop, get):
    with pytest.raises(DownloadFailed, match="asks to wait for 3600 s"):
        get(shop.offer("/file", DATA, statuses=[(429, {"Retry-After": "3600"})]))


def test_no_server_at_all(shop, get):
    address = shop.offer("/file", DATA)
    shop.__exit__()
    with pytest.raises(DownloadFailed, match=r"cannot be reached .*5 times.*https_proxy"):
        get(address)


# The disk


def test_a_file_that_is_there_is_kept(shop, get):
    get.folder.mkdir()
    (get.folder / "file.bin").write_bytes(b"mine")
    with pytest.raises(DownloadFailed, match="exists and is kept"):
        get(shop.offer("/file", DATA))
    assert (get.folder / "file.bin").read_bytes() == b"mine" and shop.asked == []


def test_a_file_that_appears_meanwhile_is_kept(shop, get, monkeypatch):
    check = transfer._Run.check

    def checked(run):
        check(run)
        run.request.target.write_bytes(b"mine")

    monkeypatch.setattr(transfer._Run, "check", checked)
    with pytest.raises(DownloadFailed, match="appeared meanwhile"):
        get(shop.offer("/file", DATA))
    assert (get.folder / "file.bin").read_bytes() == b"mine"
    assert (get.folder / "file.bin.part").read_bytes() == DATA


def test_a_full_disk_is_noticed_before(shop, get, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, 1 << 40, 1000))
    with pytest.raises(DownloadFailed, match=r"needs 68\.2 MB more on the disk of .*1,000 bytes free"):
        get(shop.offer("/file", DATA))
    assert shop.sent <= 1


def test_another_programs_unfinished_download_is_kept(shop, get):
    get.folder.mkdir()
    (get.folder / "file.bin.part").write_bytes(b"a browser's")
    with pytest.raises(DownloadFailed, match=r"file\.bin\.part exists, but this command has not begun it"):
        get(shop.offer("/file", DATA))
    assert (get.folder / "file.bin.part").read_bytes() == b"a browser's" and left(get.folder) == ["file.bin.part"]
    (get.folder / "file.bin.part").unlink()
    assert get(f"{shop.address}/file").read_bytes() == DATA


def test_two_runs_do_not_write_one_file(shop, get):
    get.folder.mkdir()
    with transfer._locked(get.folder / "file.bin.part"), pytest.raises(DownloadFailed, match="Another run"):
        get(shop.offer("/file", DATA))
    assert get(f"{shop.address}/file").read_bytes() == DATA


def test_file_systems_without_links(shop, get, monkeypatch):
    def refuse(self, target):
        raise OSError("no links here")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    assert get(shop.offer("/file", DATA)).read_bytes() == DATA
    assert left(get.folder) == ["file.bin"]


def test_the_line_has_rate_and_time_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bar = Progress("file.bin", 100_000_000)
    bar.line(0)
    now[0] = 4.0
    assert bar.line(40_000_000) == "  file.bin   40%  40.0 MB of 100.0 MB, 10.0 MB/s, 6 s left"
    now[0] = 9.0
    bar.show(40_000_000)
    now[0] = 12.0
    bar.show(60_000_000)
    assert capsys.readouterr().out.count("\n") == 1
