"""Heads as JSON that people can read and edit.

Conventions: angles are in degrees, everything else is as in `params.py`. Numbers are the shortest that restore the same
float32, so saving is lossless. A list of coefficients may end after its last non-zero value. Keys that describe the file
(`units`, `comment`) are ignored.
"""

import difflib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from ...errors import BadFile, BadInput, quote
from ...files.boundary import passes, reading
from ...files.budgets import BRACKETS_PER_HEAD, LARGEST_HEADS, MOST_HEADS, at_most
from ..model import LIMITS, SIZES, HeadParams

FORMAT, VERSION = "capface.head", 1
LARGEST = torch.finfo(torch.float32).max

UNITS = {
    "scale": "half the frame's short side per metre of head",
    "position": "[right, down] from the frame's centre, in half its short side",
    "rotation, neck, jaw, eyes": "degrees, [x, y, z] of axis times angle: x nods down, y turns to the viewer's right, "
    "z tilts counter-clockwise; jaw x opens the mouth; eyes are two triples, the person's left eye first",
    "shape, expression, texture": "standard deviations, one number per component; components left out at the end are 0",
    "light": "[red, green, blue] of each spherical harmonic; x is right, y up, z towards the viewer",
}
HARMONICS = ("1", "x", "y", "z", "xy", "xz", "yz", "x²-y²", "3z²-1")
ANGLES = ("rotation", "neck", "jaw")
COEFFICIENTS = ("shape", "expression", "texture")
LONGEST_FIELD = 40
"""Characters of an unknown field for which a similar known one is looked for."""
FIELDS = ("scale", "position", *ANGLES, "eyes", *COEFFICIENTS, "light")


@dataclass(frozen=True, eq=False)
class StoredHeads:
    """The contents of a file."""

    params: HeadParams
    kind: str | None
    """The kind of head model that the heads were made with, if the file states it."""


def heads_to_json(params: HeadParams, kind: str | None = None) -> str:
    """Write heads as the text of a JSON file, one line per field.

    Args:
        params: B heads.
        kind: `HeadModel.kind` of the model that they belong to, if known.

    Returns:
        The text, to be encoded as UTF-8.

    Raises:
        BadInput: There are more heads than a file may have.
    """
    if params.batch > MOST_HEADS:
        raise BadInput(f"Expected at most {MOST_HEADS:,} heads in one file, got {params.batch:,}. Save them in parts.")
    params = params.to("cpu")
    about = {"format": FORMAT, "version": VERSION, "head_model": kind}
    frames = ",\n".join(f"    {_lines(_frame_fields(params, frame), 4)}" for frame in range(params.batch))
    top = "".join(f'  "{key}": {json.dumps(value)},\n' for key, value in about.items())
    return f'{{\n{top}  "units": {_lines(UNITS, 2)},\n  "frames": [\n{frames}\n  ]\n}}\n'


def heads_from_json(text: str | bytes, source: str) -> StoredHeads:
    """Read heads from the text of a JSON file.

    Args:
        text: The result of `heads_to_json`, possibly edited, or the file's bytes.
        source: The file's name, for messages.

    Raises:
        BadFile: The text is not JSON, the file is of another kind or version, or a field is missing, unknown or invalid.
    """
    source = quote(source)
    data = _parse(text, source)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        got = f"the format {_shown(data['format'])}" if isinstance(data, dict) and "format" in data else "a file without it"
        raise BadFile(f'{source} is not a head: expected "format": "{FORMAT}", got {got}. Choose a file made by Save Head.')
    version = data.get("version")
    if type(version) is not int or version != VERSION:
        raise BadFile(
            f"{source}: expected version {VERSION} of {FORMAT}, got {_shown(version)}. A newer CapFace may have written it."
        )
    kind = data.get("head_model")
    if kind is not None and not isinstance(kind, str):
        raise BadFile(f"{source}: head_model: expected the name of a kind of head model or null, got {_kind_of(kind)}.")
    frames = data.get("frames")
    if not isinstance(frames, list) or not frames:
        raise BadFile(f"{source}: frames: expected a list of at least one head, got {_kind_of(frames)}.")
    at_most(len(frames), MOST_HEADS, "heads", source)
    rows = [_read_frame(frame, f"{source}: frames[{number}]") for number, frame in enumerate(frames)]
    with reading(source, "heads", "Correct it, or save the head again."):
        values = {name: np.array([row[name] for row in rows], np.float64).astype(np.float32) for name in SIZES}
        return StoredHeads(HeadParams(**{name: torch.from_numpy(value) for name, value in values.items()}), kind)


def read_heads(path: Path, name: str | None = None) -> StoredHeads:
    """Read heads from a file.

    Args:
        path: The file.
        name: Its name in messages; by default that of the path.

    Raises:
        MissingFile: The file does not exist.
        BadFile: As `heads_from_json`.
    """
    name = path.name if name is None else name
    with reading(path, "heads", "Choose a file made by Save Head."):
        at_most(path.stat().st_size, LARGEST_HEADS, "bytes", quote(name))
        data = path.read_bytes()
    return heads_from_json(data, name)


def _parse(text: str | bytes, source: str) -> Any:
    """Parse JSON whose size and number of brackets are within the budgets."""
    at_most(len(text), LARGEST_HEADS, "bytes", source)
    brackets = sum(text.count(one) for one in "[{") if isinstance(text, str) else sum(text.count(one) for one in b"[{")
    at_most(brackets, BRACKETS_PER_HEAD * MOST_HEADS, "brackets", source)
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
    except _NoNumber as error:
        where = f"{error.args[0]} is not a valid number for a head"
    except Exception as error:
        if passes(error):
            raise
        where = "too many brackets" if isinstance(error, RecursionError) else "it is not text"
    raise BadFile(f"{source} is not readable as JSON ({where}). Correct it, or save the head again.") from None


