"""What is done: one Parquet file for each unit, written whole or not at all. They alone decide what a run still has to do."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import BadFile, MissingPackage
from ..files.atomic import remove_partial_files, write_atomically
from .units import Unit

if TYPE_CHECKING:
    import pyarrow as pa

MADE, FAILED = "made", "failed"
FOLDER = "units"


@dataclass(frozen=True)
class Row:
    """One image that was made, or could not be made."""

    unit: str
    method: str
    person: str
    prompt: int
    head: str
    image: int
    seed: int
    status: str
    """MADE or FAILED."""
    reason: str = ""
    """Why it failed."""
    pixels: str = ""
    """SHA-256 of the decoded pixels: see `pixel_hash`."""
    file: bytes | None = None
    """The image's file, if files are kept."""
    bytes: int = 0
    """Size of the image's file."""
    seconds: float = 0.0
    """From queueing the prompt to having the image."""
    tries: int = 1
    ran: list[str] = field(default_factory=list)
    """Titles of the nodes that ran; the results of the others were kept from the image before."""
    worker: str = ""
    environment: str = ""
    """Identifies the software and device: see environment.json."""


def parquet() -> Any:
    """Import pyarrow's module for Parquet.

    Raises:
        MissingPackage: It is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingPackage(
            "The benchmark stores its results with pyarrow. Run: pip install -r iphc/requirements.txt"
        ) from None
    return pyarrow.parquet


def _schema() -> "pa.Schema":
    import pyarrow as pa

    kinds = {
        "prompt": pa.int32(), "image": pa.int32(), "seed": pa.uint64(), "file": pa.binary(), "bytes": pa.int64(),
        "seconds": pa.float64(), "tries": pa.int32(), "ran": pa.list_(pa.string()),
    }  # fmt: skip
    return pa.schema([(one.name, kinds.get(one.name, pa.string())) for one in fields(Row)])


def pixel_hash(file: bytes) -> str:
    """Return the SHA-256 of an image's size and RGB pixels, which does not depend on how its file is compressed."""
    with Image.open(io.BytesIO(file)) as image:
        pixels = np.asarray(image.convert("RGB"))
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


class Ledger:
    """The units of one run in a folder."""

    def __init__(self, folder: Path):
        """Open a run's folder; it need not exist."""
        self.folder = folder / FOLDER

    def path_of(self, unit: Unit) -> Path:
        """Return a unit's file."""
        return self.folder / f"{unit.name}.parquet"

    def write(self, unit: Unit, mark: str, rows: Sequence[Row]) -> Path:
        """Write a unit.

        Args:
            unit: The unit.
            mark: Its fingerprint.
            rows: One for each of its images, in their order.

        Raises:
            CannotWrite: The disk is full or cannot be written to.
        """
        assert [(r.prompt, r.head, r.image) for r in rows] == [(j.prompt, j.head, j.image) for j in unit.jobs]
        pq = parquet()
        import pyarrow as pa

        schema = _schema().with_metadata({"unit": unit.name, "fingerprint": mark})
        table = pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)
        path = self.path_of(unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        # images are compressed already
        write_atomically(
            path, lambda part: pq.write_table(table, part, compression={n: "zstd" for n in schema.names if n != "file"})
        )
        return path

    def state(self, unit: Unit, mark: str) -> str:
        """Return `absent`, `whole`, `other` (made from another manifest) or `broken`.

        Args:
            unit: The unit.
            mark: Its fingerprint.
        """
        path = self.path_of(unit)
        if not path.is_file():
            return "absent"
        try:
            with parquet().ParquetFile(path) as file:
                about, count = file.schema_arrow.metadata or {}, file.metadata.num_rows
        except (OSError, ValueError):
            return "broken"
        if about.get(b"fingerprint", b"").decode() != mark:
            return "other"
        return "whole" if count == len(unit.jobs) else "broken"

    def rows(self, unit: Unit, *, files: bool = True) -> list[Row]:
        """Read a whole unit.

        Args:
            unit: The unit.
            files: Whether to read the images, too.

        Raises:
            BadFile: The file cannot be read.
        """
        columns = [one.name for one in fields(Row) if files or one.name != "file"]
        try:
            with parquet().ParquetFile(self.path_of(unit)) as file:
                return [Row(**row) for row in file.read(columns=columns).to_pylist()]
        except (OSError, ValueError, TypeError) as error:
            raise BadFile(
                f"{self.path_of(unit)} cannot be read ({error}). Run the same command again to make it anew."
            ) from None

    def sweep(self) -> None:
        """Remove the unfinished files of killed processes."""
        for folder in sorted({path.parent for path in self.folder.rglob("*.part")}):
            remove_partial_files(folder)

    def strangers(self, units: Sequence[Unit]) -> Iterator[Path]:
        """Yield the Parquet files in the folder that belong to none of these units."""
        known = {self.path_of(unit) for unit in units}
        yield from (path for path in sorted(self.folder.rglob("*.parquet")) if path not in known)
