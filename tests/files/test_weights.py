"""The command: the table, what a portrait needs, licences, files got by hand, and the published pack under any folder name."""

import builtins
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace

import pytest

from capface.errors import BadFile, BadInput
from capface.files import catalogue, weights
from capface.files.downloads import command, places, presence, web
from capface.files.downloads.places import find_places
from capface.files.downloads.presence import EVERY, for_portrait, select
from capface.tests.conftest import ROOT
from capface.tests.files.shop import Shop, noise, sha256
from capface.tests.test_published import ignored
from capface.tests.test_published import published as published_files

NOWHERE = "http://127.0.0.1:9"
"""Nothing listens there, so that no test leaves the machine."""
DATA = noise(300_000)
OPEN_CLIP_PATH = "/timm/vit_large_patch14_clip_224.openai/resolve/main/open_clip_model.safetensors"


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "COMFYUI_PATH", "PWD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.setenv("https_proxy", NOWHERE)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(web, "known_token", lambda: None)
    monkeypatch.setattr(presence, "find_spec", lambda package: None)


@pytest.fixture
def shop():
    with Shop() as shop:
        yield shop


@pytest.fixture
def host(tmp_path):
    host = tmp_path / "ComfyUI"
    (host / "models").mkdir(parents=True)
    (host / "folder_paths.py").touch()
    return host


@pytest.fixture
def run(host, capsys, tmp_path):
    """Runs the command on the host; returns its exit status and what it says."""

    def run(*arguments):
        downloads = () if "--downloads" in arguments else ("--downloads", str(tmp_path / "no downloads"))
        status = command.main([*arguments, *downloads, "--comfyui", str(host)])
        return status, capsys.readouterr().out

    return run


PACK_FILES = {"det_10g.onnx": b"\x08detector", "1k3d68.onnx": b"\x08landmarks"}
BY_HAND = b"\x80\x02" + noise(50_000, seed=2)


