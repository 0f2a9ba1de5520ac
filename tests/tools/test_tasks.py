"""`tasks.py`, and its search for a ComfyUI."""

import importlib
import os
import re
import subprocess
import sys

import pytest

from capface.tools import suites
from capface.tools.comfy import PACK, ComfyError, find_host, host_version


@pytest.fixture
def tasks(monkeypatch):
    """The module `tasks`, imported as when it is started."""
    monkeypatch.syspath_prepend(str(PACK))
    module = importlib.import_module("tasks")
    yield module
    for name in [n for n in sys.modules if n == "tasks" or n.partition(".")[0] == "tools"]:
        del sys.modules[name]


def make_host(folder, version="0.8.0", requirements=""):
    """Create a folder that looks like ComfyUI's sources."""
    folder.mkdir(parents=True)
    for name in ("main.py", "folder_paths.py"):
        (folder / name).touch()
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    (folder / "requirements.txt").write_text(requirements)
    return folder.resolve()


def test_help_needs_only_the_standard_library():
    shown = subprocess.run([sys.executable, "-I", "-S", "-c", HELP], capture_output=True, text=True, check=True).stdout
    assert all(command in shown for command in ("demo", "check", "test", "lint", "bench", "prepare", "train"))


HELP = f"""
import runpy, sys
sys.path.insert(0, {str(PACK)!r})
sys.argv = ["tasks.py", "--help"]
runpy.run_path({str(PACK / "tasks.py")!r}, run_name="__main__")
"""


