"""What the registry gets: its metadata is complete and true, and nothing in it runs code or installs packages."""

import ast

import pytest

from capface.tests.conftest import ROOT
from capface.tools.publish import filled

RUNS = {"eval", "exec", "compile", "__import__"}
MODULES = {"subprocess", "pip", "ensurepip", "runpy", "code", "multiprocessing"}
CALLS = {"system", "popen", "spawnl", "spawnv", "execv", "execl", "execve", "startfile"}


def ignored():
    """Paths from the top that are not published."""
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    return [line.strip("/") for line in lines if line and not line.startswith("#")]


def published():
    """The Python files that are published."""
    left_out = {*ignored(), ".venvs", ".git", "ComfyUI"}
    tops = [top for top in sorted(ROOT.iterdir()) if top.name not in left_out]
    return [path for top in tops for path in (sorted(top.rglob("*.py")) if top.is_dir() else [top]) if path.suffix == ".py"]


def dangers(source):
    """Find everything in a source that runs code, starts a process or installs something."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module and node.module.split(".")[0] in MODULES:
            yield node.module
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in RUNS:
                yield node.func.id
            elif isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "os" and node.func.attr in CALLS:
                yield f"os.{node.func.attr}"


def test_only_the_pack_is_published():
    names = {path.relative_to(ROOT).parts[0] for path in published()}
    assert names == {
        "__init__.py",
        "errors.py",
        "shapes.py",
        "files",
        "flame",
        "host",
        "miniature",
        "models",
        "nodes",
        "photos",
    }
    assert {"tests", "tools", "benchmarks", "tasks.py", ".github"} <= set(ignored())


@pytest.mark.parametrize("path", published(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_published_files_neither_run_code_nor_install(path):
    assert list(dangers(path.read_text(encoding="utf-8"))) == []


def test_dangers_are_found():
    source = "import subprocess\nfrom pip import main\neval('1')\nos.system('ls')\nnet.eval()\nre.compile('a')\nexec('')"
    assert sorted(dangers(source)) == ["eval", "exec", "os.system", "pip", "subprocess"]


@pytest.fixture
def project():
    tomllib = pytest.importorskip("tomllib")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_dependencies_are_the_required_packages(project):
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert project["project"]["dependencies"] == [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def test_the_metadata_has_the_fields_that_the_registry_requires(project):
    about, comfy = project["project"], project["tool"]["comfy"]
    assert "comfyui" not in about["name"].lower() and about["description"] and len(about["version"].split(".")) == 3
    assert (ROOT / about["license"]["file"]).is_file()
    assert comfy["DisplayName"] and comfy["requires-comfyui"].startswith(">=")
    assert comfy["requires-comfyui"].removeprefix(">=") in (ROOT / "README.md").read_text(encoding="utf-8")
    assert all((ROOT / path).exists() for path in comfy["includes"])


def test_publishing_fills_in_the_address_and_the_publisher():
    tomllib = pytest.importorskip("tomllib")
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = tomllib.loads(text)["project"]["version"]
    done = tomllib.loads(filled(text, f"v{version}", "https://host.example", "somebody/pack", "publisher"))
    assert done["project"]["urls"]["Repository"] == "https://host.example/somebody/pack"
    assert done["tool"]["comfy"]["PublisherId"] == "publisher"
    for key in ("Icon", "Banner"):
        assert (ROOT / done["tool"]["comfy"][key].partition(f"/raw/v{version}/")[2]).is_file()
    with pytest.raises(SystemExit, match=r"v9\.9\.9"):
        filled(text, "v9.9.9", "https://host.example", "somebody/pack", "publisher")
    with pytest.raises(SystemExit, match="PUBLISHER_ID"):
        filled(text, f"v{version}", "https://host.example", "somebody/pack", "")


def test_comfyui_finds_the_workflows():
    """ComfyUI serves only the first of these folders as the pack's templates."""
    folders = ("example_workflows", "example", "examples", "workflow", "workflows")
    assert [name for name in folders if (ROOT / name).exists()] == ["workflows"]
