"""Safe and lazy reading of checkpoints, recognised by their contents instead of their names.

Files are mapped to memory: a tensor costs memory only when it is used. Pickles go through torch's weights-only unpickler, so
their code does not run.
"""

import logging
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BadFile
from .header import PICKLE_BEGIN, ZIP_BEGIN, begins_as_safetensors, is_safetensors, read_begin

log = logging.getLogger("capface")


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
    begin = read_begin(path)
    if begin.startswith(ZIP_BEGIN):
        state = _read_zip(path)
    elif is_safetensors(path):
        state = _read_safetensors(path)
    elif begin.startswith(PICKLE_BEGIN):
        state = _unpickle(path, mmap=False)
    elif begins_as_safetensors(begin):
        raise BadFile(f"{path.name} is a truncated safetensors file ({path.stat().st_size:,} bytes). Download it again.")
    else:
        raise BadFile(
            f"{path.name} is not a checkpoint: expected safetensors or a torch pickle, got a file that begins with {begin[:8]}."
        )
    tree: Any = state.get("state_dict", state) if isinstance(state, Mapping) else {"": state}
    return _flatten(tree)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  safe_open is not a dict
    except SafetensorError as error:
        raise BadFile(f"{path.name} is a broken or truncated safetensors file ({error}). Download it again.") from None


def _read_zip(path: Path) -> object:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except zipfile.BadZipFile:
        size = path.stat().st_size
        raise BadFile(f"{path.name} is a truncated torch checkpoint ({size:,} bytes). Download it again.") from None
    if not any(n.endswith("data.pkl") for n in names):
        raise BadFile(f"{path.name} is a zip archive, not a checkpoint: unpack it. It holds {', '.join(names[:3])}.")
    if any("/code/" in n for n in names):
        raise BadFile(
            f"{path.name} is a TorchScript program, as OpenAI's own CLIP files are, which is never run. Get the same weights "
            "as safetensors."
        )
    return _unpickle(path, mmap=True)


def _unpickle(path: Path, *, mmap: bool) -> object:
    """Unpickle tensors and plain containers. Objects of other classes become inert placeholders; their code does not run."""
    foreign: list[str] = []
    while True:
        inert: list[Any] = [(type("Inert", (_Inert,), {}), name) for name in foreign]
        try:
            with torch.serialization.safe_globals(inert) if inert else nullcontext():
                state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
            break
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL (\S+)", str(error))
            if not found:
                raise BadFile(f"{path.name} is a broken checkpoint ({error}). Download it again.") from None
            if found[1] in foreign or "." not in found[1]:
                raise BadFile(
                    f"{path.name} holds Python code ({found[1]}), which is never run. Expected only tensors: get the file "
                    "from its source, as safetensors if available."
                ) from None
            foreign.append(found[1])
        except (RuntimeError, EOFError, ValueError, OSError) as error:
            raise BadFile(f"{path.name} is a broken or truncated checkpoint ({error}). Download it again.") from None
    if foreign:
        log.info("%s also holds %s; they are left out.", path.name, ", ".join(foreign))
    return state


class _Inert:
    """A placeholder for an object whose class is not loaded: it accepts any arguments and state, and keeps nothing."""

    def __new__(cls, *_args: object, **_kwargs: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    flat: dict[str, Tensor] = {}
    for key, value in tree.items():
        if isinstance(value, Tensor):
            flat[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
    return flat
