"""Imports run one way, and importing the pack imports nothing heavy or optional."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from capface.tests.conftest import ROOT

ORDER = ("nodes", "host", "iphc", "experiments", "training", "photos", "miniature", "models", "flame", "files")
"""The rooms from the top down: each may import itself and those after it, with the exceptions below."""
APART = {
    ("host", "training"),
    ("nodes", "training"),
    ("host", "experiments"),
    ("nodes", "experiments"),
    ("host", "iphc"),
    ("nodes", "iphc"),
    ("iphc", "experiments"),
    ("models", "flame"),
    ("photos", "miniature"),
}
"""Pairs of which neither imports the other."""
LAYERS = {"": {"nodes"}} | {
    part: {other for other in ORDER[ORDER.index(part) :] if not {(part, other), (other, part)} & APART} for part in ORDER
}
LAYERS["iphc"].add("tools")  # its workers are ComfyUI processes
"""The parts of the pack that each part may import; all may import `errors` and `shapes`."""
HOST = {
    "comfy",
    "comfy_api",
    "comfy_extras",
    "comfy_execution",
    "folder_paths",
    "nodes",
    "server",
    "execution",
    "latent_preview",
}
OPTIONAL = {"insightface", "onnxruntime", "facenet_pytorch", "open_clip", "pytorch3d", "kornia", "scipy", "chumpy", "cv2"}
OPTIONAL |= {"accelerate", "diffusers", "pyarrow", "ray", "tensorboard", "transformers", "webdataset"}


def imports(source, place):
    """`(module, relative, at load time)` of each import in a file at `place` (its folder, as a tuple)."""
    tree = ast.parse(source)
    inside = {n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    for block in ast.walk(tree):  # only type checkers import these
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
            inside |= {n for statement in block.body for n in ast.walk(statement)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], False, node not in inside
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                assert node.module is not None
                yield node.module.split(".")[0], False, node not in inside
            else:
                base = [*place[: len(place) - (node.level - 1)], *(node.module.split(".") if node.module else [])]
                for name in [base[0]] if base else [alias.name for alias in node.names]:
                    yield name, True, node not in inside


def complaints(source, place):
    """Return a message for each forbidden import in a file."""
    part = place[0] if place else ""
    found = []
    for module, relative, at_load in imports(source, place):
        if relative and module not in LAYERS[part] | {"errors", "shapes"}:
            found.append(f"{part or 'the top'} imports {module}")
        if not relative and module in {*ORDER, "capface"} - HOST:
            found.append(f"absolute import of {module}")
        if not relative and module in HOST and part not in ("nodes", "host"):
            found.append(f"{part or 'the top'} knows ComfyUI: {module}")
        if module in OPTIONAL and at_load:
            found.append(f"{module} is optional and must be imported where it is used")
    if "sys.path" in source:
        found.append("touches sys.path")
    return found


FILES = [p for part in LAYERS for p in (ROOT.glob("__init__.py") if not part else (ROOT / part).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows(path):
    place = path.relative_to(ROOT).parent.parts
    assert complaints(path.read_text(encoding="utf-8"), place) == []


@pytest.mark.parametrize(
    ("source", "place", "complaint"),
    [
        ("from ..models.capface import CapFace", ("flame",), "flame imports models"),
        ("from ..flame import params", ("models",), "models imports flame"),
        ("from ...host import control", ("flame", "builtin"), "flame imports host"),
        ("from ..nodes import sockets", ("host",), "host imports nodes"),
        ("from ..training import loop", ("nodes",), "nodes imports training"),
        ("from ..experiments import miniature_tables", ("training",), "training imports experiments"),
        ("from ...host import control", ("training", "miniature"), "training imports host"),
        ("from ..iphc import ledger", ("training",), "training imports iphc"),
        ("from ..host import portrait_metrics", ("iphc",), "iphc imports host"),
        ("from ..tools.comfy import ComfyProcess", ("training",), "training imports tools"),
        ("from flame.params import HeadParams", ("nodes",), "absolute import of flame"),
        ("import comfy.utils", ("models",), "models knows ComfyUI: comfy"),
        ("import insightface", ("models",), "insightface is optional and must be imported where it is used"),
        (
            "if TYPE_CHECKING:\n    import accelerate\nelse:\n    import insightface",
            ("training",),
            "insightface is optional and must be imported where it is used",
        ),
        ("import sys\nsys.path.insert(0, '.')", ("host",), "touches sys.path"),
    ],
)
def test_the_guard_can_fail(source, place, complaint):
    assert complaints(source, place) == [complaint]


def test_loading_the_pack_imports_nothing():
    code = f"""
import importlib.util, sys
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("x", {str(ROOT / "__init__.py")!r}, submodule_search_locations=[{str(ROOT)!r}])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
print(sorted(set(sys.modules) - before))
"""
    out = subprocess.run([sys.executable, "-S", "-c", code], check=True, capture_output=True, text=True, cwd=Path.home()).stdout
    assert out.strip() == "[]"