class _NoNumber(Exception):
    """NaN or an infinity, which JSON does not have."""


def _lines(fields: dict[str, Any], indent: int) -> str:
    """Format a JSON object with one line per field."""
    body = ",\n".join(
        f'{" " * (indent + 2)}"{name}": {json.dumps(value, ensure_ascii=False)}' for name, value in fields.items()
    )
    return f"{{\n{body}\n{' ' * indent}}}"


def _frame_fields(params: HeadParams, frame: int) -> dict[str, Any]:
    values = {name: getattr(params, name)[frame].numpy() for name in SIZES}
    fields: dict[str, Any] = {"scale": _shortest(values["camera"][:1])[0], "position": _shortest(values["camera"][1:])}
    fields |= {name: _degrees(values[name]) for name in ANGLES}
    fields["eyes"] = [_degrees(values["eyes"][:3]), _degrees(values["eyes"][3:])]
    for name in COEFFICIENTS:
        used = np.flatnonzero(values[name])
        fields[name] = _shortest(values[name][: used[-1] + 1 if len(used) else 0])
    fields["light"] = {name: _shortest(row) for name, row in zip(HARMONICS, values["light"], strict=True)}
    return fields


def _shortest(values: np.ndarray) -> list[float]:
    """Return the shortest decimals that are read as the same float32."""
    return [float(str(value)) for value in values]


def _degrees(radians: np.ndarray) -> list[float]:
    """Return the shortest decimals in degrees that are read as the same float32 in radians."""
    return [_degree(value) for value in radians]


def _degree(radian: np.float32) -> float:
    degrees = math.degrees(float(radian))
    # Nine significant digits distinguish any two float32 values.
    candidates = (float(f"{degrees:.{digits}g}") for digits in range(1, 10))
    return next(value for value in candidates if np.float32(math.radians(value)) == radian)


def _read_frame(frame: object, where: str) -> dict[str, list[Any]]:
    if not isinstance(frame, dict):
        raise BadFile(f"{where}: expected the fields of a head in curly brackets, got {_kind_of(frame)}.")
    _check_names(frame, (*FIELDS, "comment"), FIELDS, where)
    light = frame["light"]
    if not isinstance(light, dict):
        raise BadFile(f"{where}.light: expected the harmonics {', '.join(HARMONICS)}, got {_kind_of(light)}.")
    _check_names(light, HARMONICS, HARMONICS, f"{where}.light")

    limit = LIMITS["camera"]
    camera = _numbers([frame["scale"]], 1, f"{where}.scale", limit=limit)
    camera += _numbers(frame["position"], 2, f"{where}.position", limit=limit)
    if np.float32(camera[0]) <= 0:
        raise BadFile(f"{where}.scale: expected a number above 0, got {camera[0]:g}.")
    eyes = frame["eyes"]
    if not isinstance(eyes, list) or len(eyes) != 2:
        raise BadFile(f"{where}.eyes: expected two lists of 3 angles, got {_kind_of(eyes)}.")
    angles = {name: _numbers(frame[name], 3, f"{where}.{name}") for name in ANGLES}
    angles["eyes"] = [angle for eye, triple in enumerate(eyes) for angle in _numbers(triple, 3, f"{where}.eyes[{eye}]")]
    rows: dict[str, list[Any]] = {name: [math.radians(angle) for angle in value] for name, value in angles.items()}
    for name in COEFFICIENTS:
        count = SIZES[name][0]
        used = _numbers(frame[name], count, f"{where}.{name}", fewer=True, limit=LIMITS.get(name, LARGEST))
        rows[name] = used + [0.0] * (count - len(used))
    rows["light"] = [_numbers(light[name], 3, f"{where}.light[{name}]", limit=LIMITS["light"]) for name in HARMONICS]
    return rows | {"camera": camera}


def _check_names(got: dict[str, Any], known: Iterable[str], needed: Iterable[str], where: str) -> None:
    known, missing = list(known), [name for name in needed if name not in got]
    for name in got:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1) if len(name) <= LONGEST_FIELD else []
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
            raise BadFile(f"{where}: unknown field {_shown(name)}; {hint}")
    if missing:
        raise BadFile(f"{where}: lacks {', '.join(missing)}. Put it back, or save the head again.")


def _numbers(values: object, count: int, where: str, fewer: bool = False, limit: float = LARGEST) -> list[float]:
    wanted = f"{'at most ' if fewer else ''}{count} number{'s' if count > 1 else ''}"
    if not isinstance(values, list):
        raise BadFile(f"{where}: expected a list of {wanted}, got {_kind_of(values)}.")
    if len(values) > count or (len(values) < count and not fewer):
        raise BadFile(f"{where}: expected {wanted}, got {len(values)}.")
    for value in values:
        if type(value) not in (int, float):
            raise BadFile(f"{where}: expected {wanted}, got {_kind_of(value)} among them.")
        if abs(value) > limit:
            raise BadFile(f"{where}: expected {wanted} from -{limit:g} to {limit:g}, got one that is too large.")
    return [float(value) for value in values]


def _no_constant(name: str) -> NoReturn:
    raise _NoNumber(name)


def _shown(value: object) -> str:
    """Return a value from the file as JSON shows it, shortened."""
    return f"'{quote(value)}'" if isinstance(value, str) else quote(value)


def _kind_of(value: object) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    names: dict[type, str] = {
        type(None): "nothing",
        dict: "an object",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names[type(value)]
