#!/usr/bin/env python3
"""Try, check, test and train CapFace: `python tasks.py demo | check | weights | test | lint | bench | soak | iphc | ...`.

Needs only Python 3.10 or newer.

The first run creates an environment with all requirements in `.venvs` beside this file (about 6 GB, a few minutes). Later runs
reuse it. Delete `.venvs` to remove it.
"""

import argparse
import contextlib
import functools
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from tools.checkers import check_sources, importable_pack
from tools.comfy import ComfyError, find_host, host_version, is_host
from tools.suites import NO_HOST, Result, host_groups, run_pytest, table

ROOT = Path(__file__).resolve().parent
VENVS = ROOT / ".venvs"
OWN_HOST = VENVS / "ComfyUI"
NO_DEPENDENCIES = ("facenet-pytorch==2.6.0",)
"""Installed without their dependencies, because their version pins exclude recent versions of torch, numpy and Pillow."""
MARKER = "complete"
COMFYUI_SOURCE = "https://github.com/comfyanonymous/ComfyUI"
REACH_SECONDS = 20
FRONTEND = "comfyui-frontend-package"
START = time.monotonic()


class TaskError(Exception):
    """A step failed. The message says what the user can do about it."""


def say(text):
    """Print one line with the seconds since the start."""
    print(f"[{time.monotonic() - START:5.0f} s] {text}", flush=True)


def executable(environment, name="python"):
    """Return the path of a program in a virtual environment."""
    return environment / ("Scripts" if os.name == "nt" else "bin") / (f"{name}.exe" if os.name == "nt" else name)


def requirement_files(host):
    """Return the requirements files of the environment."""
    files = [ROOT / "requirements.txt", *(ROOT / part / "requirements.txt" for part in ("training", "iphc", "tests"))]
    return files + ([host / "requirements.txt"] if host else [])


def package_name(line):
    """Return the normalized name of the package in a line of a requirements file, or None."""
    name = re.match(r"[A-Za-z0-9][\w.-]*", line.strip())
    return re.sub(r"[-_.]+", "-", name[0]).lower() if name else None


def only_in_older(hosts):
    """Return the requirements of the other ComfyUIs for packages that the first one does not require, as lines for pip."""
    lines, known = [], None
    for host in hosts:
        own = [line.partition(" #")[0].strip() for line in (host / "requirements.txt").read_text(encoding="utf-8").splitlines()]
        if known is not None:
            lines += [line for line in own if package_name(line) and package_name(line) not in known]
        known = (known or set()) | set(map(package_name, own))
    return lines


def environment_name(files, more=()):
    """Name an environment by Python's version and a hash of the requirements files and further requirements."""
    texts = [*NO_DEPENDENCIES, *(f.read_text(encoding="utf-8") for f in files), *more]
    content = hashlib.sha256("\0".join(texts).encode())
    return f"py{sys.version_info[0]}.{sys.version_info[1]}-{content.hexdigest()[:10]}"


