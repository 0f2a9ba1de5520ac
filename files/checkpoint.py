"""Safe and lazy reading of checkpoints, recognised by their contents instead of their names.

Files are mapped to memory if their format allows: a tensor costs memory only when it is used. Pickles are read as data, so
their code does not run.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import BadFile, quote
from .boundary import passes, reading
from .budgets import LARGEST_HEADER, LONGEST_NAME, MOST_ENTRIES, MOST_NESTING, MOST_REPEATED, MOST_TENSORS, NAME_CHARACTERS
from .header import LENGTH_BYTES, PICKLE_BEGIN, ZIP_BEGIN, begins_as_safetensors, is_safetensors, read_begin
from .pickles import Kept
from .torch_files import TorchFile, View, make_tensors, read_legacy, read_zip, repeated_bytes

log = logging.getLogger("capface")

WRAPPERS = frozenset(
    ("module", "model", "_orig_mod", "state_dict", "model_state_dict", "net", "network", "params", "student", "generator")
)
"""Names that training code puts before those of a network's tensors."""
AVERAGES = frozenset(("ema", "ema_model", "model_ema", "state_dict_ema", "params_ema", "teacher", "average"))
"""The same for averages of the weights over the training."""
LISTED = 6
"""Foreign classes that are named in the log."""


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a checkpoint's tensors lazily.

    Args:
        path: A torch pickle (zip, or the format before torch 1.6) or a safetensors file, whatever its extension.

    Returns:
        Tensors by key, mapped to the file if its format allows. The contents of `state_dict` are unwrapped, other nested
        dictionaries are joined with dots, and anything but tensors is left out.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is not a checkpoint, is broken, or holds code; the message says which.
    """
    path = Path(path)
    name = quote(path.name)
    with reading(path, "a checkpoint"):
        begin = read_begin(path)
        if begin.startswith(ZIP_BEGIN):
            return _tensors(path, read_zip)
        if is_safetensors(path):
            return read_safetensors(path)[0]
        if begin.startswith(PICKLE_BEGIN):
            return _tensors(path, read_legacy)
        if begins_as_safetensors(begin):
            raise BadFile(f"{name} is a truncated safetensors file ({path.stat().st_size:,} bytes). Download it again.")
        raise BadFile(
            f"{name} is not a checkpoint: expected safetensors or a torch pickle, got a file that begins with {begin[:8]}."
        )


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file.

    Args:
        path: The file.

    Returns:
        Tensors by key, mapped to the file, and the file's metadata.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is broken, truncated, or beyond a budget.
    """
    from safetensors import safe_open

    with reading(path, "a safetensors file"):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            header = file.read(min(length, LARGEST_HEADER + 1))
        size = path.stat().st_size
        try:
            if len(header) < length or header.count(b'"data_offsets"') > MOST_TENSORS:
                raise ValueError
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except Exception as error:
            if passes(error) or isinstance(error, OSError | MemoryError):
                raise
            raise BadFile(
                f"{quote(path.name)} is a broken or truncated safetensors file ({size:,} bytes). Download it again."
            ) from None


def unwrap(state: Mapping[str, Tensor], sign: str) -> dict[str, Tensor]:
    """Remove what training code puts before the names of a network's tensors, such as `module.` and `ema.`.

    Args:
        state: Tensors by key.
        sign: The name of a tensor that the network has, or its beginning.

    Returns:
        The tensors whose keys begin with the same wrappers as the sign, without them. If there are several such sets, the
        shortest is taken that is no average. Without wrappers, or without the sign, the state as it is.
    """
    if any(key.startswith(sign) for key in state):
        return dict(state)
    found = {key[: key.index(f".{sign}") + 1] for key in state if f".{sign}" in key}
    known = [prefix for prefix in found if set(prefix[:-1].split(".")) <= WRAPPERS | AVERAGES]
    if not known:
        return dict(state)
    best = min(known, key=lambda prefix: (not AVERAGES.isdisjoint(prefix.split(".")), len(prefix), prefix))
    return {key[len(best) :]: tensor for key, tensor in state.items() if key.startswith(best)}


