"""JSON files that people write: their values, the line of each, and keys that are given twice."""

import json
import re
from pathlib import Path
from typing import Any

Path_ = tuple[str | int, ...]
"""Keys and indices that lead to a value: `("methods", "LoRA", "workflow")`."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


class Problems:
    """Mistakes in a manifest, each with its place."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, file: Path, places: dict[Path_, int], path: Path_, text: str) -> None:
        """Note a mistake.

        Args:
            file: The file that it is in.
            places: The file's lines, from `read_json`.
            path: The value. If the file does not have it, the place is that of what should hold it.
            text: What was expected, and what was found.
        """
        at = path
        while at not in places and at:
            at = at[:-1]
        self.lines.append(f"{file.name}:{places.get(at, 1)}: {spelled(path)}{': ' if path else ''}{text}")

    def __bool__(self) -> bool:
        return bool(self.lines)


def spelled(path: Path_) -> str:
    """Write a path as people do: `methods.LoRA.workflow`, `prompts[3]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def read_json(file: Path, problems: Problems) -> tuple[Any, dict[Path_, int]]:
    """Read a file.

    Args:
        file: A JSON file.
        problems: Gets what is wrong with the file as such.

    Returns:
        The value, and the line of each value in it by its path. None and no lines if the file cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
        value = json.loads(text)
    except OSError as error:
        problems.add(file, {}, (), f"cannot be read ({error.strerror or error})")
        return None, {}
    except UnicodeDecodeError:
        problems.add(file, {}, (), "expected text in UTF-8")
        return None, {}
    except json.JSONDecodeError as error:
        problems.add(file, {(): error.lineno}, (), f"not valid JSON: {error.msg}")
        return None, {}
    places, doubled = _walk(text)
    for path in doubled:
        problems.add(file, places, path, "this key is given twice")
    return value, places


def _walk(text: str) -> tuple[dict[Path_, int], list[Path_]]:
    """Return the line of each value in a valid JSON text, and the paths of keys that are given twice."""
    tokens = ((found[0], text.count("\n", 0, found.start()) + 1) for found in _TOKEN.finditer(text))
    places: dict[Path_, int] = {}
    doubled: list[Path_] = []

    def value(token: str, line: int, path: Path_) -> None:
        places[path] = line
        if token not in "{[":
            return
        end, index = "}]"["{[".index(token)], 0
        token, line = next(tokens)
        while token != end:
            if end == "}":
                inner: Path_ = (*path, json.loads(token))
                next(tokens)  # the colon
                if inner in places:
                    doubled.append(inner)
                token, line = next(tokens)
            else:
                inner, index = (*path, index), index + 1
            value(token, line, inner)
            token, line = next(tokens)
            if token == ",":
                token, line = next(tokens)

    value(*next(tokens), ())
    return places, doubled