def run_quietly(command, what, way_out):
    """Run an installer. Show one line per package that it downloads, and its whole output if it fails.

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
    assert process.stdout is not None
    done = threading.Event()
    last = [time.monotonic()]

    def heartbeat():
        while not done.wait(5):
            if time.monotonic() - last[0] > 20:
                last[0] = time.monotonic()
                say(f"  still running: {what}")

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
    """Run `pip install` in an environment."""
    command = [python, "-m", "pip", "install", "--progress-bar", "off", "--disable-pip-version-check", *arguments]
    way_out = (
        "No connection: check the network and pip's settings (`pip config list`), then run the same command again; it starts\n"
        "with a new environment. No matching version: use Python 3.10 to 3.13. No space: about 8 GB are needed.\n"
        "Or create an environment yourself and name it: CAPFACE_VENV=/path/to/venv"
    )
    run_quietly(command, what, way_out)


def make_venv(folder):
    """Create an empty virtual environment, replacing an incomplete one, and return its Python."""
    if folder.exists():
        say(f"removing the incomplete {folder.name}")
        shutil.rmtree(folder)
    way_out = "On Debian and Ubuntu, install the missing package: `sudo apt install python3-venv`."
    run_quietly([sys.executable, "-m", "venv", folder], "python -m venv", way_out)
    return executable(folder)


def environment(hosts, reuse=None):
    """Return the Python of the environment with all requirements, creating the environment if needed.

    One environment serves several ComfyUIs: it holds the requirements of the first one, and those that only others have. Later
    it also serves each of these ComfyUIs alone, which its marker records.

    Args:
        hosts: The ComfyUIs whose requirements to install, newest first. None entries are ignored.
        reuse: An existing environment to use unchanged.
    """
    if reuse:
        python = executable(Path(reuse).expanduser().absolute())
        if not python.is_file():
            raise TaskError(f"CAPFACE_VENV (or --venv) names {reuse}, but that is not a virtual environment.")
        say(f"using the environment {reuse} unchanged")
        return python
    hosts = [host for host in hosts if host]
    files, more = requirement_files(hosts[0] if hosts else None), only_in_older(hosts)
    folder = VENVS / environment_name(files, more)
    if not (folder / MARKER).is_file():
        serving = [m.parent for m in VENVS.glob(f"py*/{MARKER}") if folder.name in m.read_text(encoding="utf-8").split()]
        folder = (serving or [folder])[0]
    if not (folder / MARKER).is_file():
        say(f"making the environment {folder.relative_to(ROOT)} (once; about 6 GB, a few minutes)")
        python = make_venv(folder)
        say("installing requirements.txt and the requirements of training and tests" + (" and ComfyUI's own" if hosts else ""))
        install(python, *(a for f in files for a in ("-r", f)), *more, what="pip install")
        for package in NO_DEPENDENCIES:
            say(f"installing {package}")
            install(python, "--no-deps", package, what=f"pip install {package}")
        (folder / MARKER).write_text("everything is installed\n", encoding="utf-8")
        say("the environment is ready")
    marker = folder / MARKER
    known = marker.read_text(encoding="utf-8")
    served = {environment_name(requirement_files(host)) for host in hosts} - {folder.name, *known.split()}
    if served:
        marker.write_text(known + "".join(f"{name}\n" for name in sorted(served)), encoding="utf-8")
    if not imports_this_checkout(executable(folder)):
        say("making this checkout importable as capface")
        install(executable(folder), "--no-deps", "-e", ROOT, what="pip install -e .")
    # ComfyUI up to 0.3.64 serves this folder of the templates package, which later versions of the package lack.
    if (templates := site_packages(executable(folder)) / "comfyui_workflow_templates").is_dir():
        (templates / "templates").mkdir(exist_ok=True)
        if not (index := templates / "templates" / "index.json").exists():
            index.write_text("[]", encoding="utf-8")
    return executable(folder)


def imports_this_checkout(python):
    """Return whether `import capface` in an environment finds this checkout, as recorded there by `pip install -e .`."""
    notes = site_packages(python).glob("__editable___capface_*_finder.py")
    return any(repr(str(ROOT)) in note.read_text(encoding="utf-8") for note in notes)


def site_packages(python):
    """Return the folder of an environment's packages."""
    top = python.parent.parent
    return next(top.glob("lib/python*/site-packages"), top / "Lib" / "site-packages")


