"""Print what the pack costs on this machine, in one table.

    python tasks.py bench [--rounds 5] [--sizes 256] [--gigabytes 2]

Each row is compared with a reference in the same group. The measurements of a group alternate, so that other work on the
machine affects all of them: the ratios hold on other machines, the seconds do not. Sampling steps, the start and loading come
from `step_cost`, `startup` and `loading`, which `python tasks.py bench NAME` runs alone and in more detail.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from capface.flame import HeadParams, fit_landmarks, render_head
from capface.flame.builtin import builtin_head
from capface.flame.model import five_point_weights, project
from capface.models.diffusion.capface import CapFace, CapFaceConfig
from capface.tools.face_landmarker_file import find

RENDERED = (256, 1), (512, 1), (1024, 1), (256, 8), (256, 64)
"""Sides in pixels and numbers of heads."""
PEAK = """
import sys
from capface.flame import HeadParams, render_head
from capface.flame.builtin import builtin_head
from capface.tools.loading_memory import peak
side, heads = map(int, sys.argv[1:])
model = builtin_head()
render_head(model, HeadParams.neutral(), 64, 64)
before = peak()
render_head(model, HeadParams.neutral(heads), side, side)
print(peak() - before)
"""

Work = Callable[[], object]


def medians(works: dict[str, Work], rounds: int) -> dict[str, float]:
    """Return the median seconds of each work. The works alternate, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def row(group: str, name: str, amount: str, ratio: float | None = None, of: str = "") -> None:
    """Print one row of the table."""
    compared = "" if ratio is None else f"{ratio:.2f} × {of}"
    print(f"| {group} | {name} | {amount} | {compared} |", flush=True)


def compared(group: str, works: dict[str, Work], rounds: int) -> None:
    """Print the median of each work, compared with the first one."""
    found = medians(works, rounds)
    first = next(iter(found))
    for name, seconds in found.items():
        row(group, name, f"{1000 * seconds:.1f} ms", seconds / found[first], first)


def maps(rounds: int) -> None:
    """Measure rendering in time and memory."""
    model = builtin_head()
    works: dict[str, Work] = {
        f"{side} px, {heads} head{'s' if heads > 1 else ''}": partial(render_head, model, HeadParams.neutral(heads), side, side)
        for side, heads in RENDERED
    }
    compared("maps", works, rounds)
    if platform.system() == "Linux":
        for side, heads in ((256, 1), (1024, 1), (256, 64)):
            command = [sys.executable, "-c", PEAK, str(side), str(heads)]
            grown = int(subprocess.check_output(command, text=True))
            row("memory", f"maps, {side} px, {heads} head{'s' if heads > 1 else ''}", f"{grown / 1e6:.0f} MB at the peak")


def fit(rounds: int) -> None:
    """Measure the fit of one head, and the Face Landmarker if its file is there."""
    model = builtin_head()
    points = project(model.landmarks(HeadParams.neutral()), HeadParams.neutral().camera)[..., :2]
    works: dict[str, Work] = {
        "5 points": lambda: fit_landmarks(model, five_point_weights() @ points),
        "68 points": lambda: fit_landmarks(model, points),
    }
    path, reason = find()
    if path is None:
        row("fit", "face mesh", reason)
    else:
        from capface.benchmarks.turned_photos import photos
        from capface.models.faces import load_face_landmarker
        from capface.photos.landmarks import landmarks_of
        from capface.photos.upright import UprightDetector

        landmarker, photo = load_face_landmarker(path), photos()["astronaut"]
        (face,) = UprightDetector(None, landmarker).detect(photo)
        landmarks = landmarks_of(model, [face], *photo.shape[1:])
        works["478 points"] = landmarks.fit
        works["finding the face and reading its mesh"] = lambda: landmarker(photo)
    compared("fit", works, rounds)


def floor(size: int) -> float:
    """Print the least seconds of an evaluation of CapFace on this machine, and return them.

    The operations are counted, and so are the bytes of weights and residuals, each moved once. A matrix product and a copy give
    the machine's rates.
    """
    network = CapFace(CapFaceConfig(), device="meta").requires_grad_(False)
    side = size // 8
    guided = torch.empty(1, network.config.model_channels, side, side, device="meta")
    tokens = torch.empty(1, 258, network.config.context_width, device="meta")
    with FlopCounterMode(display=False) as counter:
        keys_and_values = network.project_identity(tokens)
        once = counter.get_total_flops()
        latents = torch.empty(1, 4, side, side, device="meta")
        residuals = network(latents, torch.empty(1, device="meta"), guided, keys_and_values)
        operations = counter.get_total_flops() - once
    moved = sum(t.numel() * t.element_size() for t in (*network.parameters(), *residuals))
    matrix, block = torch.rand(1024, 1024), torch.rand(2**26)
    product, copy = (min(timeit.repeat(work, number=1, repeat=10)) for work in (lambda: matrix @ matrix, block.clone))
    by_operations = operations / (2 * 1024**3 / product)
    by_bytes = moved / (2 * block.numel() * block.element_size() / copy)
    least = max(by_operations, by_bytes)
    kept = network.residual_elements(side, side) / 1e6
    row(
        f"step, {size} px",
        "residuals that are kept for a latent",
        f"{2 * kept:.0f} MB in half precision, {4 * kept:.0f} in single",
    )
    amount = f"{operations / 1e9:.0f} GFLOP: {by_operations:.3f} s; {moved / 1e9:.2f} GB: {by_bytes:.3f} s"
    row(f"step, {size} px", "CapFace's floor, float32", amount)
    return least


def lines_of(module: str, *arguments: str) -> list[str]:
    """Run another benchmark, and return what it printed."""
    command = [sys.executable, "-m", f"capface.benchmarks.{module}", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines() or [f"{module} failed with status {done.returncode}"]


def main(arguments: list[str]) -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256], help="sides of the sampled images in pixels")
    parser.add_argument("--gigabytes", type=float, default=2, help="size of the checkpoint that is loaded; the released: 7")
    options = parser.parse_args(arguments)
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {device}, torch {torch.__version__}, load average before {load}\n")
    print("| group | what | amount | compared |\n| --- | --- | --- | --- |")
    maps(options.rounds)
    fit(options.rounds)
    if os.environ.get("COMFYUI_PATH"):
        row("start", "the pack in ComfyUI", lines_of("startup", "--runs", str(options.rounds))[-1])
        for size in options.sizes:
            with tempfile.TemporaryDirectory() as folder:
                report = Path(folder) / "steps.json"
                lines_of("step_cost", "--size", str(size), "--rounds", str(options.rounds), "--json", str(report))
                for found in json.loads(report.read_text()) if report.is_file() else []:
                    row(f"step, {size} px", found["name"], found["amount"], found["ratio"], found["of"])
                    if found["name"] == "CapFace":
                        least = floor(size)
                        row(f"step, {size} px", "CapFace", found["amount"], found["seconds"] / least, "its floor")
    else:
        row("start", "the pack in ComfyUI", "skipped, because there is no ComfyUI")
    if platform.system() == "Linux":
        for line in lines_of("loading", "--gigabytes", str(options.gigabytes)):
            name, _, found = line.partition(": ")
            row("loading", name, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
