"""The report on a training set: accepted and rejected photos, dissimilar photos of one identity, and the time of each stage."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from .rules import REASONS
from .shards import read_member

STRANGERS = 0.4
"""Mean cosine of FaceNet's embeddings below which the photos of an identity probably show several people."""


def make_report(
    folder: Path,
    indices: list[dict[str, Any]],
    stages: dict[str, list[float]],
    notes: list[str],
    run: dict[str, Any],
) -> dict[str, Any]:
    """Summarise a training set.

    Args:
        folder: Folder of the training set.
        indices: Index of each shard.
        stages: Number of photos and CPU seconds of each stage, over all runs.
        notes: Notes for the user.
        run: Seconds, photos and workers of this run.

    Returns:
        A dictionary of plain values.
    """
    samples = [(index["shard"], sample) for index in indices for sample in index["samples"]]
    rejected = [one for index in indices for one in index["rejected"]]
    counts = Counter(one["reason"] for one in rejected)
    people = Counter(sample["identity"] for _, sample in samples)
    return {
        "photos": len(samples) + len(rejected),
        "accepted": len(samples),
        "identities": len(people),
        "identities_with_several_photos": sum(count > 1 for count in people.values()),
        "rejected": {reason: counts[reason] for reason in REASONS if counts[reason]},
        "strangers": strangers(folder, samples),
        "stages": {
            name: {"photos": count, "seconds": round(seconds, 3), "per_second": round(count / max(seconds, 1e-9), 2)}
            for name, (count, seconds) in stages.items()
        },
        "run": run | {"per_second": round(run["photos"] / max(run["seconds"], 1e-9), 2)},
        "notes": notes,
        "left_out": rejected,
    }


def strangers(folder: Path, samples: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Find identities whose photos probably show several people.

    Args:
        folder: Folder of the training set.
        samples: Shard and index entry of each sample.

    Returns:
        Name of each such identity, mean cosine of its photos' embeddings and number of its photos; lowest cosine first.
    """
    people: dict[str, list[tuple[str, tuple[int, int]]]] = {}
    for shard, sample in samples:
        people.setdefault(sample["identity"], []).append((shard, sample["members"]["global.npy"]))
    found = []
    for identity, places in people.items():
        if len(places) > 1:
            vectors = np.stack([np.load(io.BytesIO(read_member(folder, shard, place))) for shard, place in places])
            n = len(vectors)
            # mean over pairs i != j of vectors of length 1: (|sum v|² - n) / (n (n - 1))
            cosine = float((np.square(vectors.sum(0)).sum() - n) / (n * (n - 1)))
            if cosine < STRANGERS:
                found.append({"identity": identity, "cosine": round(cosine, 3), "photos": n})
    return sorted(found, key=lambda one: one["cosine"])


def as_table(report: dict[str, Any]) -> str:
    """Format the report as Markdown."""
    run = report["run"]
    fraction = report["accepted"] / max(report["photos"], 1)
    lines = [
        f"{report['accepted']:,} of {report['photos']:,} photos ({fraction:.0%}) are samples of {report['identities']:,} "
        f"identities, {report['identities_with_several_photos']:,} of them with several photos.",
        f"This run: {run['photos']:,} photos in {run['seconds']:.0f} s with {run['workers'] or 'no'} worker processes, "
        f"{run['per_second']} per second.",
        "",
        *_table(("rejected", "photos", "reason"), [(r, f"{n:,}", REASONS[r]) for r, n in report["rejected"].items()]),
        *_table(
            ("stage", "photos", "CPU seconds", "photos per CPU second"),
            [
                (name, f"{stage['photos']:,}", f"{stage['seconds']:.1f}", f"{stage['per_second']:.2f}")
                for name, stage in report["stages"].items()
            ],
        ),
    ]
    if report["strangers"]:
        lines.append("Identities whose photos probably show several people:\n")
        rows = [(one["identity"], str(one["photos"]), f"{one['cosine']:.2f}") for one in report["strangers"][:20]]
        lines += _table(("identity", "photos", "mean cosine"), rows)
    return "\n".join(lines + [f"- {note}" for note in report["notes"]]).rstrip() + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Format a Markdown table as lines, followed by an empty line; no lines without rows."""
    if not rows:
        return []
    cells = [head, *[tuple(cell.replace("|", "\\|") for cell in row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return [*lines, ""]
