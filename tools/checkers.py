"""Third-party checkers, run on a copy of the pack: comfy-cli's `node validate`, comfy-lint and comfy-test.

They are installed in a separate environment (checkers.txt). `check_sources` runs the checkers that only read sources. The
others need a ComfyUI: run as a script in the project's environment, this file starts one with stand-ins for all weights, and
runs them on it.

Until then it needs only the standard library.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACK = Path(__file__).resolve().parent.parent
NOT_COPIED = (".git", ".venvs", "output", "__pycache__", ".pytest_cache", ".ruff_cache")
FOLDER = "capface"


@contextlib.contextmanager
def copied_pack(host=None):
    """Copy the pack into `custom_nodes` of a temporary ComfyUI made of links to `host`'s files; a context manager."""
    with tempfile.TemporaryDirectory(prefix="capface-checkers-", ignore_cleanup_errors=True) as folder:
        comfyui = Path(folder).resolve() / "ComfyUI"
        copy = comfyui / "custom_nodes" / FOLDER
        shutil.copytree(PACK, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
        for entry in host.iterdir() if host else ():
            if entry.name not in ("custom_nodes", ".git"):
                (comfyui / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
        yield copy


@contextlib.contextmanager
def importable_pack():
    """Provide the pack in a folder named capface, the checkout or a copy: there the type checker resolves `import capface`."""
    with contextlib.nullcontext(PACK) if PACK.name == FOLDER else copied_pack() as folder:
        yield folder


def run(name, command, folder, **environ):
    """Run one checker in `folder`, passing its output through. Returns True if it found no problem."""
    print(f"\n{name}", flush=True)
    ok = subprocess.call([str(c) for c in command], cwd=folder, env=dict(os.environ, PYTHONUTF8="1", **environ)) == 0
    print(f"{name}: {'nothing found' if ok else 'FOUND something, see above'}", flush=True)
    return ok


def check_sources(programs):
    """Run the checkers that only read sources.

    Args:
        programs: The folder with the checkers' executables.

    Returns:
        True if no checker found a problem.
    """
    with copied_pack() as copy:
        found = [
            run("comfy-test lint", [programs / "comfy-test", "lint", "--strict", "."], copy),
            run(
                "comfy node validate", [programs / "comfy", "--skip-prompt", "--no-enable-telemetry", "node", "validate"], copy
            ),
        ]
    return all(found)


def without_unions(schema):
    """Replace inputs of several types ("IMAGE,MASK"), which comfy-lint does not know, by "*" in a host's node descriptions."""
    for node in schema.values():
        for inputs in node.get("input", {}).values():
            for spec in inputs.values():
                if isinstance(spec, list) and isinstance(spec[0], str) and "," in spec[0]:
                    spec[0] = "*"
    return schema


def check_in_host(comfyui, programs, packages):
    """Run the checkers that need a ComfyUI.

    Args:
        comfyui: The ComfyUI's folder.
        programs: The folder with the checkers' executables.
        packages: The folder with the checkers' packages.

    Returns:
        True if no checker found a problem.
    """
    from capface.tools.comfy import ComfyProcess, model_folders, request
    from capface.tools.other_packs import NEEDS
    from capface.tools.standins import make_standins, write_inputs

    models = model_folders(make_standins())
    with copied_pack(comfyui) as copy, ComfyProcess(comfyui, models, pack=copy, folder=FOLDER) as process:
        write_inputs(process.base / "input")
        schema = process.base / "object_info.json"
        schema.write_text(json.dumps(without_unions(json.loads(request(f"{process.url}/object_info")))), encoding="utf-8")
        logs = process.base / "comfy-test"
        logs.mkdir()
        shutil.copy(process.log, logs / "server.log")
        found = (path.relative_to(copy) for path in (copy / "workflows" / "api").glob("*.json"))
        # workflows that need a third-party pack are left out: the pack is missing here, so its nodes would be unknown
        workflows = sorted(path for path in found if path.stem not in NEEDS)
        lint = [programs / "comfy-lint", "--strict", "--schema-cache", schema, *workflows]
        # This checker imports the pack, so it needs this environment with its own packages added.
        environ = {"PYTHONPATH": str(packages), "COMFY_TEST_LOGS_DIR": str(logs), "COMFY_TEST_WORKSPACE_DIR": str(logs)}
        test = [sys.executable, "-m", "comfy_test", "run", "--server-url", process.url]
        found = [run("comfy-lint", lint, copy), run("comfy-test run", test, copy, **environ)]
    return all(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("programs", type=Path)
    parser.add_argument("packages", type=Path)
    options = parser.parse_args()
    sys.exit(not check_in_host(options.comfyui, options.programs, options.packages))