def pinned_frontend(host):
    """Return the frontend version that a ComfyUI requires, or None."""
    for line in (host / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if package_name(line) == FRONTEND and "==" in line:
            return line.partition("==")[2].split("#")[0].strip()
    return None


def installed_frontend(python):
    """Return the frontend version in an environment, or None."""
    found = sorted(site_packages(python).glob(f"{FRONTEND.replace('-', '_')}-*.dist-info"))
    return found[-1].name.removesuffix(".dist-info").rpartition("-")[2] if found else None


def newest_frontend(python):
    """Return the newest version of the frontend that pip finds."""
    command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-"]
    shown = subprocess.run([*map(str, command), FRONTEND], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if shown.returncode:
        raise TaskError(f"{shown.stderr}\npip does not list the newest frontend. Name a version: --frontend VERSION")
    return json.loads(shown.stdout)["install"][0]["metadata"]["version"]


def frontend_folder(python, version):
    """Return the folder of a frontend for ComfyUI's --front-end-root, downloading it if it is missing."""
    folder = VENVS / "frontends" / version
    static = folder / "comfyui_frontend_package" / "static"
    if not static.is_dir():
        say(f"installing the frontend {version}")
        with tempfile.TemporaryDirectory(dir=VENVS) as partly:
            install(python, "--no-deps", "--target", partly, f"{FRONTEND}=={version}", what=f"pip install {FRONTEND}")
            folder.parent.mkdir(exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(partly, folder)
    return static


def reachable(url):
    """Return whether a web address responds within REACH_SECONDS, including the name lookup."""
    answer = []

    def ask():
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=REACH_SECONDS):
            answer.append(url)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    return bool(answer)


def install_host():
    """Install a ComfyUI with comfy-cli into a separate folder. Returns the folder, or prints the reason and returns None."""
    say(f"no ComfyUI found; trying to install it from {COMFYUI_SOURCE}")
    if not reachable(COMFYUI_SOURCE):
        say("the address cannot be reached from here; continuing without ComfyUI")
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
        # only the sources: their requirements are installed in this project's own environment
        command = [executable(cli, "comfy"), "--skip-prompt", "--workspace", OWN_HOST, "install", "--version", "latest",
                   "--cpu", "--skip-manager", "--skip-torch-or-directml", "--skip-requirement"]  # fmt: skip
        run_quietly(command, "comfy install", "Install ComfyUI yourself and add --comfyui PATH.")
        return find_host(OWN_HOST)
    except (TaskError, ComfyError) as e:
        say(f"ComfyUI could not be installed; continuing without it.\n{e}")
        return None


def known_host(options):
    """Return the ComfyUI that was named or found, else the one that the demo installed, else None."""
    return find_host(options.comfyui) or (OWN_HOST if is_host(OWN_HOST) else None)


def say_host(host, without):
    """Print which ComfyUI is used, or the consequence of having none."""
    say(f"ComfyUI {host_version(host)}: {host}" if host else f"no ComfyUI: {without} (name one with --comfyui PATH)")


def start(python, module, arguments, launcher=()):
    """Run one of the project's modules, such as `capface.tools.demo`, and return its exit status."""
    # With -m, Python puts the current folder on its path, where `nodes` would hide ComfyUI's. Python 3.11 has an option to
    # avoid it.
    environ = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONUTF8="1", PYTHONSAFEPATH="1")
    return subprocess.call([str(python), *launcher, "-m", module, *arguments], env=environ)


def demo(options, rest):
    """Make the contact sheet and, if a ComfyUI is available, the portrait."""
    photo = []
    if options.photo:
        path = Path(options.photo).expanduser().resolve()
        if not path.is_file():
            raise TaskError(f"There is no photo {path}. Without an argument the demo takes scikit-image's astronaut.")
        photo = [str(path)]
    host = known_host(options) or install_host()
    say_host(host, "there will be no portrait")
    python = environment([host], options.venv)
    arguments = [*photo, "--out", str(Path(options.out).expanduser().resolve())]
    return start(python, "capface.tools.demo", [*arguments, *(["--comfyui", str(host)] if host else [])])


def check(options, rest):
    """Report which files and packages exist, and which features they enable."""
    host = known_host(options)
    say_host(host, "its folders cannot be searched")
    python = environment([host], options.venv)
    arguments = ["--comfyui", str(host)] if host else []
    return start(python, "capface.tools.check_files", [*arguments, *(["--checksums"] if options.checksums else [])])


def weights(options, rest):
    """Show or fetch the model files. The published pack has the same script."""
    host = known_host(options)
    arguments = ["--comfyui", str(host)] if host else []
    return subprocess.call([sys.executable, str(ROOT / "files" / "weights.py"), *rest, *arguments])


def every_host():
    """Return all ComfyUIs: those in COMFYUI_PATHS, else the default one and those in ~/comfy/ComfyUI*."""
    if named := os.environ.get("COMFYUI_PATHS"):
        folders = [Path(path).expanduser().resolve() for path in named.split(os.pathsep) if path]
        if missing := [str(folder) for folder in folders if not is_host(folder)]:
            raise TaskError(
                f"COMFYUI_PATHS names {', '.join(missing)}, but there is no ComfyUI in it (expected its main.py there)"
            )
        return folders
    folders = [find_host(), OWN_HOST, *sorted((Path.home() / "comfy").glob("ComfyUI*"))]
    return [folder for folder in folders if folder and is_host(folder)]


def hosts_to_test(options):
    """Return the ComfyUIs to test on, newest first, without duplicates."""
    found = [find_host(path) for path in options.comfyui]
    if options.all_hosts:
        found += every_host()
    elif not found:
        found = [find_host() or OWN_HOST]
    different = {host.resolve() for host in found if host and is_host(host)}
    return sorted(different, key=lambda host: [int(n) for n in re.findall(r"\d+", host_version(host))], reverse=True)


def static_checks(python):
    """Return the commands of the static checks by name: linter with formatter, and type checker, in a Python's environment.

    The type checker runs in the folder that `importable_pack` returns, the others here.
    """
    ruff, checker = (str(executable(python.parent.parent, name)) for name in ("ruff", "basedpyright"))
    return {
        "ruff": [[ruff, "check", "--extend-exclude", ".venvs", "."], [ruff, "format", "--check", "--exclude", ".venvs", "."]],
        "types": [[checker, "--level", "error", "--pythonpath", str(python)]],
    }


def test(options, rest):
    """Run the static checks and all tests; those that need a ComfyUI run on each one."""
    hosts = hosts_to_test(options)
    for host in hosts or [None]:
        say_host(host, "the tests that need one are skipped")
    python = environment(hosts, options.venv)
    environ = dict(os.environ, PYTHONUTF8="1")
    for name in ("COMFYUI_PATH", "COMFYUI_PATHS", "CAPFACE_FRONTEND"):
        environ.pop(name, None)
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while waiting make a busy machine ten times slower
    environ.setdefault("OMP_NUM_THREADS", "1")
    results = []

    def run(result, arguments, environ):
        say(f"{result}: pytest {' '.join(arguments)}")
        results.append(run_pytest(python, arguments, environ, result))
        say(f"{result}: {'passed' if result.ok else 'FAILED'} in {result.seconds:.0f} s")

    for name, commands in static_checks(python).items():
        say(name)
        start = time.monotonic()
        with importable_pack() if name == "types" else contextlib.nullcontext(ROOT) as folder:
            statuses = [subprocess.call(command, cwd=folder) for command in commands]
        ok = not any(statuses)
        results.append(Result(name, passed=int(ok), failed=int(not ok), seconds=time.monotonic() - start, ok=ok))
    if not rest:
        run(Result("no host"), NO_HOST, environ)
    asked = [newest_frontend(python) if version == "newest" else version for version in options.frontend]
    for number, host in enumerate(hosts or [None]):
        own = (pinned_frontend(host) if host else None) or installed_frontend(python)
        groups = {"as asked": rest} if rest else host_groups(brief=options.brief, newest=number == 0)
        for group, arguments in groups.items():
            for version in asked if asked and group in ("browser", "as asked") else [own]:
                more = {"COMFYUI_PATH": str(host)} if host else {}
                if host and version and version != installed_frontend(python):
                    more["CAPFACE_FRONTEND"] = str(frontend_folder(python, version))
                result = Result(group, host_version(host) if host else "none", version or "none")
                run(result, arguments, environ | more)
    shown = table(results)
    print(f"\n{shown}\n", flush=True)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(shown + "\n")
    failed = [result for result in results if not result.ok]
    say(f"failed: {len(failed)} of {len(results)} groups, see above" if failed else "all passed")
    return bool(failed)


def lint(options, rest):
    """Run ruff and third-party checkers on the sources and, in a ComfyUI, on the running pack."""
    host = known_host(options)
    say_host(host, "only the sources are checked")
    wanted = (ROOT / "tools" / "checkers.txt").read_text(encoding="utf-8")
    folder = VENVS / "checkers"
    python = executable(folder)
    if not (folder / MARKER).is_file() or (folder / MARKER).read_text(encoding="utf-8") != wanted:
        say("making the checkers' environment (once; about 400 MB)")
        python = make_venv(folder)
        install(python, "-r", ROOT / "tools" / "checkers.txt", what="pip install")
        (folder / MARKER).write_text(wanted, encoding="utf-8")
    statuses = [subprocess.call(command, cwd=ROOT) for command in static_checks(python)["ruff"]]
    ok = not any(statuses)
    ok &= check_sources(python.parent)
    if host:
        ok &= not start(
            environment([host], options.venv),
            "capface.tools.checkers",
            [str(host), str(python.parent), str(site_packages(python))],
        )
    say("nothing found" if ok else "the checkers found problems, see above")
    return not ok


def generate(options, rest):
    """Write the files that are generated from the nodes' schemas: `words` or `surface`."""
    host = known_host(options)
    if host is None:
        raise TaskError("The nodes' schemas need a ComfyUI: name one with --comfyui PATH.")
    return start(environment([host], options.venv), f"capface.tools.{options.command}", ["--comfyui", str(host), *rest])


def types(options, rest):
    """Run the type checker (basedpyright) with pyrightconfig.json."""
    (command,) = static_checks(environment([known_host(options)], options.venv))["types"]
    with importable_pack() as folder:
        return subprocess.call([*command, *rest], cwd=folder)


def bench(options, rest):
    """Print the table of benchmarks/overview.py, or run the named script of benchmarks/."""
    host = known_host(options)
    say_host(host, "benchmarks that need one are skipped")
    if host:
        os.environ["COMFYUI_PATH"] = str(host)
    python = environment([host], options.venv)
    name, *arguments = rest if rest and not rest[0].startswith("-") else ["overview", *rest]
    scripts = sorted(script.stem for script in (ROOT / "benchmarks").glob("[!_]*.py"))
    if name not in scripts:
        raise TaskError(f"There is no benchmarks/{name}.py. There are: {', '.join(scripts)}.")
    return start(python, f"capface.benchmarks.{name}", arguments)


def soak(options, rest):
    """Run many different prompts in one ComfyUI, and show what remains."""
    host = known_host(options)
    if host is None:
        raise TaskError("The prompts need a ComfyUI: name one with --comfyui PATH.")
    return start(environment([host], options.venv), "capface.tools.soak", ["--comfyui", str(host), *rest])


def fuzz(options, rest):
    """Fuzz everything that reads a file."""
    return start(environment([known_host(options)], options.venv), "capface.tools.fuzz", rest)


def prepare(options, rest):
    """Make a training set from photos."""
    return start(environment([known_host(options)], options.venv), "capface.training.prepare", rest)


def _together(processes):
    """Return the Python arguments that start a module in several processes on this machine."""
    return ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]


