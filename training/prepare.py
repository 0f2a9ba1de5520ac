"""Make a training set from a folder of photos: `python tasks.py prepare PHOTOS OUT --models ComfyUI/models`.

A pool of processes reads the photos. Samples are written in the order of the photos' names, so the shards depend neither on the
number of processes nor on interruptions. The same command resumes a run that was stopped and keeps its finished shards.
"""

import argparse
import math
import os
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..errors import CapFaceError, MissingFile
from ..files.atomic import remove_partial_files, write_atomically
from .photo_files import BY_FOLDER, IDENTITIES, Photo
from .plan import Settings, describe_settings, make_plan
from .progress import Progress
from .report import as_table, make_report
from .rules import Rules
from .samples import Batch, Networks
from .shards import DATASET, read_index, write_json, write_shard
from .workers import Task, read_by

REPORT, TABLE = "report.json", "report.md"
USUAL = {
    "facenet": ("facenet/20180402-114759-vggface2.pt",),
    "clip": (
        "clip_vision/clip-vit-large-patch14.safetensors",
        "clip_vision/clip_vit_l.safetensors",
        "open_clip/open_clip_model.safetensors",
    ),
    "parser": ("face_parsing/79999_iter.pth", "face_parsing/parsing_bisenet.pth"),
    "head": ("flame/generic_model.pkl",),
    "deca": ("deca/deca_model.tar",),
    "landmarker": ("detection/face_landmarker.task", "detection/mediapipe_face_fp32.safetensors"),
}
"""Paths that are searched in a folder laid out like ComfyUI's `models`, in this order."""
NONE = "none"


def prepare(
    photos: Path, out: Path, settings: Settings, *, workers: int = 0, device: str = "cpu", address: str = ""
) -> dict[str, Any]:
    """Make a training set, or resume making it.

    Args:
        photos: Folder of the photos.
        out: Folder of the training set.
        settings: Rules and contents; a resumed run must have the settings of the first one.
        workers: Number of processes that read photos; 0 reads them in this process.
        device: Device of the networks.
        address: HOST:PORT of a cluster of Ray whose processes read photos, or "local" for Ray on this machine.

    Returns:
        The report.

    Raises:
        MissingFile: A network file or the photos are missing.
        MissingPackage: A network needs a package that is not installed.
        BadFile: A network file is invalid.
        BadInput: `out` holds a training set of other photos or settings.
    """
    start = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    remove_partial_files(out)
    about, notes = describe_settings(settings)
    plan = make_plan(photos, out, settings, about)
    shards = range(math.ceil(len(plan) / settings.per_shard))
    tasks = {number: _tasks(plan, number, settings) for number in shards if read_index(out, number) is None}

    total = sum(len(task) for shard in tasks.values() for task in shard)
    done, accepted = len(plan) - total, 0
    progress = Progress("photos", len(plan), done)
    if tasks:
        networks = settings.networks.absolute()
        with read_by(workers, (photos.resolve(), networks, settings.rules, settings.caption, device), address) as read:
            batches = read([task for shard in tasks.values() for task in shard])
            for number, shard in tasks.items():
                gathered = Batch()
                for task in shard:
                    batch = next(batches)
                    gathered.add(batch)
                    done += len(task)
                    accepted += len(batch.samples)
                    progress.at(done, f"{accepted:,} accepted")
                write_shard(out, number, gathered.samples, {"rejected": gathered.rejected, "stages": gathered.stages})

    indices = [index for index in (read_index(out, number) for number in shards) if index is not None]
    run = {"seconds": round(time.monotonic() - start, 1), "photos": total, "workers": workers}
    report = make_report(out, indices, _total_stages(indices), notes, run)
    counts = {key: report[key] for key in ("photos", "accepted", "identities")}
    write_json(out / DATASET, about | counts | {"shards": _shard_list(indices)})
    write_json(out / REPORT, report)
    write_atomically(out / TABLE, lambda partial: partial.write_text(as_table(report), encoding="utf-8"))
    return report


def _tasks(plan: list[Photo], number: int, settings: Settings) -> list[Task]:
    """Split the photos of a shard into batches; each photo comes with its number in the plan."""
    first = number * settings.per_shard
    photos = list(enumerate(plan[first : first + settings.per_shard], first))
    return [photos[i : i + settings.batch] for i in range(0, len(photos), settings.batch)]


