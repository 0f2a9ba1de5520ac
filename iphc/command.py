"""`python tasks.py iphc check | plan | run | score | report | verify`: the command line of the benchmark."""

import argparse
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

from ..errors import BadInput, CapFaceError
from ..files.sizes import size_text
from ..tools.comfy import ComfyError
from .comfy_host import HostSettings, RunStopped
from .manifest import Manifest, find_manifest, read_manifest
from .model_files import missing
from .plan import bytes_needed, measured, plan_text
from .run import FAILURES, Outcome, Run, RunOptions, alone, environments, failure_table, run_here
from .trial import try_methods
from .units import units_of
from .verify import inspect, remake


def computer_options() -> argparse.ArgumentParser:
    """Return a parent of parsers with the options that name ComfyUI, model files and the CPU."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--comfyui", metavar="PATH", help="folder of the ComfyUI to use")
    parser.add_argument("--models", action="append", default=[], metavar="FOLDER", help="folder laid out like ComfyUI's models")
    parser.add_argument("--cpu", action="store_true", help="compute on the CPU")
    return parser


def host_options() -> argparse.ArgumentParser:
    """Return a parent of parsers with the options that start a ComfyUI."""
    parser = argparse.ArgumentParser(add_help=False, parents=[computer_options()])
    parser.add_argument("--start-seconds", type=float, default=600, metavar="S", help="how long ComfyUI may take to start")
    parser.add_argument("--silence", type=float, default=600, metavar="S", help="how long ComfyUI may give no news, or be away")
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="tasks.py iphc", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    manifest = argparse.ArgumentParser(add_help=False)
    manifest.add_argument("manifest", help="a manifest's file, or the name of one in iphc/sets, such as quick")
    host, models = (argparse.ArgumentParser(add_help=False, parents=[one]) for one in (host_options(), computer_options()))
    for one in (host, models):
        one.add_argument("--device", default="", metavar="N", help="number of the GPU")

    p = commands.add_parser("check", parents=[manifest, host], help="report all mistakes of a manifest")
    p.add_argument(
        "--try", action="store_true", dest="trial", help="start ComfyUI and make one image of each method in one step"
    )
    p = commands.add_parser("plan", parents=[manifest], help="print images, storage, GPU hours and cost")
    p.add_argument("--like", type=Path, metavar="OUT", help="folder of a run whose seconds and sizes to take")
    p.add_argument("--seconds", type=float, metavar="S", help="seconds for each image instead")
    p.add_argument("--price", type=float, metavar="P", help="price of one GPU for one hour")
    p = commands.add_parser("run", parents=[manifest, host], help="make the images; the same command resumes")
    p.add_argument("out", type=Path, help="folder of the run")
    p.add_argument(
        "--workers", type=int, default=1, metavar="N", help="number of workers, each with a ComfyUI; more than 1 need Ray"
    )
    p.add_argument("--address", default="", metavar="HOST:PORT", help="a running Ray cluster to use")
    p.add_argument("--devices", default="", metavar="0,1", help="numbers of the GPUs that the workers take in turn")
    p.add_argument("--only", action="append", default=[], metavar="METHOD", help="run this method; can be repeated")
    p.add_argument("--keep", choices=("png", "none"), default="png", help="whether to keep the images, or only their hashes")
    p.add_argument("--retry", action="store_true", help="make units with failures again")
    p.add_argument("--remake", action="store_true", help="replace units that were made from another manifest")
    p.add_argument("--mixed", action="store_true", help="add to images of other software or another device")
    p = commands.add_parser("score", parents=[manifest, models], help="measure the images")
    p.add_argument("out", type=Path, help="folder of the run")
    p = commands.add_parser("report", parents=[manifest, models], help="write table.md, table.csv and page.html")
    p.add_argument("out", type=Path, help="folder of the run")
    p.add_argument("--against", default="", metavar="METHOD", help="method to compare the others with; default: the last")
    p.add_argument("--person", action="append", default=[], metavar="NAME", help="show this person's images; can be repeated")
    p = commands.add_parser("verify", parents=[manifest, host], help="look at all files, and make a sample of images again")
    p.add_argument("out", type=Path, help="folder of the run")
    p.add_argument("--sample", type=int, default=8, metavar="N", help="how many images to make again; 0 for none")
    p.add_argument("--seed", type=int, default=0, help="of the sample")
    p.add_argument("--mixed", action="store_true", help="even with other software or another device")
    return parser.parse_args(arguments)


def host_settings(options: argparse.Namespace, manifest: Manifest) -> HostSettings | None:
    """Return how to start ComfyUI, or None if no method needs one or none was named."""
    if not options.comfyui or all(method.workflow is None for method in manifest.methods):
        return None
    packs = tuple(dict.fromkeys(pack for method in manifest.methods for pack in method.packs))
    models = tuple(str(folder) for folder in model_roots(options) if folder.is_dir())
    return HostSettings(
        str(Path(options.comfyui).expanduser().resolve()), models, packs, options.cpu, options.device, options.start_seconds,
        options.silence,
    )  # fmt: skip


def model_roots(options: argparse.Namespace) -> list[Path]:
    """Return the folders of models: those that were named, then ComfyUI's own."""
    named = [*options.models, *([Path(options.comfyui) / "models"] if options.comfyui else [])]
    return [Path(folder).expanduser().resolve() for folder in named]


