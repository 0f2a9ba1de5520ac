"""`iphc score`: numbers for each image, as a second stage that makes no image again."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import BadInput
from ..files.atomic import write_atomically
from .ledger import MADE, Ledger, Row, parquet
from .manifest import Manifest
from .miniature_metrics import VERSION, MiniatureMetrics, picture_of
from .units import Unit, fingerprint, units_of

FOLDER = "scores"
DRAWN = "the drawn truth"
"""What a report calls the scores of drawn pictures."""
KEYS = ("method", "person", "prompt", "head", "image")


@dataclass(frozen=True)
class Column:
    """A number of an image."""

    title: str
    text: str
    """What it is."""
    better: int
    """1 if more is better, -1 if less is."""
    decimals: int = 4
    factor: float = 1.0
    """For the table."""


COLUMNS = {
    "found": Column("found %", "images that were made and show a face", 1, 1, 100),
    "id": Column(
        "ID", "cosine of the embeddings of portrait and reference, by the recognizer that CapFace is conditioned on", 1
    ),
    "id0": Column("ID, 0 if missing", "the same, with 0 for images that were not made or show no face", 1),
    "judge": Column("ID, other", "the same by a recognizer that no method is conditioned on", 1),
    "clip": Column("CLIP", "agreement of image and prompt", 1),
    "accuracy": Column("acc. %", "images whose prompt is recognized among all", 1, 1, 100),
    "shape": Column("Shape", "RMSE of the head's shape values", -1),
    "pose": Column("Pose", "RMSE of the three rotation values, in radians", -1),
    "expression": Column("Exp", "RMSE of the head's expression values", -1),
    "light": Column("Light", "RMSE of the nine lighting values", -1),
    "landmarks": Column(
        "landmarks %", "RMS distance of the 68 landmarks from those asked for, in percent of the face's height", -1, 2
    ),
    "turn": Column("turn °", "angle between the head and the one asked for, in degrees", -1, 1),
}
"""The columns, in the order of the table. The paper's seven are ID, CLIP, acc., Shape, Pose, Exp and Light."""


@dataclass(frozen=True)
class Score:
    """The numbers of one image; a column that could not be measured is missing."""

    method: str
    person: str
    prompt: int
    head: str
    image: int
    values: dict[str, float]

    @property
    def key(self) -> tuple[str, int, str, int]:
        """What pairs it with other methods' images: they have the same noise."""
        return self.person, self.prompt, self.head, self.image


def score_rows(metrics: MiniatureMetrics, unit: Unit, rows: Sequence[Row]) -> list[Score]:
    """Measure the images of a unit.

    Args:
        metrics: The networks.
        unit: The unit.
        rows: Its rows, with files.

    Returns:
        A score for each row. An image that was not made has `found` 0 and `id0` 0, and nothing else.

    Raises:
        BadInput: The images were not kept.
    """
    made = [row for row in rows if row.status == MADE]
    columns: dict[str, list[float]] = {}
    if made:
        if any(row.file is None for row in made):
            raise BadInput(f"The images of {unit.name} were not kept (--keep none), so they cannot be measured.")
        assert unit.person.synthetic is not None
        pictures = torch.stack([picture_of(row.file) for row in made if row.file is not None])
        found = metrics.measure(unit.person.synthetic, [row.head for row in made], [row.prompt for row in made], pictures)
        columns = {name: values.tolist() for name, values in found.items()}
    scores, number = [], 0
    for row in rows:
        values = {"found": 0.0, "id0": 0.0}
        if row.status == MADE:
            values = {"found": 1.0, **{name: column[number] for name, column in columns.items()}}
            values["id0"] = values["id"]
            number += 1
        scores.append(Score(row.method, row.person, row.prompt, row.head, row.image, values))
    return scores


def score_run(manifest: Manifest, out: Path, say: Callable[[str], None] = lambda text: None) -> list[Score]:
    """Measure all whole units of a run that are not measured yet.

    Args:
        manifest: The manifest.
        out: The run's folder.
        say: Takes a line for each unit that is measured.

    Returns:
        The scores of all whole units.

    Raises:
        BadInput: The manifest asks for no metric, or nothing is there to measure.
    """
    if not manifest.metrics:
        raise BadInput(f"{manifest.file} asks for no metric: its key 'metrics' is empty.")
    ledger, scores, metrics = Ledger(out), [], None
    units = [unit for unit in units_of(manifest) if ledger.state(unit, fingerprint(manifest, unit)) == "whole"]
    if not units:
        raise BadInput(f"{out} has no whole unit of {manifest.file}. Run it first.")
    for number, unit in enumerate(units, 1):
        hashes = [row.pixels for row in ledger.rows(unit, files=False)]
        mark = hashlib.sha256(repr((VERSION, fingerprint(manifest, unit), hashes)).encode()).hexdigest()
        path = out / FOLDER / manifest.metrics[0] / f"{unit.name}.parquet"
        known = _read(path, mark)
        if known is None:
            metrics = metrics or MiniatureMetrics(manifest)
            known = score_rows(metrics, unit, ledger.rows(unit))
            _write(path, mark, known)
            say(f"{number}/{len(units)}  {unit.name}")
        scores += known
    return scores


def score_drawn(manifest: Manifest, out: Path) -> list[Score]:
    """Measure the drawn truth of each person, prompt and head: what the networks of the measure find in a perfect portrait.

    Args:
        manifest: The manifest.
        out: The run's folder, which keeps the scores.
    """
    scores, metrics = [], None
    pairs = [(prompt, head) for prompt in range(len(manifest.prompts)) for head in manifest.heads]
    prompts, heads = [prompt for prompt, _ in pairs], [head for _, head in pairs]
    for person in manifest.people:
        content = (VERSION, person.content, manifest.prompts, json.dumps(manifest.heads))
        mark = hashlib.sha256(repr(content).encode()).hexdigest()
        path = out / FOLDER / manifest.metrics[0] / f"drawn/{person.name}.parquet"
        known = _read(path, mark)
        if known is None:
            metrics = metrics or MiniatureMetrics(manifest)
            assert person.synthetic is not None
            found = metrics.measure(person.synthetic, heads, prompts, metrics.draw(person.synthetic, heads, prompts))
            columns = {name: values.tolist() for name, values in found.items()}
            known = [
                Score(DRAWN, person.name, prompt, head, 0, {name: column[i] for name, column in columns.items()})
                for i, (prompt, head) in enumerate(pairs)
            ]
            _write(path, mark, known)
        scores += known
    return scores


def _write(path: Path, mark: str, scores: Sequence[Score]) -> None:
    pq = parquet()
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    kinds: list[Any] = [pa.string(), pa.string(), pa.int32(), pa.string(), pa.int32()]
    schema = pa.schema([*zip(KEYS, kinds, strict=True), *((name, pa.float64()) for name in COLUMNS)], metadata={"mark": mark})
    content = [{**{key: getattr(score, key) for key in KEYS}, **score.values} for score in scores]
    write_atomically(path, lambda part: pq.write_table(pa.Table.from_pylist(content, schema=schema), part))


def _read(path: Path, mark: str) -> list[Score] | None:
    """Return the scores in a file, or None if there are none of these images and metrics."""
    if not path.is_file():
        return None
    try:
        with parquet().ParquetFile(path) as file:
            if (file.schema_arrow.metadata or {}).get(b"mark") != mark.encode():
                return None
            content = file.read().to_pylist()
    except (OSError, ValueError):
        return None
    return [
        Score(**{key: row[key] for key in KEYS}, values={name: row[name] for name in COLUMNS if row.get(name) is not None})
        for row in content
    ]
