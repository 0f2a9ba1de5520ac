"""Heads as tables of numbers (CSV): FLAME's vectors, and ARKit's blendshapes.

Conventions: one row a frame. Columns are found by name, without regard to case, order and further columns. Angles are
axis-angle vectors in radians, as in `params.py`. A row without names is known by its length:

- 50: expression;
- 53: expression, jaw;
- 55: expression, eyelids, jaw: what SMIRK predicts, in the order of Arc2Face's expression adapter;
- 56: expression, rotation, jaw: DECA's and EMOCA's `exp` and `pose`.

SMIRK's eyelids, left and right in 0..1, close a head's eyes in addition to its expression. FLAME's heads have no eyelids of
their own, so they are written as 0: what closes their eyes is in the expression.
"""

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...errors import BadFile, BadInput, quote
from ...files.boundary import reading
from ...files.budgets import LARGEST_HEADS, MOST_HEADS, at_most
from ..editing import ARKIT, SLIDERS, arkit_of_heads, express, heads_from_arkit
from ..fitting import DECA_KINDS
from ..model import SIZES, HeadModel, HeadParams

EYELIDS = ("left", "right")
VECTORS = ("expression", "eyelid", "jaw", "rotation", "neck", "eyes")
"""The columns that are written, in this order."""
_COUNTS = {**{name: SIZES[name][0] for name in ("expression", "jaw", "rotation", "neck", "eyes", "shape")}, "eyelid": 2}
_BARE = {
    50: ("expression",),
    53: ("expression", "jaw"),
    55: ("expression", "eyelid", "jaw"),
    56: ("expression", "rotation", "jaw"),
}
_SHORT = {"exp": "expression", "expr": "expression", "eyelids": "eyelid", "eye": "eyes"}
_NUMBERED = re.compile(r"([a-z]+)[ _.]*(\d{1,3})")
_ARKIT = {name.lower(): name for name in ARKIT}
MOST_COLUMNS = 1_000
LARGEST = 1e4
"""Largest magnitude of a number."""
_DECIMALS = 9
"""Significant digits, which distinguish any two float32 values."""


def vectors_csv(model: HeadModel, heads: HeadParams) -> str:
    """Write heads as FLAME's vectors, with names in the first row. The first 55 columns are those of Arc2Face's adapter.

    Args:
        model: The head model of the heads: FLAME 2020.
        heads: B heads.

    Raises:
        BadInput: The model is another one, whose components mean something else.
    """
    _check_kind(model)
    heads = heads.to("cpu")
    parts = {name: getattr(heads, name) for name in VECTORS if name != "eyelid"}
    parts["eyelid"] = torch.zeros(heads.batch, 2)
    header = [f"{name}_{i}" for name in VECTORS for i in range(_COUNTS[name])]
    return _write(header, torch.cat([parts[name] for name in VECTORS], dim=1))


def arkit_csv(model: HeadModel, heads: HeadParams) -> str:
    """Write heads as ARKit's 52 blendshapes, with names in the first row.

    Args:
        model: The head model of the heads, with landmarks.
        heads: B heads.

    Raises:
        BadInput: The model has no landmarks.
    """
    found = arkit_of_heads(model, heads)
    return _write(list(ARKIT), torch.stack(list(found.values()), dim=1))


def heads_from_csv(text: str, model: HeadModel, base: HeadParams, source: str = "The text") -> HeadParams:
    """Read heads from a table of FLAME's vectors or ARKit's blendshapes.

    Args:
        text: The table, as above. Semicolons, tabs and spaces also separate numbers.
        model: The head model. FLAME's vectors need FLAME 2020; blendshapes need a model with landmarks.
        base: One head, or one a row, which keeps what the table does not state. A table without a jaw closes the mouth.
        source: The file's name, for messages.

    Returns:
        One head for each row.

    Raises:
        BadFile: The text is not such a table.
        BadInput: The model is not FLAME 2020, the base has another number of heads, or the model has no landmarks.
    """
    source = quote(source)
    names, rows = _read(text, source)
    heads = base.to("cpu").expand(len(rows)) if base.batch == 1 else base.to("cpu")
    if heads.batch != len(rows):
        raise BadInput(f"{source} has {len(rows)} rows, but the head has {heads.batch} frames. Use one head, or one a row.")
    shapes = {_ARKIT[name]: rows[:, i] for i, name in enumerate(names) if name in _ARKIT}
    if shapes:
        return heads_from_arkit(model, shapes, heads)
    _check_kind(model)
    parts = _parts(names, rows, source)
    lids = parts.pop("eyelid", None)
    changes = {"jaw": torch.zeros_like(heads.jaw)} | parts if "expression" in parts else parts
    heads = heads.replace(**changes)
    if lids is None:
        return heads
    most = SLIDERS["eyes_closed_left"].most
    return express(model, heads, {f"eyes_closed_{side}": lids[:, i].clamp(0, most) for i, side in enumerate(EYELIDS)})


