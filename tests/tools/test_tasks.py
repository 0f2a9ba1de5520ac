"""`tasks.py` and where it looks for a ComfyUI."""

import importlib
import subprocess
import sys

import pytest

from capface.tools.comfy import PACK, ComfyError, find_host, host_version


@pytest.fixture
def tasks(monkeypatch):
    """The module `tasks`, as it is imported when it is started."""
    monkeypatch.syspath_prepend(str(PACK))
    module = importlib.import_module("tasks")
    yield module
    for name in [n for n in sys.modules if n == "tasks" or n.partition(".")[0] == "tools"]:
        del sys.modules[name]


def make_host(folder, version="0.8.0"):
    """A folder that looks like ComfyUI's sources."""
    folder.mkdir(parents=True)
    for name in ("main.py", "folder_paths.py"):
        (folder / name).touch()
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    return folder.resolve()


def test_help_needs_the_standard_library_alone():
    shown = subprocess.run([sys.executable, "-I", "-S", "-c", HELP], capture_output=True, text=True, check=True).stdout
    assert all(command in shown for command in ("demo", "check", "test", "bench", "prepare", "train"))


HELP = f"""
import runpy, sys
sys.path.insert(0, {str(PACK)!r})
sys.argv = ["tasks.py", "--help"]
runpy.run_path({str(PACK / "tasks.py")!r}, run_name="__main__")
"""


def test_an_environment_is_named_after_what_is_in_it(tasks, tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("numpy\n")
    name = tasks.environment_name([file])
    assert name == tasks.environment_name([file])
    file.write_text("numpy\nscipy\n")
    assert name != tasks.environment_name([file])


def test_a_half_made_environment_is_made_anew_and_a_whole_one_is_kept(tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "ROOT", tmp_path)
    monkeypatch.setattr(tasks, "VENVS", tmp_path / ".venvs")
    for file in tasks.requirement_files(None):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    made = []

    def venv(command, what, way_out):
        made.append(command[-1])
        command[-1].mkdir(parents=True)

    monkeypatch.setattr(tasks, "run_quietly", venv)
    monkeypatch.setattr(tasks, "install", lambda *a, **k: pytest.fail("no network") if len(made) == 1 else None)
    with pytest.raises(pytest.fail.Exception):
        tasks.environment(None)
    tasks.environment(None)
    tasks.environment(None)
    assert len(made) == 2


def test_a_failed_installer_is_shown_in_full_with_the_way_out(tasks):
    script = "print('a clear cause'); raise SystemExit(3)"
    with pytest.raises(tasks.TaskError, match=r"(?s)a clear cause.*status 3.*do this"):
        tasks.run_quietly([sys.executable, "-c", script], "pip install", "do this")


def test_a_host_is_found_where_it_was_named_or_lies(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path / "home")
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.delenv("PWD", raising=False)
    elsewhere = tmp_path / "pack"
    assert find_host(pack=elsewhere) is None
    usual = make_host(tmp_path / "home" / "comfy" / "ComfyUI")
    assert find_host(pack=elsewhere) == usual
    around = make_host(tmp_path / "around", "0.3.64")
    assert find_host(pack=around / "custom_nodes" / "capface") == around
    named = make_host(tmp_path / "named")
    monkeypatch.setenv("COMFYUI_PATH", str(named))
    assert find_host(pack=around / "custom_nodes" / "capface") == named
    assert find_host(around) == around
    assert host_version(around) == "0.3.64"


def test_a_folder_named_for_a_host_must_hold_one(tmp_path):
    with pytest.raises(ComfyError, match=r"--comfyui names .*main\.py"):
        find_host(tmp_path)


@pytest.mark.parametrize("hosted", [True, False])
def test_check_starts_its_tool_with_the_host_and_the_wish_for_checksums(tasks, tmp_path, monkeypatch, hosted):
    host = make_host(tmp_path / "ComfyUI") if hosted else None
    monkeypatch.setattr(tasks, "known_host", lambda options: host)
    monkeypatch.setattr(tasks, "environment", lambda host, reuse: "python")
    started = []
    monkeypatch.setattr(tasks, "start", lambda *command: started.append(command) or 0)
    options, rest = tasks.parse(["check", "--checksums"])
    assert options.task(options, rest) == 0
    arguments = ["--comfyui", str(host)] if hosted else []
    assert started == [("python", PACK / "tools" / "check.py", [*arguments, "--checksums"])]
    with pytest.raises(SystemExit):
        tasks.parse(["check", "everything"])


@pytest.mark.parametrize(
    ("arguments", "launcher"),
    [
        ("", ""),
        ("--processes 4", "-m torch.distributed.run --nproc-per-node 4 --standalone"),
        (
            "--processes 8 --machines 2 --machine 1 --first-machine node0:29500",
            "-m torch.distributed.run --nproc-per-node 8 --nnodes 2 --node-rank 1 --master-addr node0 --master-port 29500",
        ),
    ],
    ids=["one", "four GPUs", "two machines"],
)
def test_training_is_started_in_as_many_processes_as_asked_for(tasks, monkeypatch, arguments, launcher):
    monkeypatch.setattr(tasks, "known_host", lambda options: None)
    monkeypatch.setattr(tasks, "environment", lambda host, reuse: "python")
    started = []
    monkeypatch.setattr(tasks, "start", lambda *command: started.append(command) or 0)
    options, rest = tasks.parse(["train", "set", "out", *arguments.split(), "--base", "sd.ckpt"])
    assert options.task(options, rest) == 0
    assert started == [("python", "capface.training.train", ["set", "out", "--base", "sd.ckpt"], launcher.split())]


def test_several_machines_need_an_address(tasks):
    options, rest = tasks.parse(["train", "set", "out", "--machines", "2"])
    with pytest.raises(tasks.TaskError, match="--first-machine HOST:PORT"):
        options.task(options, rest)
