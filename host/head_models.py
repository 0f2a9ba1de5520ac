"""Head models: the built-in head, and FLAME from files in models/flame."""

import logging
from pathlib import Path

from ..files import catalogue
from ..flame.builtin import builtin_head
from ..flame.io import convert_flame, load_flame
from ..flame.model import HeadModel
from . import model_folders

log = logging.getLogger("capface")

BUILT_IN_HEAD = "built-in"
_COMPANIONS = {
    "landmarks": catalogue.FLAME_LANDMARKS,
    "template": catalogue.FLAME_TEMPLATE,
    "texture": catalogue.FLAME_TEXTURE,
}
"""The files that accompany FLAME's model file, by the names of `load_flame`'s arguments."""


def list_head_models() -> list[str]:
    """List the available head models."""
    return [BUILT_IN_HEAD, *model_folders.choices(catalogue.FLAME)]


def load_head_model(name: str) -> HeadModel:
    """Load a head model.

    Args:
        name: `BUILT_IN_HEAD`, or the name of a file in models/flame.

    Raises:
        MissingFile: The file or a required companion file is missing.
        BadFile: A file has other contents; the message says which.
    """
    if name == BUILT_IN_HEAD:
        return builtin_head()
    path = model_folders.path_of(catalogue.FLAME, name)
    model = load_flame(path, **_companion_files(path))
    if not model.has_landmarks:
        log.warning("%s cannot be fitted to landmarks. %s.", model.name, catalogue.FLAME_LANDMARKS.how_to_get())
    if model.texture_basis is None:
        log.warning("%s has one colour all over. %s.", model.name, catalogue.FLAME_TEXTURE.how_to_get())
    return model


def convert_head_model(name: str, filename: str, overwrite: bool) -> Path:
    """Write FLAME's model file and its companion files to one safetensors file.

    Args:
        name: Name of a file in models/flame.
        filename: Name of the new file, in models/flame.
        overwrite: Whether an existing file of that name is replaced.

    Returns:
        The path of the new file.

    Raises:
        MissingFile, BadFile: As `load_head_model`.
        BadInput: The file name is invalid, or the file exists.
        CannotWrite: The folder or the disk cannot be written to.
    """
    path = model_folders.path_of(catalogue.FLAME, name)
    target = model_folders.new_file(catalogue.FLAME, filename, overwrite)
    return convert_flame(path, target, replace=overwrite, **_companion_files(path))


def head_model_fingerprint(name: str) -> str:
    """Return a text that changes when one of a head model's files is replaced."""
    if name == BUILT_IN_HEAD:
        return name
    companions = [model_folders.fingerprint(asset) for asset in _COMPANIONS.values()]
    return " ".join([model_folders.fingerprint(catalogue.FLAME, name), *companions])


def _companion_files(path: Path) -> dict[str, Path]:
    """Find the companion files of a model file: in the same folder, or else anywhere in the model folders."""
    if path.suffix == ".safetensors":
        return {}
    files = {}
    for name, asset in _COMPANIONS.items():
        beside = path.with_name(asset.file)
        files[name] = beside if beside.is_file() else model_folders.found(asset)
    if files["texture"] is not None and files["template"] is None:
        model_folders.path_of(catalogue.FLAME_TEMPLATE)  # raises MissingFile
    return {name: file for name, file in files.items() if file is not None}
