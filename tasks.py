#!/usr/bin/env python3
"""Try, check, test and train CapFace: `python tasks.py demo | check | weights | test | lint | bench | prepare | train | ...`.

Needs Python 3.10 or newer and nothing else.

The first run makes an environment with everything that is needed in `.venvs` beside this file (about 6 GB, a few minutes);
later runs reuse it, and deleting `.venvs` undoes it.
"""

import argparse
import contextlib
import functools
import hashlib
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

from tools.checkers import check_sources
from tools.comfy import ComfyError, find_host, host_version, is_host
from tools.suites import NO_HOST, Result, host_groups, run_pytest, table

ROOT = Path(__file__).resolve().parent
VENVS = ROOT / ".venvs"
OWN_HOST = VENVS / "ComfyUI"
NO_DEPENDENCIES = ("facenet-pytorch==2.6.0",)
"""Installed without what they ask for, since their version pins exclude any recent torch, numpy and Pillow."""
MARKER = "complete"
COMFYUI_SOURCE = "https://github.com/comfyanonymous/ComfyUI"
REACH_SECONDS = 20
FRONTEND = "comfyui-frontend-package"
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


def package_name(line):
    """The package that a line of a requirements file names, as pip spells it, or None."""
    name = re.match(r"[A-Za-z0-9][\w.-]*", line.strip())
    return re.sub(r"[-_.]+", "-", name[0]).lower() if name else None


def only_in_older(hosts):
    """Requirements of ComfyUIs for packages that the first one's do not name, as lines for pip."""
    lines, known = [], None
    for host in hosts:
        own = [line.partition(" #")[0].strip() for line in (host / "requirements.txt").read_text(encoding="utf-8").splitlines()]
        if known is not None:
            lines += [line for line in own if package_name(line) and package_name(line) not in known]
        known = (known or set()) | set(map(package_name, own))
    return lines


def environment_name(files, more=()):
    """Name an environment after what is in it: Python's version, the requirement texts and further requirements."""
    texts = [*NO_DEPENDENCIES, *(f.read_text(encoding="utf-8") for f in files), *more]
    content = hashlib.sha256("\0".join(texts).encode())
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


def environment(hosts, reuse=None):
    """Return the Python with everything in it, making its environment first where there is none.

    One environment serves several ComfyUIs: it has what the first one asks for, and what only others ask for. It also serves
    each of them alone later, which its marker says.

    Args:
        hosts: The ComfyUIs whose requirements belong in, newest first; None among them is none.
        reuse: An existing environment to use as it is.
    """
    if reuse:
        python = executable(Path(reuse).expanduser().absolute())
        if not python.is_file():
            raise TaskError(f"CAPFACE_VENV (or --venv) names {reuse}, but there is no virtual environment in it.")
        say(f"using the environment {reuse} as it is")
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
        say("installing requirements.txt, those of training and tests" + (" and ComfyUI's own" if hosts else ""))
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
    """Whether `import capface` in an environment gives this checkout: what `pip install -e .` has noted there."""
    notes = site_packages(python).glob("__editable___capface_*_finder.py")
    return any(repr(str(ROOT)) in note.read_text(encoding="utf-8") for note in notes)


def site_packages(python):
    """Where an environment's packages lie."""
    top = python.parent.parent
    return next(top.glob("lib/python*/site-packages"), top / "Lib" / "site-packages")