def torch_device(options: argparse.Namespace) -> str:
    """Return the device on which images are measured."""
    import torch

    return "cpu" if options.cpu or not torch.cuda.is_available() else f"cuda:{options.device or 0}"


def check(options: argparse.Namespace, manifest: Manifest) -> int:
    """Say what a manifest without mistakes asks for, and what is missing for it."""
    uncontrolled = [method.name for method in manifest.methods if not method.controls_head]
    print(f"{manifest.file}: no mistakes. {manifest.name}, version {manifest.version}")
    units = len(list(units_of(manifest)))
    print(
        f"{len(manifest.people)} people x {len(manifest.prompts)} prompts x {len(manifest.heads)} heads x {manifest.images} "
        f"= {manifest.images_of_a_method} images of each of {len(manifest.methods)} methods, in {units} units"
    )
    if uncontrolled:
        print(f"without head control (no node has the mark @head): {', '.join(uncontrolled)}")
    if lacking := missing_files(options, manifest):
        print("\n".join(lacking))
        return 2
    if not options.trial:
        return 0
    settings = host_settings(options, manifest)
    if settings is None:
        raise BadInput("Nothing can be tried: name a ComfyUI with --comfyui PATH, and a method with a workflow.")
    problems = try_methods(manifest, settings)
    print("\n".join(problems) or "every method made an image")
    return 2 if problems else 0


def missing_files(options: argparse.Namespace, manifest: Manifest) -> list[str]:
    """Return a line for each model file and package that a manifest's methods and metrics lack."""
    roots = model_roots(options)
    lines = [f"missing: {one}" for one in missing(manifest, roots)]
    if set(manifest.metrics) - {"miniature"}:
        from .photo_metrics import problems

        lines += [f"missing: {text}" for text in problems(manifest, roots)]
    searched = ", ".join(map(str, roots)) or "nowhere; name a ComfyUI with --comfyui, or folders of models with --models"
    return [*lines, f"{len(lines)} missing. Searched: {searched}"] if lines else []


def plan(options: argparse.Namespace, manifest: Manifest) -> int:
    """Print what a run takes."""
    print(plan_text(manifest, measured(options.like, options.seconds), options.price))
    return 0