@pytest.fixture
def small(shop, monkeypatch):
    """The catalogue with small files on the test's server: a plain one, an archive, and one that must be got by hand."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in PACK_FILES.items():
            archive.writestr(f"buffalo_l/{name}", data)
    packed = packed.getvalue()
    here = {
        catalogue.PARSER: {
            "url": shop.offer("/parser.pth", DATA),
            "size": len(DATA),
            "sha256": sha256(DATA),
            "md5": None,
            "sign": None,
        },
        catalogue.FLAME: {"md5": hashlib.md5(BY_HAND).hexdigest()},
    }
    insightface = replace(
        catalogue.INSIGHTFACE, url=shop.offer("/buffalo_l.zip", packed), size=len(packed), sha256=sha256(packed)
    )
    every = (insightface if asset is catalogue.INSIGHTFACE else replace(asset, **here.get(asset, {})) for asset in EVERY)
    monkeypatch.setattr(presence, "INSIGHTFACE", insightface)
    monkeypatch.setattr(presence, "EVERY", tuple(every))
    return shop


def put(folder, asset, data=b"x"):
    path = folder / "models" / asset.folder / asset.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def safetensors(**shapes):
    header = {name: {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


CLIP = safetensors(**{"vision_model.embeddings.position_embedding.weight": [257, 1024]})
SD15 = safetensors(
    **{
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": [320, 768],
        "cond_stage_model.x": [1],
        "first_stage_model.x": [1],
    }
)


# The catalogue


def test_every_file_can_be_fetched_or_says_where_it_is_got_by_hand():
    for asset in EVERY:
        if asset.download is None:
            assert asset.source, asset.file
            continue
        assert asset.download.startswith("https://"), asset.file
        assert ("*" in asset.file) == asset.download.endswith(".zip"), asset.file
    by_hand = {asset for asset in EVERY if asset.download is None}
    assert {catalogue.FLAME, catalogue.FLAME_TEXTURE} <= by_hand and all(asset.md5 or asset.sha256 for asset in by_hand)


def test_every_need_is_understood():
    files = {asset.file for asset in EVERY}
    for asset in EVERY:
        first, _, other = asset.need.partition(presence.OR)
        assert first in ("optional", presence.NEEDED, presence.RECOMMENDED), asset.need
        assert not other or other in files | {presence.ANOTHER_CHECKPOINT} or other.startswith(presence.A_PACKAGE), asset.need


# What is there


def test_the_table_shows_every_file_with_licence_size_source_and_state(host, run):
    put(host, catalogue.PARSER, b"<html>")
    put(host, catalogue.FLAME_TEMPLATE, b"v 0 0 0")
    put(host, catalogue.OPEN_CLIP, safetensors(**{"visual.conv1.weight": [1]}))
    part = put(host, catalogue.FACENET)
    part.rename(f"{part}.part")
    status, text = run()
    assert status == command.FAILED
    for asset in EVERY:
        (line,) = (line for line in text.splitlines() if line.startswith(f"{asset.name} "))
        assert all(fact in line for fact in (asset.licence, asset.purpose, asset.source)), line
        state = {catalogue.PARSER: "wrong", catalogue.FLAME_TEMPLATE: "wrong", catalogue.OPEN_CLIP: "present"}.get(
            asset, "missing"
        )
        assert line.split()[1] == state, line
    assert "is a web page" in text and "expected 563,358 bytes, got 7" in text and f"begun: {part}.part" in text
    assert f"{shlex.quote(str(ROOT / 'files' / 'weights.py'))} get portrait" in text


def test_a_checksum_is_compared_on_request(host, run, small):
    path = put(host, catalogue.PARSER, DATA[:-1] + b"?")
    assert run("list", "79999_iter.pth")[0] == command.DONE
    status, text = run("check", "79999_iter.pth")
    assert status == command.FAILED and f"expected SHA-256 {sha256(DATA)}" in text
    path.write_bytes(DATA)
    assert run("check", "79999_iter.pth")[0] == command.DONE


def test_files_under_another_name_and_alternatives_count(host):
    found = find_places(str(host))
    assert [asset.name for asset in for_portrait(found)] == [
        "caphuman.ckpt",
        "20180402-114759-vggface2.pt",
        "buffalo_l",
        "face_landmarker.task",
        "realisticVisionV60B1_v51VAE.safetensors",
        "clip-vit-large-patch14.safetensors",
    ]
    put(host, replace(catalogue.CLIP_VISION, file="mine.safetensors"), CLIP)
    assert presence.instead(catalogue.HOST_FILES[0], found) == ""
    put(host, replace(catalogue.HOST_FILES[0], file="sub/mine.safetensors"), SD15)
    capface = safetensors(**{"control_model.mask_predict.weight": [1]})
    put(host, replace(catalogue.CAPHUMAN, file="converted.safetensors"), capface)
    states = {asset.name: presence.find(asset, found) for asset in for_portrait(found)}
    assert states.keys() == {
        "caphuman.ckpt",
        "20180402-114759-vggface2.pt",
        "buffalo_l",
        "face_landmarker.task",
        "clip-vit-large-patch14.safetensors",
    }
    assert states["caphuman.ckpt"].path.name == "converted.safetensors"
    assert states["clip-vit-large-patch14.safetensors"].state == presence.PRESENT


def test_either_clip_is_enough_for_a_portrait(host):
    put(host, catalogue.OPEN_CLIP, safetensors(**{"visual.conv1.weight": [1]}))
    names = [asset.name for asset in for_portrait(find_places(str(host)))]
    assert "open_clip_model.safetensors" in names and "clip-vit-large-patch14.safetensors" not in names


def test_a_package_is_enough_for_a_portrait(host, monkeypatch):
    monkeypatch.setattr(presence, "find_spec", lambda package: package == "facenet_pytorch" or None)
    assert "buffalo_l" not in [asset.name for asset in for_portrait(find_places(str(host)))]


@pytest.mark.parametrize(
    ("wanted", "name"),
    [("CapHuman", "caphuman.ckpt"), ("caphuman.ckpt", "caphuman.ckpt"), ("buffalo", "buffalo_l"), ("79999", "79999_iter.pth")],
)
def test_a_file_is_named_as_a_user_would(host, wanted, name):
    assert [asset.name for asset in select([wanted, wanted], find_places(str(host)))] == [name]


@pytest.mark.parametrize(
    ("wanted", "message"), [("control", "fits several.*depth.*openpose"), ("nothing", "not in the catalogue")]
)
def test_a_name_that_says_too_little_or_nothing(host, run, wanted, message):
    with pytest.raises(BadInput, match=message):
        select([wanted], find_places(str(host)))
    assert run("get", wanted)[0] == command.REFUSED


def test_all_is_every_file(host):
    assert select(["portrait", "all"], find_places(str(host))) != list(EVERY)
    assert set(select(["portrait", "all"], find_places(str(host)))) == set(EVERY)


# Where files go


def test_folders_of_extra_model_paths_are_searched_as_comfyui_does(host, tmp_path, monkeypatch):
    monkeypatch.setenv("SHARED", str(tmp_path / "shared"))
    (host / "extra_model_paths.yaml").write_text(
        "first:\n  base_path: $SHARED\n  is_default: true\n  facenet: a\n  clip_vision: |\n    b\n    c\n"
        "second:\n  facenet: d\n  flame: e\nempty:\n"
    )
    found = find_places(str(host))
    shared, models = tmp_path / "shared", host / "models"
    assert found.folders("facenet") == [shared / "a", models / "facenet", host / "d"]
    assert found.folders("clip_vision") == [shared / "b", shared / "c", models / "clip_vision"]
    assert found.target(catalogue.FACENET) == shared / "a" / catalogue.FACENET.file
    assert found.target(catalogue.FLAME) == models / "flame" / catalogue.FLAME.file
    assert found.target(catalogue.INSIGHTFACE) == models / "insightface" / "models" / "buffalo_l"
    (host / "extra_model_paths.yaml").write_text("a: [")
    with pytest.raises(BadFile, match="cannot be read"):
        find_places(str(host))


def test_the_host_is_the_one_around_the_pack(host, tmp_path, monkeypatch):
    assert find_places(pack=host / "custom_nodes" / "x").models == host / "models"
    with pytest.raises(BadInput, match="--comfyui PATH"):
        find_places(pack=tmp_path / "x")
    with pytest.raises(BadInput, match=r"there is no ComfyUI in it"):
        find_places(str(tmp_path))
    assert find_places(models=str(tmp_path), pack=tmp_path / "x").models == tmp_path
    monkeypatch.setenv("COMFYUI_PATH", str(host))
    assert find_places(pack=tmp_path / "x").models == host / "models"


def test_without_pyyaml_extra_model_paths_are_not_ignored(host, monkeypatch):
    (host / "extra_model_paths.yaml").write_text("a:\n  facenet: b\n")
    real = builtins.__import__

    def without(name, *rest):
        if name == "yaml":
            raise ImportError
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BadInput, match="without PyYAML"):
        find_places(str(host))


# Getting files


def test_a_file_is_fetched_into_its_folder_and_then_is_there(host, run, small):
    status, text = run("get", "79999_iter.pth", "--yes")
    path = host / "models" / "face_parsing" / "79999_iter.pth"
    assert status == command.DONE and path.read_bytes() == DATA and "all files are in place" in text
    before = len(small.asked)
    assert f"there and right: {path}" in run("get", "79999_iter.pth", "--yes")[1] and len(small.asked) == before


def test_an_archive_is_unpacked_and_removed(host, run, small):
    assert run("get", "buffalo_l", "--yes")[0] == command.DONE
    folder = host / "models" / "insightface" / "models"
    assert {path.name: path.read_bytes() for path in folder.glob("buffalo_l/*")} == PACK_FILES
    assert [path.name for path in folder.iterdir()] == ["buffalo_l"]
    assert "buffalo_l is there" in run("get", "buffalo_l", "--yes")[1]


def test_an_archive_that_is_there_is_unpacked(host, run, small):
    archive = host / "models" / "insightface" / "models" / "buffalo_l.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"another")
    assert "exists and is kept" in run("get", "buffalo_l", "--yes")[1]
    archive.write_bytes(small.goods["/buffalo_l.zip"].data)
    before = len(small.asked)
    assert run("get", "buffalo_l", "--yes")[0] == command.DONE and len(small.asked) == before
    assert (archive.parent / "buffalo_l" / "det_10g.onnx").is_file()


def test_a_bomb_in_place_of_the_archive(host, run, small, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.onnx", bytes(50_000_000))
    bomb = replace(presence.INSIGHTFACE, url=small.offer("/bomb.zip", packed.getvalue()), size=None, sha256=None)
    monkeypatch.setattr(presence, "EVERY", (bomb,))
    status, text = run("get", "buffalo_l", "--yes")
    assert status == command.FAILED and "unpacks to 50.0 MB; expected at most" in text
    assert not (host / "models" / "insightface" / "models" / "buffalo_l").exists()


def test_a_wrong_file_is_reported_and_kept(host, run, small):
    path = put(host, catalogue.PARSER, b"mine")
    status, text = run("get", "79999_iter.pth", "--yes")
    assert status == command.FAILED and "there but wrong, and is kept" in text and "expected 300,000 bytes, got 4" in text
    assert path.read_bytes() == b"mine" and small.asked == []


def test_a_dry_run_shows_everything_and_fetches_nothing(host, run, small):
    status, text = run("get", "79999_iter.pth", "generic_model.pkl", "--dry-run")
    assert status == command.DONE and small.asked == [] and list((host / "models").iterdir()) == []
    assert (
        "300,000 bytes" in text and "licence: MIT" in text and str(host / "models" / "face_parsing" / "79999_iter.pth") in text
    )
    assert "dry run" in text and "flame.is.tue.mpg.de, after registration" in text


@pytest.mark.parametrize(
    ("terminal", "answer", "status"),
    [(False, "", command.REFUSED), (False, "y", command.REFUSED), (True, "n", command.REFUSED), (True, "Y", command.DONE)],
)
def test_licences_must_be_agreed_to(run, small, monkeypatch, terminal, answer, status):
    answers = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(answers, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stdin", answers)
    got, text = run("get", "79999_iter.pth")
    assert got == status and "licence: MIT" in text and bool(small.asked) == (status == command.DONE)
    assert ("add --yes" in text) == (not terminal)


def test_one_failure_does_not_stop_the_others(host, run, small):
    small.goods["/parser.pth"].statuses = [(404, {})]
    status, text = run("get", "79999_iter.pth", "buffalo_l", "--yes")
    assert status == command.FAILED and "1 of 2 files are not in place" in text
    assert (host / "models" / "insightface" / "models" / "buffalo_l" / "det_10g.onnx").is_file()


def test_a_full_disk_is_noticed_before_anything_is_fetched(run, small, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    status, text = run("get", "79999_iter.pth", "--yes")
    assert status == command.FAILED and "Make room" in text and small.asked == []


# Files got by hand


@pytest.fixture
def downloads(tmp_path):
    folder = tmp_path / "my downloads"
    folder.mkdir()
    return folder


def by_hand(run, downloads):
    return run("get", "generic_model.pkl", "--yes", "--downloads", str(downloads))


def test_a_file_behind_a_registration_is_named_with_its_page(host, run, small, downloads):
    status, text = by_hand(run, downloads)
    assert status == command.FAILED and "must be downloaded in a browser" in text and "flame.is.tue.mpg.de" in text
    assert str(host / "models" / "flame" / "generic_model.pkl") in text and small.asked == []


def test_a_file_got_by_hand_is_recognised_by_its_content(host, run, small, downloads):
    (downloads / "generic_model.pkl").write_bytes(BY_HAND[:-1] + b"?")
    (downloads / "photo.jpg").write_bytes(b"\xff\xd8")
    (downloads / "download (3)").write_bytes(BY_HAND)
    assert by_hand(run, downloads)[0] == command.DONE
    assert (host / "models" / "flame" / "generic_model.pkl").read_bytes() == BY_HAND
    assert (downloads / "download (3)").read_bytes() == BY_HAND


def test_a_file_got_by_hand_is_found_in_its_archive(host, run, small, downloads):
    (downloads / "broken.zip").write_bytes(b"PK\x03\x04 no more")
    with zipfile.ZipFile(downloads / "FLAME.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("FLAME/readme.md", "read me")
        archive.writestr("FLAME/female_model.pkl", b"\x80\x02another")
        archive.writestr("../FLAME/generic_model.pkl", BY_HAND)
    assert "would be copied" in run("get", "generic_model.pkl", "--dry-run", "--downloads", str(downloads))[1]
    assert not (host / "models" / "flame").exists()
    assert by_hand(run, downloads)[0] == command.DONE
    assert (host / "models" / "flame" / "generic_model.pkl").read_bytes() == BY_HAND
    assert len(list(host.rglob("*.pkl"))) == 1


def test_an_archive_got_by_hand_is_unpacked(host, run, small, downloads):
    (downloads / "buffalo_l (1).zip").write_bytes(small.goods["/buffalo_l.zip"].data)
    status, text = run("get", "buffalo_l", "--yes", "--downloads", str(downloads))
    assert status == command.DONE and small.asked == [] and "was unpacked to" in text
    assert (host / "models" / "insightface" / "models" / "buffalo_l" / "det_10g.onnx").is_file()


def test_a_file_without_a_known_checksum_is_not_called_right(host, run):
    path = put(host, catalogue.HOST_FILES[0])
    assert f"is there: {path}" in run("get", path.name)[1]


# The published pack


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A copy of what the registry publishes, in a ComfyUI, under a folder name that is not a module's."""
    host = tmp_path_factory.mktemp("with a space") / "ComfyUI"
    pack = host / "custom_nodes" / "CapFace-ComfyUI 1.0 (copy)"
    left_out = {*ignored(), ".git", ".venvs", "output", "web", "workflows", "locales"}
    shutil.copytree(
        ROOT,
        pack,
        ignore=lambda folder, names: [n for n in names if n == "__pycache__" or (folder == str(ROOT) and n in left_out)],
    )
    assert not (pack / "tasks.py").exists() and not (pack / "tools").exists()
    (host / "models").mkdir()
    (host / "folder_paths.py").touch()
    return pack