def test_an_environment_is_named_by_its_requirements(tasks, tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("numpy\n")
    name = tasks.environment_name([file])
    assert name == tasks.environment_name([file])
    file.write_text("numpy\nscipy\n")
    assert name != tasks.environment_name([file])


def test_an_incomplete_environment_is_replaced_and_a_complete_one_is_kept(tasks, tmp_path, monkeypatch):
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
        tasks.environment([None])
    tasks.environment([None])
    tasks.environment([None])
    assert len(made) == 2


def test_one_environment_serves_several_hosts_and_each_of_them_alone(tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "ROOT", tmp_path)
    monkeypatch.setattr(tasks, "VENVS", tmp_path / ".venvs")
    for file in tasks.requirement_files(None):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    installed = []
    monkeypatch.setattr(tasks, "run_quietly", lambda command, what, way_out: command[-1].mkdir(parents=True))
    monkeypatch.setattr(tasks, "install", lambda python, *arguments, what: installed.append(arguments))
    new = make_host(tmp_path / "new", "0.33.0", "torch\ncomfy_kitchen==0.2.31\n# once: gone\nav>=16\n")
    old = make_host(tmp_path / "old", "0.3.64", "torch\nComfy-Kitchen>=0.1\nav>=14\n")
    other = make_host(tmp_path / "other", "0.3.0", "av\ngone>=2  # by now\n")
    python = tasks.environment([new, old])
    assert str(new / "requirements.txt") in map(str, installed[0]) and str(old / "requirements.txt") not in map(
        str, installed[0]
    )
    assert installed[-1] == ("--no-deps", "-e", tmp_path)
    monkeypatch.setattr(tasks, "imports_this_checkout", lambda python: True)
    made = len(installed)
    assert [tasks.environment([new]), tasks.environment([old])] == [python, python] and len(installed) == made
    assert tasks.environment([new, other]) != python
    assert installed[made][-1] == "gone>=2"


def test_a_frontend_is_downloaded_if_the_environment_has_another(tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "VENVS", tmp_path)
    host = make_host(tmp_path / "host", requirements="comfyui-frontend-package==1.35.9\ncomfyui-workflow-templates==0.7.67\n")
    assert tasks.pinned_frontend(host) == "1.35.9"
    python = tasks.executable(tmp_path / "env")
    assert tasks.installed_frontend(python) is None
    (tmp_path / "env" / "lib" / "python3.12" / "site-packages" / "comfyui_frontend_package-1.49.6.dist-info").mkdir(
        parents=True
    )
    assert tasks.installed_frontend(python) == "1.49.6"

    def install(python, *arguments, what):
        assert arguments[0] == "--no-deps" and arguments[-1] == "comfyui-frontend-package==1.35.9"
        (tmp_path / arguments[arguments.index("--target") + 1] / "comfyui_frontend_package" / "static").mkdir(parents=True)

    monkeypatch.setattr(tasks, "install", install)
    folder = tasks.frontend_folder(python, "1.35.9")
    assert folder.is_dir() and folder.parts[-3:] == ("1.35.9", "comfyui_frontend_package", "static")
    monkeypatch.setattr(tasks, "install", lambda *a, **k: pytest.fail("it is there"))
    assert tasks.frontend_folder(python, "1.35.9") == folder


def test_hosts_are_tested_newest_first_without_duplicates(tasks, tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    monkeypatch.setattr(tasks, "OWN_HOST", tmp_path / "none")
    for name in ("COMFYUI_PATH", "COMFYUI_PATHS", "PWD"):
        monkeypatch.delenv(name, raising=False)

    def found(line):
        return tasks.hosts_to_test(tasks.parse(["test", *line.split()])[0])

    assert found("--all-hosts") == found("") == []
    usual = make_host(tmp_path / "comfy" / "ComfyUI", "0.8.0")
    old, new = (make_host(tmp_path / "comfy" / f"ComfyUI-{version}", version) for version in ("0.3.64", "0.33.0"))
    assert found("") == [usual]
    assert found("--all-hosts") == [new, usual, old]
    assert found(f"--comfyui {old} --comfyui {new} --comfyui {old}") == [new, old]
    elsewhere = make_host(tmp_path / "elsewhere", "0.9.0")
    monkeypatch.setenv("COMFYUI_PATHS", str(elsewhere))
    assert found("--all-hosts") == [elsewhere]
    monkeypatch.setenv("COMFYUI_PATHS", str(tmp_path))
    with pytest.raises(tasks.TaskError, match="COMFYUI_PATHS names"):
        found("--all-hosts")


def test_pytest_arguments_are_not_parsed_as_abbreviations(tasks):
    options, rest = tasks.parse(["test", "--co", "tests/flame", "-k", "jaw", "--front", "--all"])
    assert rest == ["--co", "tests/flame", "-k", "jaw", "--front", "--all"]
    assert (options.comfyui, options.frontend, options.all_hosts) == ([], [], False)


@pytest.fixture
def dry(tasks, monkeypatch, tmp_path):
    """Run `test` without pytest, and return what it would have run, as (group, host, requested frontend, arguments)."""
    monkeypatch.setattr(tasks, "environment", lambda hosts, reuse: tmp_path / "env" / "bin" / "python")
    monkeypatch.setattr(tasks, "installed_frontend", lambda python: "1.49.6")
    monkeypatch.setattr(tasks, "newest_frontend", lambda python: "1.99.0")
    monkeypatch.setattr(tasks, "frontend_folder", lambda python, version: version)
    monkeypatch.setattr(tasks.subprocess, "call", lambda *a, **k: 0)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    ran = []

    def run(python, arguments, environ, result):
        ran.append((result.group, environ.get("COMFYUI_PATH"), environ.get("CAPFACE_FRONTEND"), arguments))
        return result

    monkeypatch.setattr(tasks, "run_pytest", run)

    def start(*line):
        ran.clear()
        options, rest = tasks.parse(["test", *line])
        assert options.task(options, rest) == 0
        return list(ran)

    return start


def test_each_host_is_tested_with_its_own_frontend(dry, tmp_path):
    new = make_host(tmp_path / "new", "0.33.0", "comfyui-frontend-package==1.49.6\n")
    old = make_host(tmp_path / "old", "0.8.0", "comfyui-frontend-package==1.35.9\n")
    both = ["--comfyui", str(old), "--comfyui", str(new)]
    ran = dry(*both)
    groups = list(suites.host_groups())
    assert [r[:3] for r in ran] == [
        ("no host", None, None),
        *((group, str(new), None) for group in groups),
        *((group, str(old), "1.35.9") for group in groups),
    ]
    brief = dry(*both, "--brief")
    assert [r[:3] for r in brief] == [r[:3] for r in ran]
    newest = dict(zip(groups, (r[3] for r in brief[1:]), strict=False))
    assert newest == {**suites.host_groups(), "browser": suites.host_groups(brief=True)["browser"]}
    assert [r[3] for r in brief[len(groups) + 1 :]] == list(suites.host_groups(brief=True).values())
    asked = dry(*both, "--frontend", "newest", "--frontend", "1.58.1")
    assert [r[2] for r in asked if r[0] == "browser"] == ["1.99.0", "1.58.1"] * 2
    assert [r[2] for r in asked if r[0] == "host"] == [None, "1.35.9"]
    assert dry(*both, "tests/browser", "-x", "--frontend", "1.58.1") == [
        ("as asked", str(host), "1.58.1", ["tests/browser", "-x"]) for host in (new, old)
    ]


def test_without_a_host_everything_is_run_and_skips_itself(dry, tasks, monkeypatch):
    monkeypatch.setattr(tasks, "hosts_to_test", lambda options: [])
    assert [r[:3] for r in dry("--all-hosts", "--brief")] == [
        ("no host", None, None),
        *((g, None, None) for g in suites.host_groups()),
    ]


def test_the_tests_of_brief_runs_exist():
    for name in [name for names in suites.DIFFERS.values() for name in names if name.startswith("tests/")]:
        file, _, function = name.partition("::")
        assert file == "tests/neighbours" or (PACK / file).is_file(), name
        assert not function or f"def {function}(" in (PACK / file).read_text(encoding="utf-8"), name


def test_results_are_counted_and_shown(tmp_path):
    file = tmp_path / "test_outcomes.py"
    file.write_text(OUTCOMES)
    result = suites.run_pytest(sys.executable, ["-q", str(file)], dict(os.environ), suites.Result("host", "0.8.0", "1.35.9"))
    assert (result.passed, result.failed, result.errors, result.skipped, result.ok) == (2, 1, 1, 2, False)
    died = suites.run_pytest(sys.executable, [str(tmp_path / "nothing")], dict(os.environ), suites.Result("browser"))
    assert not died.ok and died.passed == 0
    lines = suites.table([result, died, suites.Result("ruff", passed=1)]).splitlines()
    assert len(lines) == 5 and len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2][:7] == ["0.8.0", "1.35.9", "host", "2", "1", "1", "2"]
    assert [row[-1] for row in cells[2:]] == ["FAILED", "FAILED", ""]


OUTCOMES = """
import pytest
@pytest.fixture
def broken():
    raise ValueError
def test_passes(): pass
def test_warns(capsys): print("a line")
def test_fails(): assert False
def test_errs(broken): pass
@pytest.mark.skip(reason="so")
def test_skips(): pass
@pytest.mark.xfail
def test_is_known(): assert False
"""


def test_the_output_of_a_failed_installer_is_shown_with_a_remedy(tasks):
    script = "print('a clear cause'); raise SystemExit(3)"
    with pytest.raises(tasks.TaskError, match=r"(?s)a clear cause.*status 3.*do this"):
        tasks.run_quietly([sys.executable, "-c", script], "pip install", "do this")


def test_a_host_is_found_by_name_or_in_the_usual_places(tmp_path, monkeypatch):
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


def test_a_named_folder_must_contain_a_host(tmp_path):
    with pytest.raises(ComfyError, match=r"--comfyui names .*main\.py"):
        find_host(tmp_path)


@pytest.mark.parametrize("hosted", [True, False])
def test_check_starts_its_tool_with_the_host_and_the_checksum_option(tasks, tmp_path, monkeypatch, hosted):
    host = make_host(tmp_path / "ComfyUI") if hosted else None
    monkeypatch.setattr(tasks, "known_host", lambda options: host)
    monkeypatch.setattr(tasks, "environment", lambda hosts, reuse: "python")
    started = []
    monkeypatch.setattr(tasks, "start", lambda *command: started.append(command) or 0)
    options, rest = tasks.parse(["check", "--checksums"])
    assert options.task(options, rest) == 0
    arguments = ["--comfyui", str(host)] if hosted else []
    assert started == [("python", "capface.tools.check_files", [*arguments, "--checksums"])]
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
    monkeypatch.setattr(tasks, "environment", lambda hosts, reuse: "python")
    started = []
    monkeypatch.setattr(tasks, "start", lambda *command: started.append(command) or 0)
    options, rest = tasks.parse(["train", "set", "out", *arguments.split(), "--base", "sd.ckpt"])
    assert options.task(options, rest) == 0
    assert started == [("python", "capface.training.train", ["set", "out", "--base", "sd.ckpt"], launcher.split())]


def test_several_machines_need_an_address(tasks):
    options, rest = tasks.parse(["train", "set", "out", "--machines", "2"])
    with pytest.raises(tasks.TaskError, match="--first-machine HOST:PORT"):
        options.task(options, rest)


def test_one_version_of_the_linter_everywhere():
    found = re.search(r"^ruff==(\S+)$", (PACK / "tests" / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    wanted = found[1]
    assert f"\nruff=={wanted}\n" in (PACK / "tools" / "checkers.txt").read_text(encoding="utf-8")
    assert f"rev: v{wanted}\n" in (PACK / ".pre-commit-config.yaml").read_text(encoding="utf-8")