def run(options: argparse.Namespace, manifest: Manifest) -> int:
    """Make the images."""
    settings = RunOptions(tuple(options.only), options.keep == "png", options.retry, options.remake, options.mixed)
    with alone(options.out):
        started = Run(manifest, options.out, settings)
        print(f"{len(started.whole)} of {len(started.units)} units are whole; {len(started.todo)} to make", flush=True)
        host = host_settings(options, manifest)
        needed = bytes_needed(manifest, sum(len(unit.jobs) for unit in started.todo)) if settings.keep else 0
        if needed > (free := shutil.disk_usage(options.out).free):
            print(f"The images may need {size_text(int(needed))}, but only {size_text(free)} are free", flush=True)
        stop_when_terminated()
        if options.workers == 1 and not options.address:
            return say(run_here(started, host), options.out / FAILURES)
        from .engine import Engine, run_on_ray

        devices = options.devices.split(",") if options.devices else []
        with Engine(options.workers, options.address, devices, options.cpu) as engine:
            stop_when_terminated()  # Ray has replaced the handler
            return say(run_on_ray(started, host, engine), options.out / FAILURES)


def stop_when_terminated() -> None:
    """Let SIGTERM stop a run as Ctrl+C does: with what is whole kept, and all processes ended."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def say(outcome: Outcome, log: Path, what: str = "images", retry: str = "makes their units again") -> int:
    """Print what a run has done, and return its exit status.

    Args:
        outcome: What it has done.
        log: The file that lists the failures.
        what: What it makes.
        retry: What --retry does.
    """
    print(f"{outcome.made} {what} made, {outcome.failed} failed")
    if outcome.failures:
        print(f"{failure_table(outcome.failures)}\nAll are in {log}. --retry {retry}.")
    if outcome.stopped:
        print(f"stopped: {outcome.stopped}", file=sys.stderr)
    return outcome.status


def score(options: argparse.Namespace, manifest: Manifest) -> int:
    """Measure the images."""
    from .score import open_metrics, score_run

    metrics = open_metrics(manifest, model_roots(options), torch_device(options))
    scores = score_run(manifest, options.out, metrics, lambda text: print(text, flush=True))
    print(f"{len(scores)} images are measured")
    return 0


def report(options: argparse.Namespace, manifest: Manifest) -> int:
    """Measure what is not measured yet, and write the report."""
    from .report import collect, write_report
    from .score import open_metrics, score_drawn, score_run, stored_scores

    names = {"method": [m.name for m in manifest.methods], "person": [p.name for p in manifest.people]}
    for kind, asked in (("method", [options.against] if options.against else []), ("person", options.person)):
        for name in asked:
            if name not in names[kind]:
                raise BadInput(f"The manifest has no {kind} '{name}'. There are: {', '.join(names[kind])}.")
    scores, drawn = stored_scores(manifest, options.out), []
    if scores is None or "miniature" in manifest.metrics:
        metrics = open_metrics(manifest, model_roots(options), torch_device(options))
        scores, drawn = score_run(manifest, options.out, metrics), score_drawn(manifest, options.out, metrics)
    results = collect(manifest, options.out, scores, options.against, drawn)
    files = write_report(results, options.out, options.person)
    print(files[0].read_text(encoding="utf-8"))
    print("\n".join(map(str, files)))
    return 0


def verify(options: argparse.Namespace, manifest: Manifest) -> int:
    """Look at the files, and make a sample again."""
    verdict, made = inspect(manifest, options.out)
    settings = host_settings(options, manifest)
    if options.sample and made:
        expected = None if options.mixed else next(iter(environments(options.out).values()), None)
        problems = remake(manifest, made, options.sample, options.seed, settings, expected)
        verdict = replace(verdict, problems=verdict.problems + problems, remade=min(options.sample, len(made)))
    print(verdict.text)
    return bool(verdict.problems)


COMMANDS = {"check": check, "plan": plan, "run": run, "score": score, "report": report, "verify": verify}


def main(arguments: list[str]) -> int:
    """Run a command and return the exit status: 0, 1 (stopped), 2 (mistakes) or 3 (some images failed)."""
    options = parse(arguments)
    try:
        manifest = read_manifest(find_manifest(options.manifest))
        return COMMANDS[options.command](options, manifest)
    except (CapFaceError, ComfyError, RunStopped) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
