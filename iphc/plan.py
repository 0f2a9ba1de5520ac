"""`iphc plan`: images, storage, GPU hours and cost of a manifest, from the seconds that images took."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from ..errors import BadInput
from .ledger import FOLDER, MADE, parquet
from .manifest import Manifest
from .progress import duration

MEASURED = Path(__file__).with_name("measured.json")
"""Seconds and bytes of an image on the devices that were measured, and how."""
MACHINES = (1, 8)


@dataclass(frozen=True)
class Costs:
    """What one image takes."""

    source: str
    seconds: Mapping[str, float]
    """By the method's name; "" for any other method."""
    bytes: float
    """Of its file."""

    def of(self, method: str) -> float:
        """Return the seconds of an image of a method."""
        return self.seconds.get(method, self.seconds[""])


def measured(like: Path | None, seconds: float | None) -> list[Costs]:
    """Return what images take: given by the user, taken from a run, or as measured on the devices in `measured.json`.

    Args:
        like: Folder of a run.
        seconds: Seconds an image.

    Raises:
        BadInput: The run has no images.
    """
    known = json.loads(MEASURED.read_text(encoding="utf-8"))
    devices = [Costs(name, {"": entry["seconds"]}, entry["bytes"]) for name, entry in known.items()]
    if seconds is not None:
        return [Costs(f"{seconds:g} s an image, as given", {"": seconds}, devices[0].bytes)]
    return devices if like is None else [_of_run(like)]


def _of_run(folder: Path) -> Costs:
    """Take each method's median seconds, so that the first images, which load files, do not count more than once."""
    seconds, sizes = defaultdict(list), []
    for path in sorted((folder / FOLDER).rglob("*.parquet")):
        for row in parquet().read_table(path, columns=["method", "status", "seconds", "bytes"]).to_pylist():
            if row["status"] == MADE:
                seconds[row["method"]].append(row["seconds"])
                sizes.append(row["bytes"])
    if not sizes:
        raise BadInput(f"{folder} has no images to take seconds from. Name the folder of a run.")
    of_methods = {name: median(values) for name, values in seconds.items()}
    return Costs(f"medians of {len(sizes)} images in {folder}", {**of_methods, "": mean(of_methods.values())}, mean(sizes))


def plan_text(manifest: Manifest, costs: list[Costs], price: float | None) -> str:
    """Return the plan as text.

    Args:
        manifest: The manifest.
        costs: What an image takes; a table for each.
        price: Of one GPU for one hour, in any currency; None leaves the cost out.
    """
    each = manifest.images_of_a_method
    made = [method for method in manifest.methods if method.workflow is not None]
    lines = [
        f"{manifest.name}: {len(manifest.people)} people x {len(manifest.prompts)} prompts x {len(manifest.heads)} heads x "
        f"{manifest.images} = {each:,} images of a method; {each * len(manifest.methods):,} of {len(manifest.methods)} methods"
    ]
    for cost in costs:
        lines += ["", f"{cost.source}, {cost.bytes / 1e3:.0f} kB an image"]
        rows = [("method", "images", "s/image", "GPU hours", "GB", *(f"{n} GPU" + "s" * (n > 1) for n in MACHINES))]
        total = 0.0
        for method in made:
            hours = each * cost.of(method.name) / 3600
            total += hours
            times = (duration(hours * 3600 / n) for n in MACHINES)
            rows.append((method.name, f"{each:,}", f"{cost.of(method.name):.2f}", f"{hours:,.1f}", f"{each * cost.bytes / 1e9:,.1f}", *times))
        times = (duration(total * 3600 / n) for n in MACHINES)
        size = each * len(made) * cost.bytes / 1e9
        rows.append(("all", f"{each * len(made):,}", "", f"{total:,.1f}", f"{size:,.1f}", *times))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines += ["  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))) for row in rows]
        lines.append(
            "cost: give --price PER_GPU_HOUR" if price is None else f"cost: {total * price:,.2f} at {price:g} a GPU hour, for any number of GPUs"
        )
    return "\n".join(lines)
