#!/usr/bin/env python3
"""Try, check, test, measure and train CapFace: `python tasks.py demo | check | test | bench | prepare | train | miniature`.

Needs Python 3.10 or newer and nothing else.

The first run makes an environment with everything that is needed in `.venvs` beside this file (about 6 GB, a few minutes);
later runs reuse it, and deleting `.venvs` undoes it.
"""

import argparse
import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from tools.comfy import ComfyError, find_host, host_version, is_host

ROOT = Path(__file__).resolve().parent
VENVS = ROOT / ".venvs"
OWN_HOST = VENVS / "ComfyUI"
NO_DEPENDENCIES = ("facenet-pytorch==2.6.0",)
"""Installed without what they ask for, since their version pins exclude any recent torch, numpy and Pillow."""
MARKER = "complete"
COMFYUI_SOURCE = "https://github.com/comfyanonymous/ComfyUI"
REACH_SECONDS = 20
START = time.monotonic()


class TaskError(Exception):
    """A step that failed, and what the user can do about it."""


def say(text):
    """Print one line with the seconds since the start."""
    print(f"[{time.monotonic() - START:5.0f} s] {text}", flush=True)


def executable(environment, name="python"):
    """Path of a program in a virtual environment."""
    return environment / ("Scripts" if os.name == "nt" else "bin") / (f"{name}.exe" if os.name == "nt" else name)


def requirement_files(host):
    """The requirement files that make up the environment."""
    files = [ROOT / "requirements.txt", ROOT / "training" / "requirements.txt", ROOT / "tests" / "requirements.txt"]
    return files + ([host / "requirements.txt"] if host else [])


def environment_name(files):
    """Name an environment after what is in it: Python's version and the requirement texts."""
    content = hashlib.sha256("\0".join([*NO_DEPENDENCIES, *(f.read_text(encoding="utf-8") for f in files)]).encode())
    return f"py{sys.version_info[0]}.{sys.version_info[1]}-{content.hexdigest()[:10]}"


def run_quietly(command, what, way_out):
    """Run an installer, showing one line for each package that it fetches, and all that it printed if it fails.

    Raises:
        TaskError: The command failed.
    """
    process = subprocess.Popen(
        [str(c) for c in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    done = threading.Event()
    last = [time.monotonic()]

    def heartbeat():
        while not done.wait(5):
            if time.monotonic() - last[0] > 20:
                last[0] = time.monotonic()
                say(f"  still at it: {what}")

    threading.Thread(target=heartbeat, daemon=True).start()
    output = []
    try:
        for line in process.stdout:
            output.append(line)
            step = re.match(r"\s*(Downloading|Building wheel for|Installing collected packages|Cloning)\b.*", line)
            if step and time.monotonic() - last[0] > 2:
                last[0] = time.monotonic()
                say("  " + line.strip()[:100])
        status = process.wait()
    finally:
        done.set()
        if process.poll() is None:
            process.kill()
        process.stdout.close()
    if status:
        raise TaskError(f"{''.join(output)}\n{what} failed (status {status}): see above.\n{way_out}")


def install(python, *arguments, what):
    """Run pip of an environment."""
    command = [python, "-m", "pip", "install", "--progress-bar", "off", "--disable-pip-version-check", *arguments]
    way_out = (
        "No connection: check the network and pip's settings (`pip config list`), then run the same command again; it goes on\n"
        "with a new environment. No matching version: use Python 3.10 to 3.13. No space: about 8 GB are needed.\n"
        "Or make an environment yourself and name it: CAPFACE_VENV=/path/to/venv"
    )
    run_quietly(command, what, way_out)


def make_venv(folder):
    """Make an empty virtual environment, replacing a half-made one; returns its Python."""
    if folder.exists():
        say(f"removing {folder.name}, which was not finished")
        shutil.rmtree(folder)
    way_out = "On Debian and Ubuntu `sudo apt install python3-venv` brings what is missing."
    run_quietly([sys.executable, "-m", "venv", folder], "python -m venv", way_out)
    return executable(folder)


def environment(host, reuse=None):
    """Return the Python with everything in it, making its environment first where there is none.

    Args:
        host: The ComfyUI whose requirements belong in, or None.
        reuse: An existing environment to use as it is.
    """
    if reuse:
        python = executable(Path(reuse).expanduser().absolute())
        if not python.is_file():
            raise TaskError(f"CAPFACE_VENV (or --venv) names {reuse}, but there is no virtual environment in it.")
        say(f"using the environment {reuse} as it is")
        return python
    files = requirement_files(host)
    folder = VENVS / environment_name(files)
    if (folder / MARKER).is_file():
        return executable(folder)
    say(f"making the environment {folder.relative_to(ROOT)} (once; about 6 GB, a few minutes)")
    python = make_venv(folder)
    say("installing requirements.txt, those of training and tests" + (" and ComfyUI's own" if host else ""))
    install(python, *(a for f in files for a in ("-r", f)), what="pip install")
    for package in NO_DEPENDENCIES:
        say(f"installing {package}")
        install(python, "--no-deps", package, what=f"pip install {package}")
    (folder / MARKER).write_text("everything is installed\n", encoding="utf-8")
    say("the environment is ready")
    return python


def reachable(url):
    """Whether a web address answers within REACH_SECONDS, name lookup included."""
    answer = []

    def ask():
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=REACH_SECONDS):
            answer.append(url)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    return bool(answer)


def install_host():
    """Get a ComfyUI through comfy-cli, into a folder of its own; returns the folder, or None with the reason said."""
    say(f"no ComfyUI found; asking {COMFYUI_SOURCE} for one")
    if not reachable(COMFYUI_SOURCE):
        say("it cannot be reached from here; going on without")
        return None
    try:
        cli = VENVS / "comfy-cli"
        if not (cli / MARKER).is_file():
            python = make_venv(cli)
            say("installing comfy-cli")
            install(python, "comfy-cli", what="pip install comfy-cli")
            (cli / MARKER).write_text("everything is installed\n", encoding="utf-8")
        say(f"installing ComfyUI into {OWN_HOST.relative_to(ROOT)}")
        if OWN_HOST.exists():
            shutil.rmtree(OWN_HOST)
        # the sources alone: their requirements go into this project's own environment
        command = [executable(cli, "comfy"), "--skip-prompt", "--workspace", OWN_HOST, "install", "--version", "latest",
                   "--cpu", "--skip-manager", "--skip-torch-or-directml", "--skip-requirement"]  # fmt: skip
        run_quietly(command, "comfy install", "Install ComfyUI yourself and add --comfyui PATH.")
        return find_host(OWN_HOST)
    except (TaskError, ComfyError) as e:
        say(f"ComfyUI could not be installed; going on without.\n{e}")
        return None


def known_host(options):
    """Return the ComfyUI that was named or is found, else the one that the demo has installed, else None."""
    return find_host(options.comfyui) or (OWN_HOST if is_host(OWN_HOST) else None)


def say_host(host, without):
    """Say which ComfyUI is used, or what it means that there is none."""
    say(f"ComfyUI {host_version(host)}: {host}" if host else f"no ComfyUI: {without} (name one with --comfyui PATH)")


def start(python, script, arguments, launcher=()):
    """Run one of the project's scripts or modules, with the pack importable as `capface`; returns its exit status."""
    environ = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONUTF8="1")
    return subprocess.call([str(python), *launcher, str(ROOT / "tools" / "run.py"), str(script), *arguments], env=environ)


