"""The command: a table of the files, and `get`, which fetches those that may be fetched freely.

python .../files/weights.py                      the table
python .../files/weights.py check                the same, with checksums
python .../files/weights.py get portrait         what a first portrait needs
python .../files/weights.py get NAME NAME        these files; `all` for every one
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import BadInput, CapFaceError, DownloadFailed
from ..atomic import PARTIAL
from ..catalogue import Asset
from ..sizes import size_text
from ..weights import command
from .pickup import Download, copy, recognise
from .places import Places, find_places
from .presence import A_PACKAGE, EVERY, MISSING, OR, PRESENT, WRONG, Presence, find, select
from .progress import Progress
from .transfer import SPARE, Request, fetch, mismatch
from .unpack import unpack
from .web import TIMEOUT, Web, short

DONE, FAILED, REFUSED, STOPPED = 0, 1, 2, 130
"""Exit statuses: all files that were asked for are there; some are not; nothing was tried; interrupted."""
EXAMPLE = "get portrait"
UNKNOWN = "?"


class _Job(NamedTuple):
    """A file to fetch, and where it goes."""

    asset: Asset
    target: Path
    """The file; for a pattern, the folder."""

    @property
    def archive(self) -> bool:
        return "*" in Path(self.asset.file).name

    @property
    def request(self) -> Request:
        asset, address = self.asset, self.asset.download or ""
        file = self.target.parent / Path(address).name if self.archive else self.target
        return Request(file.name, address, file, asset.source, asset.size, asset.sha256, None if self.archive else asset.md5)


def say(text: str = "") -> None:
    """Write one line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


# The table


