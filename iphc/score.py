"""`iphc score`: numbers for each image, as a second stage that makes no image again."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..errors import BadInput
from ..files.atomic import write_atomically
from .ledger import MADE, Ledger, Row, parquet
from .manifest import Manifest
from .miniature_metrics import MiniatureMetrics, picture_of
from .people import Person
from .photo_metrics import PhotoMetrics, open_networks
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
    "arcface": Column("ArcFace", "cosine of ArcFace's embeddings of portrait and reference", 1),
    "clip": Column("CLIP", "agreement of image and prompt", 1),
    "accuracy": Column("acc. %", "images whose prompt is recognized among all", 1, 1, 100),
    "shape": Column("Shape", "RMSE of the head's shape values", -1),
    "pose": Column("Pose", "RMSE of the rotations, in radians", -1),
    "expression": Column("Exp", "RMSE of the head's expression values", -1),
    "light": Column("Light", "RMSE of the lighting values", -1),
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


class Metrics(Protocol):
    """What computes the numbers of images."""

    @property
    def mark(self) -> str:
        """What the numbers depend on besides the images; those of another mark are computed again."""
        ...

    @property
    def identity(self) -> bool:
        """Whether the column `id` is measured."""
        ...

    def measure(
        self, person: Person, heads: Sequence[str], prompts: Sequence[int], pictures: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Measure N portraits of a person: numbers `[N]` by column, NaN where there is none."""
        ...


def open_metrics(manifest: Manifest, models: Sequence[Path] = (), device: str = "cpu") -> Metrics:
    """Load the networks of a manifest's metrics.

    Args:
        manifest: The manifest.
        models: Folders laid out like ComfyUI's `models`, for photos.
        device: Where they compute.

    Raises:
        BadInput: The manifest asks for no metric.
        MissingFile, MissingPackage: Something is missing.
    """
    if not manifest.metrics:
        raise BadInput(f"{manifest.file} asks for no metric: its key 'metrics' is empty.")
    if "miniature" in manifest.metrics:
        return MiniatureMetrics(manifest)
    return PhotoMetrics(manifest, open_networks(manifest, models, device))


def folder_of(manifest: Manifest) -> str:
    """Return the name of the folder of a manifest's scores."""
    return "miniature" if "miniature" in manifest.metrics else "photos"


def score_rows(metrics: Metrics, unit: Unit, rows: Sequence[Row]) -> list[Score]:
    """Measure the images of a unit.

    Args:
        metrics: The networks.
        unit: The unit.
        rows: Its rows, with files.

    Returns:
        A score for each row. An image that was not made, or shows no face, has `found` 0 and `id0` 0.

    Raises:
        BadInput: The images were not kept.
    """
    made = [row for row in rows if row.status == MADE]
    columns: dict[str, list[float]] = {}
    if made:
        if any(row.file is None for row in made):
            raise BadInput(f"The images of {unit.name} were not kept (--keep none), so they cannot be measured.")
        pictures = [picture_of(row.file) for row in made if row.file is not None]
        found = metrics.measure(unit.person, [row.head for row in made], [row.prompt for row in made], pictures)
        columns = {name: values.tolist() for name, values in found.items()}
    scores, number = [], 0
    for row in rows:
        values = {"found": float(row.status == MADE)}
        if row.status == MADE:
            values |= {name: column[number] for name, column in columns.items() if not math.isnan(column[number])}
            number += 1
        if metrics.identity:
            values["id0"] = values.get("id", 0.0)
        scores.append(Score(row.method, row.person, row.prompt, row.head, row.image, values))
    return scores


def score_run(manifest: Manifest, out: Path, metrics: Metrics, say: Callable[[str], None] = lambda text: None) -> list[Score]:
    """Measure all whole units of a run that are not measured yet.

    Args:
        manifest: The manifest.
        out: The run's folder.
        metrics: What computes the numbers.
        say: Takes a line for each unit that is measured.

    Returns:
        The scores of all whole units.

    Raises:
        BadInput: Nothing is there to measure.
    """
    ledger, scores = Ledger(out), []
    units = [unit for unit in units_of(manifest) if ledger.state(unit, fingerprint(manifest, unit)) == "whole"]
    if not units:
        raise BadInput(f"{out} has no whole unit of {manifest.file}. Run it first.")
    for number, unit in enumerate(units, 1):
        images = _images(manifest, unit, ledger)
        path = out / FOLDER / folder_of(manifest) / f"{unit.name}.parquet"
        known, by = _read(path, images)
        if by != metrics.mark:
            known = score_rows(metrics, unit, ledger.rows(unit))
            _write(path, images, metrics.mark, known)
            say(f"{number}/{len(units)}  {unit.name}")
        scores += known
    return scores