def read_tree(path: Path) -> Any:
    """Read a file of torch as nested dictionaries, lists and tuples of tensors, numbers and texts.

    Args:
        path: A torch pickle (zip, or the format before torch 1.6).

    Returns:
        The contents, with copies of the tensors. Foreign objects are None.

    Raises:
        MissingFile: The file does not exist.
        BadFile: The file is broken, holds code, or is beyond a budget.
    """
    with reading(path, "a file of torch"), _named(path):
        return _Tree(read_zip(path) if read_begin(path).startswith(ZIP_BEGIN) else read_legacy(path)).copy(None, 0)


class _Tree:
    """Copies the contents of a file."""

    def __init__(self, file: TorchFile):
        self.file, self.looked, self.repeated = file, 0, 0

    def copy(self, value: Any, depth: int) -> Any:
        value = self.file.content if depth == 0 else value
        self.looked += 1
        if self.looked > MOST_ENTRIES or depth > MOST_NESTING:
            raise BadFile("its contents are nested too deeply, or too many")
        if isinstance(value, View):
            tensor = make_tensors(self.file, {"": value})[""]
            self.repeated += repeated_bytes([tensor])
            if self.repeated > MOST_REPEATED:
                raise BadFile("its tensors together are larger than the file")
            return tensor.clone()
        if isinstance(value, dict):
            return {key: self.copy(one, depth + 1) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.copy(one, depth + 1) for one in value)
        return value if isinstance(value, str | int | float | bytes) else None


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Complete the clauses of `pickles` and `torch_files` with the file's name and what to do."""
    try:
        yield
    except BadFile as error:
        if quote(path.name) in str(error):
            raise
        code = "never run" in str(error)
        remedy = (
            "Expected only tensors: get the file from its source, as safetensors if available" if code else "Download it again"
        )
        raise BadFile(f"{quote(path.name)} cannot be read as a checkpoint: {error}. {remedy}.") from None


def _tensors(path: Path, read: Callable[[Path], TorchFile]) -> dict[str, Tensor]:
    with _named(path):
        file = read(path)
        tree = file.content
        inner = _entries(tree).get("state_dict")
        views, foreign = _flatten(inner if _is_tree(inner) or isinstance(inner, View) else tree)
        tensors = make_tensors(file, views)
    if foreign:
        log.info("%s also holds objects of %s; they are left out.", path.name, ", ".join(map(quote, foreign[:LISTED])))
    return tensors


def _is_tree(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, Kept) and bool(value.entries))


def _entries(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else value.entries if isinstance(value, Kept) else {}


def _flatten(tree: object) -> tuple[dict[str, View], list[str]]:
    """Join the names of nested dictionaries with dots.

    Returns:
        The tensors by name, and the kinds of objects that were found beside them.

    Raises:
        BadFile: There are too many entries, too deep ones, or too long names.
    """
    if isinstance(tree, View):
        return {"": tree}, []
    flat: dict[str, View] = {}
    foreign: dict[str, None] = {}
    looked, characters = 0, 0
    levels: list[tuple[str, Iterator[tuple[Any, Any]]]] = [("", iter(_entries(tree).items()))]
    while levels:
        prefix, entries = levels[-1]
        for key, value in entries:
            looked += 1
            if looked > MOST_TENSORS:
                raise BadFile(f"it has more than {MOST_TENSORS:,} entries")
            if isinstance(value, Kept):
                foreign[value.kind] = None
            if not isinstance(value, View) and not _is_tree(value):
                continue
            if type(key) not in (str, int):
                continue
            name = f"{prefix}{key}"
            characters += len(name)
            if len(name) > LONGEST_NAME or characters > NAME_CHARACTERS or len(levels) > MOST_NESTING:
                raise BadFile("its dictionaries are nested too deeply, or their names are too long")
            if isinstance(value, View):
                flat[name] = value
            else:
                levels.append((f"{name}.", iter(_entries(value).items())))
                break
        else:
            levels.pop()
    return flat, list(foreign)