def table(found: Sequence[Presence]) -> str:
    """Return the table of files: name, purpose, licence, size, source, and whether it is there."""
    rows = [("file", "state", "size", "licence", "for", "from")]
    for one in found:
        asset = one.asset
        how = asset.source if asset.download else f"{asset.source} (by hand)"
        rows.append(
            (asset.name, one.state, size_text(asset.size) if asset.size else UNKNOWN, asset.licence, asset.purpose, how)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for row, one in zip(rows, (None, *found), strict=True):
        lines.append("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), f"{row[4]}; {row[5]}"]))
        if one and one.state == WRONG:
            lines.append(f"    {one.path}: {one.detail}")
        elif one and one.detail:
            lines.append(f"    there {one.detail}")
        elif one and (part := _unfinished(one)):
            lines.append(f"    begun: {part}")
    lines[0] = lines[0].replace("for; from", "for what; from where")
    return "\n".join(lines)


def _unfinished(one: Presence) -> Path | None:
    part = one.path.with_name(one.path.name + PARTIAL)
    return part if one.state == MISSING and part.is_file() else None


# Getting files


def get(assets: Sequence[Asset], places: Places, options: argparse.Namespace) -> int:
    """Fetch files.

    Args:
        assets: What was asked for.
        places: The model folders.
        options: The command line.

    Returns:
        The exit status.
    """
    found = [find(asset, places, verify=True) for asset in assets]
    for one in found:
        if one.state == PRESENT:
            known = not one.detail and (one.asset.sha256 or one.asset.md5) and "*" not in one.asset.file
            say(f"{one.asset.name} is there{' and right' if known else ''}: {one.path}")
        elif one.state == WRONG:
            say(f"{one.asset.name} is there but wrong, and is kept: {one.path}\n    {one.detail}")
            say("    Rename or remove it, and run the same command again to fetch the published one.")
    bad = sum(one.state == WRONG for one in found)
    missing = [_Job(one.asset, one.path) for one in found if one.state == MISSING]
    missing, failed = _pick_up(missing, Path(options.downloads).expanduser(), options.dry_run)
    bad += failed
    jobs = [job for job in missing if job.asset.download]
    by_hand = [job for job in missing if not job.asset.download]
    for job in by_hand:
        say(f"{job.asset.name} must be downloaded in a browser: {job.asset.purpose}; licence {job.asset.licence}")
        say(f"    from {job.asset.source}")
        known = (
            f"leave it in {options.downloads}, in its archive or not, and run the same command again, or "
            if job.asset.md5
            else ""
        )
        say(f"    then {known}put it at {job.target}")
    if jobs:
        _show_plan(jobs)
        _check_disk(jobs)
        if options.dry_run:
            say("dry run: nothing is fetched")
            return DONE
        if not _agreed(options.yes):
            return REFUSED
        bad += _fetch_all(jobs, options)
    if bad or by_hand:
        say(f"{bad + len(by_hand)} of {len(assets)} files are not in place, see above")
        return FAILED
    say("all files are in place" if not options.dry_run else "dry run: nothing is to be fetched")
    return DONE


def _pick_up(missing: list[_Job], downloads: Path, dry: bool) -> tuple[list[_Job], int]:
    """Copy what lies in the Downloads folder into place; returns what is still missing, and how many copies failed."""
    known = {job.asset: job for job in missing}
    failed = 0
    for asset, download in recognise(list(known), downloads, say).items():
        job = known[asset]
        try:
            _copy(download, job, dry)
        except (CapFaceError, OSError) as error:
            say(f"{asset.name} could not be copied: {error}")
            failed += 1
        missing = [one for one in missing if one is not job]
    return missing, failed


def _copy(download: Download, job: _Job, dry: bool) -> None:
    done = "unpacked" if job.archive else "copied"
    if dry:
        say(f"{job.asset.name}: {download} would be {done} to {job.target}")
        return
    if job.archive:
        unpack(download.path, job.target, Path(job.asset.file).name)
    else:
        copy(download, job.asset, job.target)
    say(f"{job.asset.name}: {download} was {done} to {job.target}")


def _show_plan(jobs: Sequence[_Job]) -> None:
    """Show what will be fetched, from where, to where, and under which licence."""
    web = Web()
    say("to fetch:")
    for job in jobs:
        asset = job.asset
        say(f"  {asset.name}, {size_text(asset.size) if asset.size else 'of unknown size'}: {asset.purpose}")
        say(f"      from {short(web.mirrored(asset.download or ''))}")
        say(f"      to {job.target}")
        say(f"      licence: {asset.licence} ({asset.source})")
        other = asset.need.partition(OR)[2]
        if other.startswith(A_PACKAGE):
            say(f"      instead: python -m pip install --no-deps {other.removeprefix(A_PACKAGE)}")
    if len(jobs) > 1 and (total := sum(job.asset.size or 0 for job in jobs)):
        say(f"  together {size_text(total)}" + (" and more" if any(not job.asset.size for job in jobs) else ""))


def _check_disk(jobs: Sequence[_Job]) -> None:
    """Raise DownloadFailed if the files of known size do not fit on their disks."""
    wanted: dict[int, tuple[Path, int]] = {}
    for job in jobs:
        folder = next(parent for parent in job.target.parents if parent.is_dir())
        device = folder.stat().st_dev
        there = _unfinished(Presence(job.asset, MISSING, job.request.target))
        begun = min(there.stat().st_size, job.asset.size or 0) if there else 0
        _, before = wanted.get(device, (folder, 0))
        wanted[device] = folder, before + ((job.asset.size or 0) * (2 if job.archive else 1)) - begun
    for folder, size in wanted.values():
        if (free := shutil.disk_usage(folder).free) < size + SPARE:
            raise DownloadFailed(
                f"The files need {size_text(size + SPARE)} on the disk of {folder}, which has {size_text(free)} free. Make "
                "room, or name fewer files."
            )


def _agreed(yes: bool) -> bool:
    """Ask whether the user agrees to the licences."""
    if yes:
        say("licences agreed to by --yes")
        return True
    if not sys.stdin.isatty():
        say("Nothing is fetched: read the licences above on their pages, and add --yes if you agree to them.")
        return False
    sys.stdout.write("Do you agree to these licences? They are on the pages named above. [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    say("Nothing is fetched.")
    return False


def _fetch_all(jobs: Sequence[_Job], options: argparse.Namespace) -> int:
    """Fetch one file after the other; returns how many failed."""
    web, failed = Web(timeout=options.timeout), 0
    for job in jobs:
        try:
            path = job.request.target
            if job.archive and path.is_file() and job.asset.sha256 and not mismatch(path, job.asset.sha256, None):
                say(f"{path} is there and right")
            else:
                say(f"fetching {job.request.name}")
                fetch(job.request, web, connections=options.connections, say=lambda text: say(f"  {text}"), progress=Progress)
            if job.archive:
                files = unpack(path, job.target, Path(job.asset.file).name)
                path.unlink()
                say(f"  unpacked {', '.join(file.name for file in files)} to {job.target}")
            else:
                say(f"  done: {path}")
        except (CapFaceError, OSError) as error:
            failed += 1
            say(f"  failed: {error}")
    return failed


# The command line


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("do", nargs="?", choices=("list", "check", "get"), default="list", help="default: list")
    parser.add_argument("what", nargs="*", help="portrait, all, or names of files")
    parser.add_argument("--comfyui", metavar="PATH", help="the ComfyUI's folder; else COMFYUI_PATH, or the one around the pack")
    parser.add_argument("--models", metavar="PATH", help="the folder of models, if it is not the ComfyUI's own")
    parser.add_argument("--yes", action="store_true", help="agree to the licences without being asked")
    parser.add_argument("--dry-run", action="store_true", help="show what would be fetched")
    parser.add_argument(
        "--downloads",
        metavar="PATH",
        default="~/Downloads",
        help="where files that were downloaded in a browser are searched (default: ~/Downloads)",
    )
    parser.add_argument("--connections", type=int, default=4, metavar="N", help="most parts of a file at a time (default: 4)")
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT, metavar="S", help="seconds without data that count as a break"
    )
    options = parser.parse_intermixed_args(arguments)
    if options.do == "get" and not options.what:
        parser.error("get what? Expected portrait, all, or names of files")
    if options.connections < 1 or options.timeout <= 0:
        parser.error("expected --connections of at least 1 and a --timeout above 0")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command line. Default: that of this process.

    Returns:
        The exit status: 0 if all files that were asked for are there, 1 if not, 2 if nothing was tried, 130 if interrupted.
    """
    options = parse(arguments)
    try:
        places = find_places(options.comfyui, options.models)
        if options.do == "get":
            return get(select(options.what, places), places, options)
        assets = select(options.what, places) if options.what else EVERY
        found = [find(asset, places, verify=options.do == "check") for asset in assets]
        say(f"models in {places.models}")
        say(table(found))
        place = [word for key in ("comfyui", "models") if (value := getattr(options, key)) for word in (f"--{key}", value)]
        say(f"\nto fetch what a first portrait needs: {command(*EXAMPLE.split(), *place)}")
        return FAILED if any(one.state == WRONG for one in found) else DONE
    except BadInput as error:
        say(str(error))
        return REFUSED
    except (CapFaceError, OSError) as error:
        say(str(error))
        return FAILED
    except KeyboardInterrupt:
        say("\nstopped; what was fetched is kept, and the same command goes on there")
        return STOPPED