def stored_scores(manifest: Manifest, out: Path) -> list[Score] | None:
    """Return the scores of all whole units if they are there and were computed alike; no network is needed.

    Args:
        manifest: The manifest.
        out: The run's folder.

    Returns:
        The scores, or None if anything has to be measured first.
    """
    ledger, scores, marks = Ledger(out), [], set()
    for unit in units_of(manifest):
        if ledger.state(unit, fingerprint(manifest, unit)) == "whole":
            path = out / FOLDER / folder_of(manifest) / f"{unit.name}.parquet"
            known, by = _read(path, _images(manifest, unit, ledger))
            marks.add(by)
            scores += known
    return scores if len(marks) == 1 and "" not in marks else None


def _images(manifest: Manifest, unit: Unit, ledger: Ledger) -> str:
    """Return a hash of the images of a unit."""
    hashes = [row.pixels for row in ledger.rows(unit, files=False)]
    return hashlib.sha256(repr((fingerprint(manifest, unit), hashes)).encode()).hexdigest()


def score_drawn(manifest: Manifest, out: Path, metrics: Metrics) -> list[Score]:
    """Measure the drawn truth of each person, prompt and head: what the networks of the measure find in a perfect portrait.

    Args:
        manifest: The manifest.
        out: The run's folder, which keeps the scores.
        metrics: What computes the numbers.

    Returns:
        The scores; none for people on photos.
    """
    scores = []
    if not isinstance(metrics, MiniatureMetrics):
        return scores
    pairs = [(prompt, head) for prompt in range(len(manifest.prompts)) for head in manifest.heads]
    prompts, heads = [prompt for prompt, _ in pairs], [head for _, head in pairs]
    for person in manifest.people:
        content = (person.content, manifest.prompts, json.dumps(manifest.heads))
        images = hashlib.sha256(repr(content).encode()).hexdigest()
        path = out / FOLDER / folder_of(manifest) / f"drawn/{person.name}.parquet"
        known, by = _read(path, images)
        if by != metrics.mark:
            assert person.synthetic is not None
            found = metrics.measure(person, heads, prompts, list(metrics.draw(person.synthetic, heads, prompts)))
            columns = {name: values.tolist() for name, values in {**found, "id0": found["id"]}.items()}
            known = [
                Score(DRAWN, person.name, prompt, head, 0, {name: column[i] for name, column in columns.items()})
                for i, (prompt, head) in enumerate(pairs)
            ]
            _write(path, images, metrics.mark, known)
        scores += known
    return scores


def _write(path: Path, images: str, mark: str, scores: Sequence[Score]) -> None:
    """Write the scores of images, with the mark of what computed them."""
    pq = parquet()
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    kinds: list[Any] = [pa.string(), pa.string(), pa.int32(), pa.string(), pa.int32()]
    columns = [*zip(KEYS, kinds, strict=True), *((name, pa.float64()) for name in COLUMNS)]
    schema = pa.schema(columns, metadata={"images": images, "mark": mark})
    content = [{**{key: getattr(score, key) for key in KEYS}, **score.values} for score in scores]
    write_atomically(path, lambda part: pq.write_table(pa.Table.from_pylist(content, schema=schema), part))


def _read(path: Path, images: str) -> tuple[list[Score], str]:
    """Return the scores in a file and the mark of what computed them; no scores and "" if there are none of these images."""
    if not path.is_file():
        return [], ""
    try:
        with parquet().ParquetFile(path) as file:
            about = file.schema_arrow.metadata or {}
            if about.get(b"images") != images.encode():
                return [], ""
            content = file.read().to_pylist()
    except (OSError, ValueError):
        return [], ""
    return [
        Score(**{key: row[key] for key in KEYS}, values={name: row[name] for name in COLUMNS if row.get(name) is not None})
        for row in content
    ], about.get(b"mark", b"").decode()
