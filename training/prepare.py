"""A folder of photos in, a training set out: `python tasks.py prepare PHOTOS OUT --models ComfyUI/models`.

Photos are read by a pool of processes and written in the order of their names, so that the shards do not depend on how many
processes there are or on how often the run was stopped. A run that was killed goes on with the same command; what it had
finished stays.
"""

import argparse
import os
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..errors import CapFaceError, MissingFile
from ..files.atomic import remove_partial_files
from .photo_files import BY_FOLDER, IDENTITIES
from .plan import Settings, describe, make_plan
from .progress import Progress
from .report import as_table, make_report
from .rules import Rules
from .samples import Batch, Networks
from .shards import DATASET, read_index, write_json, write_shard
from .workers import read_by

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
}
"""Where the files lie in a folder laid out like ComfyUI's `models`."""
NONE = "none"


def prepare(photos: Path, out: Path, settings: Settings, *, workers: int = 0, device: str = "cpu") -> dict:
    """Make a training set, or go on with one.

    Args:
        photos: The folder of photos.
        out: The training set's folder.
        settings: How; those of the run before where one goes on.
        workers: Processes that read photos; 0 reads them in this one.
        device: Where the networks run.

    Returns:
        The report.

    Raises:
        MissingFile, MissingPackage, BadFile, BadInput: A network or the photos are not what they should be, or `out` holds a
            training set of other photos or settings.
    """
    start = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    remove_partial_files(out)
    about, notes = describe(settings)
    plan = make_plan(photos, out, settings, about)
    shards = [plan[i : i + settings.per_shard] for i in range(0, len(plan), settings.per_shard)]
    left = [number for number in range(len(shards)) if read_index(out, number) is None]
    numbered = list(enumerate(plan))
    tasks = []
    for number in left:
        first, last = number * settings.per_shard, number * settings.per_shard + len(shards[number])
        tasks += [(number, numbered[i : min(i + settings.batch, last)]) for i in range(first, last, settings.batch)]

    total = sum(len(shards[number]) for number in left)
    done, accepted, gathered = len(plan) - total, 0, Batch()
    progress = Progress("photos", len(plan), done)
    if left:
        with read_by(workers, (photos, settings.networks, settings.rules, settings.caption, device)) as read:
            for i, ((number, part), batch) in enumerate(zip(tasks, read([part for _, part in tasks]), strict=True)):
                gathered.add(batch)
                done += len(part)
                accepted += len(batch.samples)
                if i + 1 == len(tasks) or tasks[i + 1][0] != number:
                    write_shard(out, number, gathered.samples, {"rejected": gathered.rejected, "stages": gathered.stages})
                    gathered = Batch()
                progress.at(done, f"{accepted:,} accepted")

    finished = [read_index(out, number) for number in range(len(shards))]
    indices: list[dict[str, Any]] = [index | {"shard": index.get("shard")} for index in finished if index is not None]
    stages = Batch()
    for index in indices:
        stages.add(Batch(stages=index["stages"]))
    run = {"seconds": round(time.monotonic() - start, 1), "photos": total, "workers": workers}
    report = make_report(out, indices, stages.stages, notes, run)
    write_json(out / DATASET, about | {key: report[key] for key in ("photos", "accepted", "identities")} | _shard_list(indices))
    write_json(out / REPORT, report)
    (out / TABLE).write_text(as_table(report), encoding="utf-8")
    return report


def _shard_list(indices: list[dict]) -> dict:
    shards = [
        {"file": index["shard"], "samples": len(index["samples"]), "bytes": index["bytes"], "sha256": index["sha256"]}
        for index in indices
        if index["shard"]
    ]
    return {"shards": shards}


def choose_networks(options: argparse.Namespace) -> Networks:
    """The files that were named, and those of the models folder for the others.

    Raises:
        MissingFile: FaceNet's or CLIP's is neither named nor there.
    """
    models = Path(options.models).expanduser() if options.models else None
    chosen = {}
    for name, places in USUAL.items():
        given = getattr(options, name)
        there = [models / place for place in places if (models / place).is_file()] if models else []
        chosen[name] = None if given == NONE else given or (str(there[0]) if there else None)
    for name in ("facenet", "clip"):
        if chosen[name] is None:
            where = f"{models} has no {' or '.join(USUAL[name])}" if models else "there is no --models folder to look in"
            raise MissingFile(f"--{name} is not given, and {where}. docs/files.md says where the file comes from.")
    if chosen["head"] is None and not options.deca:
        chosen["deca"] = None  # its codes mean nothing on the built-in head
    root = options.insightface or (str(models / "insightface") if models else "insightface")
    return Networks(**chosen, detector=options.detector, insightface=root)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photos; NAME.txt beside NAME.jpg is its caption")
    parser.add_argument("out", type=Path, help="folder of the training set; the same one goes on where a run was stopped")
    files = parser.add_argument_group("files")
    files.add_argument("--models", metavar="FOLDER", help="folder laid out like ComfyUI's models, to look for the files in")
    for name, what in (
        ("facenet", "20180402-114759-vggface2.pt"),
        ("clip", "CLIP ViT-L/14"),
        ("parser", "the face parser, or none"),
        ("deca", "deca_model.tar, or none; needs --head"),
        ("head", "generic_model.pkl of FLAME 2020 or a safetensors file of it, or none for the built-in head"),
    ):
        files.add_argument(f"--{name}", metavar="FILE", help=what)
    files.add_argument("--detector", choices=("auto", "insightface", "mtcnn"), default="auto")
    files.add_argument("--insightface", metavar="FOLDER", help="that holds models/buffalo_l")
    data = parser.add_argument_group("photos")
    data.add_argument("--caption", default=Settings.caption, help="where a photo has no text file (default: %(default)s)")
    data.add_argument("--identities", choices=IDENTITIES, default=BY_FOLDER, help="one person a folder, or a photo")
    rules = parser.add_argument_group("rules: photos beyond these limits are left out")
    for one in fields(Rules):
        flag = f"--{one.name.replace('_', '-')}"
        rules.add_argument(flag, type=type(one.default), default=one.default, metavar=str(one.default))
    run = parser.add_argument_group("run")
    run.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; 0 for none beside this (default: a core)")
    run.add_argument("--device", default="cpu", help="where each worker's networks run, such as cuda (default: %(default)s)")
    run.add_argument("--batch", type=int, default=Settings.batch, help="photos at once (default: %(default)s)")
    run.add_argument("--per-shard", type=int, default=Settings.per_shard, help="photos a shard (default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    options = parse(arguments)
    try:
        rules = Rules(**{one.name: getattr(options, one.name) for one in fields(Rules)})
        networks = choose_networks(options)
        for name, path in asdict(networks).items():
            print(f"{name:12s} {path or 'none'}", flush=True)
        settings = Settings(networks, rules, options.caption, options.identities, options.per_shard, options.batch)
        report = prepare(options.photos, options.out, settings, workers=options.workers, device=options.device)
    except CapFaceError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print("A worker process ended, most often for lack of memory. Run it again with fewer --workers.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; the same command goes on.", file=sys.stderr)
        return 130
    print(f"\n{as_table(report)}\n{options.out / DATASET}, {REPORT} and {TABLE}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