def train(options, rest):
    """Train on a training set, in one or several processes, on one or several machines."""
    launcher = _together(options.processes) if options.processes > 1 else []
    if options.machines > 1:
        if not options.first_machine:
            raise TaskError(
                "Several machines need --first-machine HOST:PORT, an address of the first machine that all others can reach."
            )
        host, _, port = options.first_machine.rpartition(":")
        launcher = [*_together(options.processes)[:-1], "--nnodes", str(options.machines), "--node-rank", str(options.machine)]
        launcher += ["--master-addr", host, "--master-port", port]
    return start(environment([known_host(options)], options.venv), "capface.training.train", rest, launcher)


def person(options, rest):
    """Train a LoRA, a word or a whole model of one person from one photo."""
    return start(environment([known_host(options)], options.venv), "capface.training.persons.train", rest)


def miniature(options, rest):
    """Train the miniature on synthetic people, and with --tables evaluate it as well."""
    launcher = _together(options.processes) if options.processes > 1 else []
    study = {"--tables", "--ablations"} & {argument.partition("=")[0] for argument in rest}
    module = "capface.experiments.miniature_tables.run" if study else "capface.training.miniature.make"
    return start(environment([known_host(options)], options.venv), module, rest, launcher)


def iphc(options, rest):
    """Compare methods on people, prompts and head conditions: the benchmark."""
    host = known_host(options)
    named = ["--comfyui", str(host)] if host and rest and rest[0] != "plan" else []
    return start(environment([host], options.venv), "capface.iphc.command", [*rest, *named])