def started(pack, shop, *arguments):
    """The command in a process of its own, without site packages."""
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environ |= {"HF_ENDPOINT": shop.address, "https_proxy": NOWHERE, "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-S", str(pack / "files" / "weights.py"), *arguments]
    return subprocess.Popen(
        line,
        env=environ,
        cwd=pack.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=None if os.name == "nt" else _heed_interrupts,
    )


def _heed_interrupts():
    """Undo what shells do to background jobs, which ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_the_published_pack_has_the_command(published, shop):
    process = started(published, shop)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and f"models in {published.parent.parent / 'models'}" in text, text
    assert f"{str(published / 'files' / 'weights.py')!r} get portrait" in text


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_a_stopped_run_is_continued_by_the_published_pack(published, shop):
    data = safetensors(x=[1]) + noise(3_000_000)
    goods = {"headers": {"X-Linked-Etag": f'"{sha256(data)}"'}}
    shop.offer(OPEN_CLIP_PATH, data, pause=0.3, **goods)
    arguments = ("get", "open_clip_model.safetensors", "--yes", "--connections", "2")
    folder = published.parent.parent / "models" / "open_clip"
    process = started(published, shop, *arguments)
    until = time.monotonic() + 60
    while shop.sent < 1_000_000 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == command.STOPPED and "the same command goes on there" in text, text
    assert {path.name for path in folder.iterdir()} == {
        "open_clip_model.safetensors.part",
        "open_clip_model.safetensors.part.json",
    }
    shop.offer(OPEN_CLIP_PATH, data, **goods)
    before = shop.sent
    process = started(published, shop, *arguments)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and "resuming at" in text, text
    assert (folder / "open_clip_model.safetensors").read_bytes() == data and len(list(folder.iterdir())) == 1
    assert shop.sent - before < len(data) - 500_000


def test_the_command_needs_no_torch(published, shop):
    code = f"""
import runpy, sys
sys.argv = ["weights"]
runpy.run_path({str(published / "files" / "weights.py")!r}, run_name="a module")["main"]()
sys.exit(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"torch", "numpy", "safetensors"}}) or None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=published.parent)
    assert done.returncode == 0, done.stderr


def test_the_line_that_starts_it_is_quoted(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/opt/my python/bin/python")
    line = weights.command("get", "portrait")
    assert line == f"'/opt/my python/bin/python' {shlex.quote(str(ROOT / 'files' / 'weights.py'))} get portrait"
    assert weights.command("get", windows=True).startswith('"/opt/my python/bin/python" ')


def test_places_are_those_of_the_pack():
    assert places.PACK == ROOT


def test_no_other_room_imports_the_downloads():
    own = {ROOT / "files" / "weights.py", *(ROOT / "files" / "downloads").iterdir()}
    others = [path for path in published_files() if path not in own]
    assert [
        path for path in others if re.search(r"import.*downloads|downloads.*import", path.read_text(encoding="utf-8"))
    ] == []
    assert len(others) > 100