def _total_stages(indices: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Sum the photos and the CPU seconds of each stage over shards."""
    totals: dict[str, list[float]] = {}
    for index in indices:
        for name, (photos, seconds) in index["stages"].items():
            total = totals.setdefault(name, [0, 0.0])
            total[0] += photos
            total[1] += seconds
    return totals


def _shard_list(indices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Describe each shard that has samples; the index of a shard without samples names no file."""
    return [
        {"file": index["shard"], "samples": len(index["samples"]), "bytes": index["bytes"], "sha256": index["sha256"]}
        for index in indices
        if index.get("shard")
    ]


def choose_networks(options: argparse.Namespace) -> Networks:
    """Choose the network files: the named ones, and those of the models folder for the others.

    Args:
        options: The command line.

    Raises:
        MissingFile: FaceNet's or CLIP's file is neither named nor in the models folder.
    """
    models = Path(options.models).expanduser() if options.models else None
    chosen: dict[str, Any] = {}
    for name, places in USUAL.items():
        named = getattr(options, name)
        if not named:
            found = [models / place for place in places if (models / place).is_file()] if models else []
            named = str(found[0]) if found else None
        chosen[name] = None if named == NONE else named
    for name in ("facenet", "clip"):
        if chosen[name] is None:
            where = f"{models} has no {' or '.join(USUAL[name])}" if models else "no --models folder is given"
            raise MissingFile(f"--{name} is not given, and {where}. docs/files.md says where the file comes from.")
    if chosen["head"] is None and not options.deca:
        chosen["deca"] = None  # DECA's codes are not valid for the built-in head
    root = options.insightface or (str(models / "insightface") if models else "insightface")
    return Networks(**chosen, detector=options.detector, insightface=root)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser("prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photos; NAME.txt beside NAME.jpg holds its caption")
    parser.add_argument("out", type=Path, help="folder of the training set; an existing one is resumed")
    files = parser.add_argument_group("files")
    files.add_argument("--models", metavar="FOLDER", help="folder laid out like ComfyUI's models, searched for files")
    for name, file in (
        ("facenet", "20180402-114759-vggface2.pt"),
        ("clip", "CLIP ViT-L/14"),
        ("parser", "weights of the face parser, or none"),
        ("deca", "deca_model.tar, or none; needs --head"),
        ("landmarker", "MediaPipe's face_landmarker.task, or none"),
        ("head", "generic_model.pkl of FLAME 2020, a safetensors file of it, or none for the built-in head"),
    ):
        files.add_argument(f"--{name}", metavar="FILE", help=file)
    files.add_argument("--detector", choices=("auto", "insightface", "mtcnn"), default="auto")
    files.add_argument("--insightface", metavar="FOLDER", help="folder that contains models/buffalo_l")
    data = parser.add_argument_group("photos")
    data.add_argument("--caption", default=Settings.caption, help="caption without a text file (default: %(default)s)")
    data.add_argument("--identities", choices=IDENTITIES, default=BY_FOLDER, help="one person per folder or per photo")
    rules = parser.add_argument_group("rules: photos beyond these limits are rejected")
    for field in fields(Rules):
        flag = f"--{field.name.replace('_', '-')}"
        rules.add_argument(flag, type=type(field.default), default=field.default, metavar=str(field.default))
    run = parser.add_argument_group("run")
    run.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count(),
        help="worker processes, 0 for none (default: one per core)",
    )
    run.add_argument(
        "--address",
        default="",
        metavar="HOST:PORT",
        help="a cluster of Ray whose machines read the photos, found there at the same paths; 'local' for Ray on this machine",
    )
    run.add_argument("--device", default="cpu", help="device of each worker's networks, such as cuda (default: %(default)s)")
    run.add_argument("--batch", type=int, default=Settings.batch, help="photos per batch (default: %(default)s)")
    run.add_argument("--per-shard", type=int, default=Settings.per_shard, help="photos per shard (default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(arguments)
    try:
        rules = Rules(**{field.name: getattr(options, field.name) for field in fields(Rules)})
        networks = choose_networks(options)
        for name, path in asdict(networks).items():
            print(f"{name:12s} {path or 'none'}", flush=True)
        settings = Settings(networks, rules, options.caption, options.identities, options.per_shard, options.batch)
        more = {"workers": options.workers, "device": options.device, "address": options.address}
        report = prepare(options.photos, options.out, settings, **more)
    except CapFaceError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print(
            "A worker process ended, most often because memory ran out. Run it again with fewer --workers.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("Stopped. Run the same command to resume.", file=sys.stderr)
        return 130
    print(f"\n{as_table(report)}\n{options.out / DATASET}, {REPORT} and {TABLE}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
