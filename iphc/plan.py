"""`iphc plan`: images, storage, GPU hours and cost of a manifest, from the seconds that images took."""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from ..errors import BadInput
from .ledger import FOLDER, MADE, parquet
from .manifest import Manifest, Method
from .progress import duration

MEASURED = Path(__file__).with_name("measured.json")
"""What `benchmarks/portrait_seconds.py` printed: by device, the seconds of an image of 512 x 512 in 20 steps with 0, 1 and 2
control networks, one image at a time; and the bytes of a photo of this size as PNG (scikit-image's astronaut). Launching the
kernels of such small batches keeps the CPU busy for longer than the GPU, so a machine's CPU decides."""
MACHINES = (1, 8)
_AS_MEASURED = ([512, 512], 20)
"""Size and steps of the images in `measured.json`."""


@dataclass(frozen=True)
class Costs:
    """What one image takes."""

    source: str
    seconds: Callable[[Method], float]
    """Of an image of a method."""
    bytes: float
    """Of its file."""
    estimated: bool = False
    """Whether they are those of other images, of `measured.json`."""


def measured(like: Path | None, seconds: float | None) -> list[Costs]:
    """Return what images take: given by the user, taken from a run, or as measured on the devices in `measured.json`.

    Args:
        like: Folder of a run.
        seconds: Seconds an image.

    Raises:
        BadInput: The run has no images.
    """
    known = json.loads(MEASURED.read_text(encoding="utf-8"))
    if like is not None:
        return [_of_run(like)]
    if seconds is not None:
        return [Costs(f"{seconds:g} s an image, as given", lambda method: seconds, next(iter(known.values()))["bytes"])]

    def on(device: str, entry: dict[str, Any]) -> Costs:
        return Costs(
            f"{device}, without ComfyUI", lambda method: entry["seconds"][min(networks(method), 2)], entry["bytes"], True
        )

    return [on(device, entry) for device, entry in known.items()]


def networks(method: Method) -> int:
    """Count the control networks that a method evaluates at each step."""
    count = 0
    for node in (method.workflow or {}).values():
        inputs = node["inputs"]
        if node["class_type"] == "CapFaceApply" and inputs.get("strength", 1):
            count += 1 + bool(inputs.get("alpha") and "head_control" in inputs)
        count += node["class_type"] in ("ControlNetApply", "ControlNetApplyAdvanced")
    return count


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
    others = mean(of_methods.values())
    return Costs(f"medians of {len(sizes)} images in {folder}", lambda method: of_methods.get(method.name, others), mean(sizes))


def bytes_needed(manifest: Manifest, images: int) -> float:
    """Estimate the size of images from that of a photo of 512 x 512, in proportion to their pixels."""
    width, height = manifest.resolved["size"] or (512, 512)
    return images * next(iter(json.loads(MEASURED.read_text(encoding="utf-8")).values()))["bytes"] * width * height / 512**2


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
    if trained := [method.name for method in made if method.person is not None]:
        lines.append(
            f"not counted below: training {len(manifest.people)} people for each of {', '.join(trained)}. Time one with "
            "`python tasks.py person`"
        )
    for cost in costs:
        lines += ["", f"{cost.source}, {cost.bytes / 1e3:.0f} kB an image"]
        asked = manifest.resolved["size"], manifest.resolved["sampling"].get("steps")
        if cost.estimated and asked != _AS_MEASURED:
            lines.append(
                f"NOT THESE IMAGES: measured were SD 1.5, 512 x 512 and 20 steps; the manifest asks for {asked[0] or '?'} and "
                f"{asked[1] or '?'} steps. Take the seconds of a small run: --like OUT"
            )
        rows = [("method", "images", "s/image", "GPU hours", "GB", *(f"{n} GPU" + "s" * (n > 1) for n in MACHINES))]
        total = 0.0
        for method in made:
            hours = each * cost.seconds(method) / 3600
            total += hours
            times = (duration(hours * 3600 / n) for n in MACHINES)
            rows.append(
                (
                    method.name,
                    f"{each:,}",
                    f"{cost.seconds(method):.2f}",
                    f"{hours:,.1f}",
                    f"{each * cost.bytes / 1e9:,.1f}",
                    *times,
                )
            )
        times = (duration(total * 3600 / n) for n in MACHINES)
        size = each * len(made) * cost.bytes / 1e9
        rows.append(("all", f"{each * len(made):,}", "", f"{total:,.1f}", f"{size:,.1f}", *times))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines += [
            "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        lines.append(
            "cost: give --price PER_GPU_HOUR"
            if price is None
            else f"cost: {total * price:,.2f} at {price:g} a GPU hour, for any number of GPUs"
        )
    return "\n".join(lines)
