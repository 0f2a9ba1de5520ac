"""The checkers of others, run on a copy of the pack: comfy-cli's `node validate`, comfy-lint and comfy-test.

They lie in an environment of their own (checkers.txt). What reads sources alone is `check_sources`. What needs a ComfyUI is
this file as a script, in the project's environment: one with stand-ins for all weights is started, and the checkers see it.

Needs the standard library only, up to that.
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
    """A copy of the pack in `custom_nodes` of a ComfyUI made of links to `host`'s files; it goes at the end."""
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
    """The pack in a folder named capface, where the type checker resolves `import capface`: the checkout itself, or a copy."""
    with contextlib.nullcontext(PACK) if PACK.name == FOLDER else copied_pack() as folder:
        yield folder


def run(name, command, folder, **environ):
    """Run one checker in `folder`, its output as it comes; returns whether it found nothing."""
    print(f"\n{name}", flush=True)
    ok = subprocess.call([str(c) for c in command], cwd=folder, env=dict(os.environ, PYTHONUTF8="1", **environ)) == 0
    print(f"{name}: {'nothing found' if ok else 'FOUND something, see above'}", flush=True)
    return ok


def check_sources(programs):
    """Run what reads the sources alone; `programs` is the folder with the checkers' programs. Returns whether all is well."""
    with copied_pack() as copy:
        found = [
            run("comfy-test lint", [programs / "comfy-test", "lint", "--strict", "."], copy),
            run(
                "comfy node validate", [programs / "comfy", "--skip-prompt", "--no-enable-telemetry", "node", "validate"], copy
            ),
        ]
    return all(found)


def without_unions(schema):
    """A host's description of its nodes with inputs of several types ("IMAGE,MASK"), unknown to comfy-lint, taking any."""
    for node in schema.values():
        for inputs in node.get("input", {}).values():
            for spec in inputs.values():
                if isinstance(spec, list) and isinstance(spec[0], str) and "," in spec[0]:
                    spec[0] = "*"
    return schema


def check_in_host(comfyui, programs, packages):
    """Run what needs a ComfyUI; `packages` is the folder with the checkers' packages. Returns whether all is well."""
    from capface.tools.beside import NEEDS
    from capface.tools.comfy import ComfyProcess, model_folders, request
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
        # those that need a pack of others are left out: it is not here, so its nodes would be unknown
        workflows = sorted(path for path in found if path.stem not in NEEDS)
        lint = [programs / "comfy-lint", "--strict", "--schema-cache", schema, *workflows]
        # It imports the pack: that needs this environment, with its own packages added.
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