def portraits(options, rest):
    """Make portraits of every photo in a folder, on a ComfyUI of this machine or on running ones."""
    host = known_host(options)
    named = ["--comfyui", str(host)] if host and not any(word.startswith("--address") for word in rest) else []
    return start(environment([host], options.venv), "capface.iphc.portraits", [*rest, *named])


def parse(arguments):
    """Parse the command line. Returns the options, and the arguments to pass on to pytest, the benchmarks or training."""
    one, many, common = (argparse.ArgumentParser(add_help=False, allow_abbrev=False) for _ in range(3))
    one.add_argument(
        "--comfyui",
        metavar="PATH",
        help="folder of the ComfyUI to use; default: COMFYUI_PATH, the one that contains this pack, or ~/comfy/ComfyUI",
    )
    many.add_argument(
        "--comfyui",
        metavar="PATH",
        action="append",
        default=[],
        help="folder of a ComfyUI to test on, can be repeated; default: the one that the other commands use",
    )
    many.add_argument(
        "--all-hosts", action="store_true", help="test on all ComfyUIs in COMFYUI_PATHS, else on all in ~/comfy/ComfyUI*"
    )
    many.add_argument(
        "--brief",
        action="store_true",
        help="run only tests whose result can differ between versions; on the newest, this limits only the browser tests",
    )
    many.add_argument(
        "--frontend",
        metavar="VERSION",
        action="append",
        default=[],
        help="run the browser tests on this frontend instead of the ComfyUI's own; `newest` asks pip",
    )
    common.add_argument(
        "--venv",
        metavar="PATH",
        default=os.environ.get("CAPFACE_VENV"),
        help="existing virtual environment to use unchanged (also: CAPFACE_VENV) instead of one in .venvs",
    )
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo | check | test | lint | bench | …")
    add = functools.partial(commands.add_parser, allow_abbrev=False)
    p = add("demo", parents=[one, common], help="a synthetic person, a photo's head and, in ComfyUI, a portrait")
    p.add_argument("photo", nargs="?", help="a photo with a face (default: the astronaut of scikit-image)")
    p.add_argument("--out", default=str(ROOT / "output"), metavar="FOLDER", help="folder of the pictures (default: output)")
    p.set_defaults(task=demo)
    p = add("check", parents=[one, common], help="report which files and packages exist, and which features they enable")
    p.add_argument("--checksums", action="store_true", help="compare the files' MD5 with the published ones")
    p.set_defaults(task=check)
    p = add(
        "test",
        parents=[many, common],
        help="run all checks and tests; further arguments are passed to pytest: tests/flame -k jaw",
    )
    p.set_defaults(task=test)
    p = add("lint", parents=[one, common], help="run ruff and third-party checkers: comfy-test, comfy-lint, comfy-cli's")
    p.set_defaults(task=lint)
    p = add("types", parents=[one, common], help="run the type checker; with files or folders, only on these")
    p.set_defaults(task=types)
    p = add("words", parents=[one, common], help="write English names and the nodes' pages from the schemas")
    p.set_defaults(task=generate)
    p = add("surface", parents=[one, common], help="write the list of node ids, inputs and outputs")
    p.set_defaults(task=generate)
    p = add("bench", parents=[one, common], help="print the table of costs, or run the named benchmark")
    p.set_defaults(task=bench)
    # the started modules parse their own arguments, including --help
    p = add("soak", parents=[one, common], add_help=False, help="run 200 prompts in one ComfyUI, and show what remains")
    p.set_defaults(task=soak)
    p = add("fuzz", parents=[one, common], add_help=False, help="try mutated files on all readers, or on the named ones")
    p.set_defaults(task=fuzz)
    p = add("weights", parents=[one], add_help=False, help="show the model files, or fetch them: weights get portrait")
    p.set_defaults(task=weights)
    p = add("prepare", parents=[one, common], add_help=False, help="make a training set from a folder of photos")
    p.set_defaults(task=prepare)
    p = add("train", parents=[one, common], add_help=False, help="train CapFace on a training set")
    p.add_argument("--processes", type=int, default=1, help="number of processes on this machine, one per GPU")
    p.add_argument("--machines", type=int, default=1, help="number of machines that train together")
    p.add_argument("--machine", type=int, default=0, help="number of this machine, from 0")
    p.add_argument("--first-machine", metavar="HOST:PORT", help="address of the first machine")
    p.set_defaults(task=train)
    p = add("person", parents=[one, common], add_help=False, help="train a LoRA, word or model of a person on one photo")
    p.set_defaults(task=person)
    p = add("miniature", parents=[one, common], add_help=False, help="train the miniature on synthetic people")
    p.add_argument("--processes", type=int, default=1, help="number of processes on this machine")
    p.set_defaults(task=miniature)
    p = add("iphc", parents=[one, common], add_help=False, help="compare methods: iphc check | plan | run | score | report")
    p.set_defaults(task=iphc)
    p = add("portraits", parents=[one, common], add_help=False, help="make portraits of every photo in a folder")
    p.set_defaults(task=portraits)
    options, rest = parser.parse_known_args(arguments)
    if options.task in (demo, check, lint) and rest:
        parser.error(f"{options.command} does not accept {' '.join(rest)}")
    return options, rest


def main():
    """Run one command; returns the exit status."""
    if sys.version_info < (3, 10):  # noqa: UP036  the message is for users who start it with an older version
        print(f"CapFace needs Python 3.10 or newer; this is {platform.python_version()} ({sys.executable}).")
        return 2
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # a folder's name may contain characters that a console's code page cannot show
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