def pinned_frontend(host):
    """The frontend's version that a ComfyUI asks for, or None."""
    for line in (host / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if package_name(line) == FRONTEND and "==" in line:
            return line.partition("==")[2].split("#")[0].strip()
    return None


def installed_frontend(python):
    """The frontend's version in an environment, or None."""
    found = sorted(site_packages(python).glob(f"{FRONTEND.replace('-', '_')}-*.dist-info"))
    return found[-1].name.removesuffix(".dist-info").rpartition("-")[2] if found else None


def newest_frontend(python):
    """The newest version of the frontend, as pip knows it."""
    command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-"]
    shown = subprocess.run([*map(str, command), FRONTEND], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if shown.returncode:
        raise TaskError(f"{shown.stderr}\npip does not say which frontend is the newest. Name one: --frontend VERSION")
    return json.loads(shown.stdout)["install"][0]["metadata"]["version"]


def frontend_folder(python, version):
    """The folder of a frontend that ComfyUI takes as --front-end-root, fetched first where it is missing."""
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


def start(python, module, arguments, launcher=()):
    """Run one of the project's modules, such as `capface.tools.demo`; returns its exit status."""
    # For -m Python puts the current folder on its path, where `nodes` would hide ComfyUI's; Python 3.11 can be told not to.
    environ = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONUTF8="1", PYTHONSAFEPATH="1")
    return subprocess.call([str(python), *launcher, "-m", module, *arguments], env=environ)


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
    python = environment([host], options.venv)
    arguments = [*photo, "--out", str(Path(options.out).expanduser().resolve())]
    return start(python, "capface.tools.demo", [*arguments, *(["--comfyui", str(host)] if host else [])])


def check(options, rest):
    """Report which files and packages are there, and what works with them."""
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
    """All ComfyUIs that are found: those of COMFYUI_PATHS, else the usual one and what lies in ~/comfy/ComfyUI*."""
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
    """The ComfyUIs to test on, newest first, each once."""
    found = [find_host(path) for path in options.comfyui]
    if options.all_hosts:
        found += every_host()
    elif not found:
        found = [find_host() or OWN_HOST]
    different = {host.resolve() for host in found if is_host(host)}
    return sorted(different, key=lambda host: [int(n) for n in re.findall(r"\d+", host_version(host))], reverse=True)


def static_checks(python):
    """Name -> commands: the linter with the formatter, and the type checker, in the environment of a Python."""
    ruff, checker = (str(executable(python.parent.parent, name)) for name in ("ruff", "basedpyright"))
    return {
        "ruff": [[ruff, "check", "--extend-exclude", ".venvs", "."], [ruff, "format", "--check", "--exclude", ".venvs", "."]],
        "types": [[checker, "--level", "error", "--pythonpath", str(python)]],
    }


def test(options, rest):
    """Run the static checks and every test, what needs a ComfyUI on each of them."""
    hosts = hosts_to_test(options)
    for host in hosts or [None]:
        say_host(host, "the tests that need one are skipped")
    python = environment(hosts, options.venv)
    environ = dict(os.environ, PYTHONUTF8="1")
    for name in ("COMFYUI_PATH", "COMFYUI_PATHS", "CAPFACE_FRONTEND"):
        environ.pop(name, None)
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait cost tenfold on a busy machine
    environ.setdefault("OMP_NUM_THREADS", "1")
    results = []

    def run(result, arguments, environ):
        say(f"{result}: pytest {' '.join(arguments)}")
        results.append(run_pytest(python, arguments, environ, result))
        say(f"{result}: {'passed' if result.ok else 'FAILED'} in {result.seconds:.0f} s")

    for name, commands in static_checks(python).items():
        say(name)
        start = time.monotonic()
        statuses = [subprocess.call(command, cwd=ROOT) for command in commands]
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
    """Run ruff and the checkers of others on the sources and, in a ComfyUI, on the pack at work."""
    host = known_host(options)
    say_host(host, "the sources alone are checked")
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
    say("nothing found" if ok else "the checkers found something, see above")
    return not ok


def generate(options, rest):
    """Write what is generated from the nodes' schemas: `words` or `surface`."""
    host = known_host(options)
    if host is None:
        raise TaskError("The nodes' schemas need a ComfyUI: name one with --comfyui PATH.")
    return start(environment([host], options.venv), f"capface.tools.{options.command}", ["--comfyui", str(host), *rest])


def types(options, rest):
    """Run the type checker (basedpyright) with pyrightconfig.json."""
    (command,) = static_checks(environment([known_host(options)], options.venv))["types"]
    return subprocess.call([*command, *rest], cwd=ROOT)


def bench(options, rest):
    """Run the measurements in benchmarks/, each a script of its own."""
    host = known_host(options)
    say_host(host, "what runs inside one is left out")
    if host:
        os.environ["COMFYUI_PATH"] = str(host)
    python = environment([host], options.venv)
    scripts = sorted((ROOT / "benchmarks").glob("[!_]*.py"))
    if rest:
        scripts = [s for s in scripts if s.stem == rest[0]] or [None]
        if scripts == [None]:
            raise TaskError(f"There is no benchmarks/{rest[0]}.py.")
    worst = 0
    for script in scripts:
        say(f"benchmarks/{script.name}")
        worst = max(worst, start(python, f"capface.benchmarks.{script.stem}", rest[1:]))
    return worst


def prepare(options, rest):
    """Make a training set of photos."""
    return start(environment([known_host(options)], options.venv), "capface.training.prepare", rest)


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
    return start(environment([known_host(options)], options.venv), "capface.training.train", rest, launcher)


def miniature(options, rest):
    """Train the miniature on synthetic people, and with --tables evaluate it as well."""
    launcher = _together(options.processes) if options.processes > 1 else []
    study = {"--tables", "--ablations"} & {argument.partition("=")[0] for argument in rest}
    module = "capface.experiments.miniature_tables.run" if study else "capface.training.miniature.make"
    return start(environment([known_host(options)], options.venv), module, rest, launcher)


def parse(arguments):
    """Read the command line; returns the options and, for pytest, the benchmarks and training, what they get."""
    one, many, common = (argparse.ArgumentParser(add_help=False, allow_abbrev=False) for _ in range(3))
    one.add_argument(
        "--comfyui",
        metavar="PATH",
        help="folder of the ComfyUI to use; else COMFYUI_PATH, the one this pack lies in, or ~/comfy/ComfyUI",
    )
    many.add_argument(
        "--comfyui",
        metavar="PATH",
        action="append",
        default=[],
        help="folder of a ComfyUI to test on, any number of times; without it the one that the other commands use",
    )
    many.add_argument("--all-hosts", action="store_true", help="on all in COMFYUI_PATHS, else on all in ~/comfy/ComfyUI*")
    many.add_argument("--brief", action="store_true", help="the tests of what differs alone; on the newest so in the browser")
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
        help="existing virtual environment to use as it is (also: CAPFACE_VENV) instead of one made in .venvs",
    )
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo | check | test | lint | bench | …")
    add = functools.partial(commands.add_parser, allow_abbrev=False)
    p = add("demo", parents=[one, common], help="a synthetic person, a photo's head and, in ComfyUI, a portrait")
    p.add_argument("photo", nargs="?", help="a photo with a face (default: the astronaut of scikit-image)")
    p.add_argument("--out", default=str(ROOT / "output"), metavar="FOLDER", help="where the pictures go (default: output)")
    p.set_defaults(task=demo)
    p = add("check", parents=[one, common], help="which files and packages are there, and what therefore works")
    p.add_argument("--checksums", action="store_true", help="compare the files' MD5 with the published ones")
    p.set_defaults(task=check)
    p = add("test", parents=[many, common], help="run everything; more arguments go to pytest: tests/flame -k jaw")
    p.set_defaults(task=test)
    p = add("lint", parents=[one, common], help="ruff, and the checkers of others: comfy-test, comfy-lint, comfy-cli's")
    p.set_defaults(task=lint)
    p = add("types", parents=[one, common], help="the type checker; with files or folders, these alone")
    p.set_defaults(task=types)
    p = add("words", parents=[one, common], help="write English names and the nodes' pages from the schemas")
    p.set_defaults(task=generate)
    p = add("surface", parents=[one, common], help="write the list of node ids, inputs and outputs")
    p.set_defaults(task=generate)
    p = add("bench", parents=[one, common], help="measure; with the name of one benchmark, that one alone")
    p.set_defaults(task=bench)
    # their own arguments, --help included, are read by the modules that they start
    p = add("weights", parents=[one], add_help=False, help="show the model files, or fetch them: weights get portrait")
    p.set_defaults(task=weights)
    p = add("prepare", parents=[one, common], add_help=False, help="a folder of photos in, a training set out")
    p.set_defaults(task=prepare)
    p = add("train", parents=[one, common], add_help=False, help="a training set in, a CapFace out")
    p.add_argument("--processes", type=int, default=1, help="processes on this machine, one for each GPU")
    p.add_argument("--machines", type=int, default=1, help="machines that train together")
    p.add_argument("--machine", type=int, default=0, help="number of this one, from 0")
    p.add_argument("--first-machine", metavar="HOST:PORT", help="where the others find the first one")
    p.set_defaults(task=train)
    p = add("miniature", parents=[one, common], add_help=False, help="train the miniature on synthetic people")
    p.add_argument("--processes", type=int, default=1, help="processes on this machine")
    p.set_defaults(task=miniature)
    options, rest = parser.parse_known_args(arguments)
    if options.task in (demo, check, lint) and rest:
        parser.error(f"{options.command} does not know {' '.join(rest)}")
    return options, rest


def main():
    """Run one command; returns the exit status."""
    if sys.version_info < (3, 10):  # noqa: UP036  the message is for whoever starts it with an older one
        print(f"CapFace needs Python 3.10 or newer; this is {platform.python_version()} ({sys.executable}).")
        return 2
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a folder's name may hold what a console's code page cannot show
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