def demo(options, rest):
    """Make the contact sheet and, in a ComfyUI, the portrait."""
    photo = []
    if options.photo:
        path = Path(options.photo).expanduser().resolve()
        if not path.is_file():
            raise TaskError(f"There is no photo {path}. Without an argument the demo takes scikit-image's astronaut.")
        photo = [str(path)]
    host = known_host(options) or install_host()
    say_host(host, "there will be no portrait")
    python = environment(host, options.venv)
    arguments = [*photo, "--out", str(Path(options.out).expanduser().resolve())]
    return start(python, ROOT / "tools" / "demo.py", [*arguments, *(["--comfyui", str(host)] if host else [])])


def check(options, rest):
    """Report which files and packages are there, and what works with them."""
    host = known_host(options)
    say_host(host, "its folders cannot be searched")
    python = environment(host, options.venv)
    arguments = ["--comfyui", str(host)] if host else []
    return start(python, ROOT / "tools" / "check.py", [*arguments, *(["--checksums"] if options.checksums else [])])


def test(options, rest):
    """Run ruff and every test."""
    host = known_host(options)
    say_host(host, "the tests that need one are skipped")
    python = environment(host, options.venv)
    environ = dict(os.environ, PYTHONUTF8="1", **({"COMFYUI_PATH": str(host)} if host else {}))
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait cost tenfold on a busy machine
    environ.setdefault("OMP_NUM_THREADS", "1")
    runs = [("ruff", ["check", "--extend-exclude", ".venvs", "."])]
    if rest:
        runs.append(("pytest", ["-ra", *rest]))
    else:  # what moves a mouse is on its own, everything else side by side
        together = ["--ignore=tests/browser", "--numprocesses=2", "--dist=loadfile"]
        runs += [("pytest", ["-ra", "--durations=8", *more]) for more in (together, ["tests/browser"])]
    failed = []
    for what, arguments in runs:
        say(f"running {what} {' '.join(arguments)}")
        if subprocess.call([str(executable(python.parent.parent, what)), *arguments], cwd=ROOT, env=environ):
            failed.append(what)
    say(f"failed: {' and '.join(failed)}, see above" if failed else "all passed")
    return bool(failed)