def read_table(path: Path, model: HeadModel, base: HeadParams, name: str | None = None) -> HeadParams:
    """Read heads from a CSV file.

    Args:
        path: The file.
        model: As in `heads_from_csv`.
        base: As in `heads_from_csv`.
        name: Its name in messages; by default that of the path.

    Raises:
        MissingFile: The file does not exist.
        BadFile: It is not such a table.
        BadInput: As `heads_from_csv`.
    """
    name = path.name if name is None else name
    with reading(path, "a table of numbers", "Choose a CSV file with one row a frame."):
        at_most(path.stat().st_size, LARGEST_HEADS, "bytes", quote(name))
        text = path.read_text(encoding="utf-8-sig")
    return heads_from_csv(text, model, base, name)


def _check_kind(model: HeadModel) -> None:
    if model.kind not in DECA_KINDS:
        raise BadInput(
            f"These vectors are in the components of FLAME 2020, which do not apply to the head model '{model.name}'. Load "
            "FLAME 2020 in Load Head Model, or use ARKit's blendshapes."
        )


def _write(header: list[str], rows: Tensor) -> str:
    lines = [",".join(header)]
    lines += [",".join(f"{value + 0.0:.{_DECIMALS}g}" for value in row) for row in rows.tolist()]
    return "\n".join(lines) + "\n"


def _read(text: str, source: str) -> tuple[list[str], Tensor]:
    """Return the lower-case column names (empty for a table without) and the numbers of the columns, `[B, C]`."""
    at_most(len(text), LARGEST_HEADS, "characters", source)
    lines = [line.strip().strip("[]") for line in text.splitlines()]
    lines = [line for line in lines if line]
    at_most(len(lines), MOST_HEADS + 1, "rows", source)
    if not lines:
        raise BadFile(f"{source} is empty: expected a row of numbers for each frame.")
    delimiter = next((mark for mark in ",;\t" if mark in lines[0]), " ")
    table = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter, skipinitialspace=True))
    table = [[cell.strip() for cell in row if cell.strip() or delimiter != " "] for row in table]
    at_most(max(len(row) for row in table), MOST_COLUMNS, "columns", source)
    names: list[str] = []
    if any(_number(cell) is None for cell in table[0]):
        names = [cell.lower() for cell in table[0]]
        table = table[1:]
        if not table:
            raise BadFile(f"{source} has names but no row of numbers.")
    count = len(names) or len(table[0])
    known = [i for i, name in enumerate(names) if name in _ARKIT or _column(name)] if names else list(range(count))
    if not known:
        raise BadFile(
            f"{source} has no column that is known, such as expression_0, jaw_0 or {ARKIT[0]}; the first is {quote(names[0])}."
        )
    rows: list[list[float]] = []
    for number, row in enumerate(table, 1):
        if len(row) != count:
            raise BadFile(f"{source}, row {number}: expected {count} numbers like the first row, got {len(row)}.")
        values = [_number(row[i]) for i in known]
        for i, value in zip(known, values, strict=True):
            if value is None or abs(value) > LARGEST:
                raise BadFile(
                    f"{source}, row {number}, column {i + 1}: expected a number from -{LARGEST:g} to {LARGEST:g}, "
                    f"got {quote(row[i])}."
                )
        rows.append([value for value in values if value is not None])
    return [names[i] for i in known] if names else [], torch.tensor(rows, dtype=torch.float32)


def _parts(names: Sequence[str], rows: Tensor, source: str) -> dict[str, Tensor]:
    """Return the fields that the columns state, each complete: components that are not stated are 0."""
    B, count = rows.shape
    if not names:
        if count not in _BARE:
            sizes = ", ".join(map(str, _BARE))
            raise BadFile(f"{source}: expected names in the first row, or rows of {sizes} numbers; got {count} numbers.")
        sizes = [_COUNTS[name] for name in _BARE[count]]
        return dict(zip(_BARE[count], rows.split(sizes, dim=1), strict=True))
    parts: dict[str, Tensor] = {}
    for i, name in enumerate(names):
        column = _column(name)
        if column is not None:
            field, place = column
            parts.setdefault(field, torch.zeros(B, _COUNTS[field]))[:, place] = rows[:, i]
    return parts


def _column(name: str) -> tuple[str, int] | None:
    """Return the field and the component of a column's name, or None if it is not known."""
    match = _NUMBERED.fullmatch(name)
    if match is None:
        return None
    field, place = _SHORT.get(match[1], match[1]), int(match[2])
    return (field, place) if field in _COUNTS and place < _COUNTS[field] else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