def bench(options, rest):
    """Run the measurements in benchmarks/, each a script of its own."""
    host = known_host(options)
    say_host(host, "what runs inside one is left out")
    if host:
        os.environ["COMFYUI_PATH"] = str(host)
    python = environment(host, options.venv)
    scripts = sorted((ROOT / "benchmarks").glob("[!_]*.py"))
    if rest:
        scripts = [s for s in scripts if s.stem == rest[0]] or [None]
        if scripts == [None]:
            raise TaskError(f"There is no benchmarks/{rest[0]}.py.")
    worst = 0
    for script in scripts:
        say(f"benchmarks/{script.name}")
        worst = max(worst, start(python, script, rest[1:]))
    return worst


def prepare(options, rest):
    """Make a training set of photos."""
    return start(environment(known_host(options), options.venv), "capface.training.prepare", rest)


def _together(processes):
    """Arguments for Python that start a module in several processes of this machine."""
    return ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]


def train(options, rest):
    """Train on a training set, in one process or in several, on one machine or on several."""
    launcher = _together(options.processes) if options.processes > 1 else []
    if options.machines > 1:
        if not options.first_machine:
            raise TaskError("Several machines need --first-machine HOST:PORT, an address of the first that all can reach.")
        host, _, port = options.first_machine.rpartition(":")
        launcher = [*_together(options.processes)[:-1], "--nnodes", str(options.machines), "--node-rank", str(options.machine)]
        launcher += ["--master-addr", host, "--master-port", port]
    return start(environment(known_host(options), options.venv), "capface.training.train", rest, launcher)


def miniature(options, rest):
    """Train the miniature on synthetic people."""
    launcher = _together(options.processes) if options.processes > 1 else []
    return start(environment(known_host(options), options.venv), "capface.training.miniature.make", rest, launcher)


def parse(arguments):
    """Read the command line; returns the options and, for pytest, the benchmarks and training, what they get."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--comfyui",
        metavar="PATH",
        help="folder of the ComfyUI to use; else COMFYUI_PATH, the one this pack lies in, or ~/comfy/ComfyUI",
    )
    common.add_argument(
        "--venv",
        metavar="PATH",
        default=os.environ.get("CAPFACE_VENV"),
        help="existing virtual environment to use as it is (also: CAPFACE_VENV) instead of one made in .venvs",
    )
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo | check | test | bench | …")
    p = commands.add_parser("demo", parents=[common], help="a synthetic person, a photo's head and, in ComfyUI, a portrait")
    p.add_argument("photo", nargs="?", help="a photo with a face (default: the astronaut of scikit-image)")
    p.add_argument("--out", default=str(ROOT / "output"), metavar="FOLDER", help="where the pictures go (default: output)")
    p.set_defaults(task=demo)
    p = commands.add_parser("check", parents=[common], help="which files and packages are there, and what therefore works")
    p.add_argument("--checksums", action="store_true", help="compare the files' MD5 with the published ones")
    p.set_defaults(task=check)
    p = commands.add_parser("test", parents=[common], help="run everything; more arguments go to pytest: tests/flame -k jaw")
    p.set_defaults(task=test)
    p = commands.add_parser("bench", parents=[common], help="measure; with the name of one benchmark, that one alone")
    p.set_defaults(task=bench)
    # their own arguments, --help included, are read by the modules that they start
    p = commands.add_parser("prepare", parents=[common], add_help=False, help="a folder of photos in, a training set out")
    p.set_defaults(task=prepare)
    p = commands.add_parser("train", parents=[common], add_help=False, help="a training set in, a CapFace out")
    p.add_argument("--processes", type=int, default=1, help="processes on this machine, one for each GPU")
    p.add_argument("--machines", type=int, default=1, help="machines that train together")
    p.add_argument("--machine", type=int, default=0, help="number of this one, from 0")
    p.add_argument("--first-machine", metavar="HOST:PORT", help="where the others find the first one")
    p.set_defaults(task=train)
    p = commands.add_parser("miniature", parents=[common], add_help=False, help="train the miniature on synthetic people")
    p.add_argument("--processes", type=int, default=1, help="processes on this machine")
    p.set_defaults(task=miniature)
    options, rest = parser.parse_known_args(arguments)
    if options.task in (demo, check) and rest:
        parser.error(f"{options.command} does not know {' '.join(rest)}")
    return options, rest


def main():
    """Run one command; returns the exit status."""
    if sys.version_info < (3, 10):  # noqa: UP036  the message is for whoever starts it with an older one
        print(f"CapFace needs Python 3.10 or newer; this is {platform.python_version()} ({sys.executable}).")
        return 2
    options, rest = parse(sys.argv[1:])
    try:
        return int(options.task(options, rest))
    except (TaskError, ComfyError) as e:
        print(f"\n{e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
