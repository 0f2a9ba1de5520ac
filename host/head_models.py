"""Head models: the built-in one, and FLAME from the files in models/flame."""

import logging
from pathlib import Path

from ..files import catalogue
from ..flame.builtin import builtin_head
from ..flame.io import convert_flame, load_flame
from ..flame.model import HeadModel
from . import model_folders

log = logging.getLogger("capface")

BUILT_IN = "built-in"
_BESIDE = {
    "landmarks": catalogue.FLAME_LANDMARKS,
    "template": catalogue.FLAME_TEMPLATE,
    "texture": catalogue.FLAME_TEXTURE,
}
"""The files that belong to FLAME's, by `load_flame`'s names for them."""


def choices() -> list[str]:
    """List the head models to choose from."""
    return [BUILT_IN, *model_folders.choices(catalogue.FLAME)]


def load_head(name: str) -> HeadModel:
    """Load a head model.

    Args:
        name: BUILT_IN, or a file in models/flame.

    Raises:
        MissingFile: the file is not there, or one without which the others are of no use.
        BadFile: a file is something else; the message says what.
    """
    if name == BUILT_IN:
        return builtin_head()
    path = model_folders.path_of(catalogue.FLAME, name)
    model = load_flame(path, **_files_beside(path))
    if not model.has_landmarks:
        log.warning("%s cannot be fitted to landmarks. %s.", model.name, catalogue.FLAME_LANDMARKS.how_to_get())
    if model.texture_basis is None:
        log.warning("%s has one colour all over. %s.", model.name, catalogue.FLAME_TEXTURE.how_to_get())
    return model


def convert_head(name: str, filename: str, overwrite: bool) -> Path:
    """Write one safetensors file of FLAME and what lies beside it.

    Args:
        name: A file in models/flame.
        filename: Of the new file, in models/flame.
        overwrite: Whether a file of that name may be replaced.

    Returns:
        The new file.

    Raises:
        MissingFile, BadFile: as `load_head`.
        BadInput: the file name is none, or taken.
    """
    path = model_folders.path_of(catalogue.FLAME, name)
    return convert_flame(path, model_folders.new_file(catalogue.FLAME, filename, overwrite), **_files_beside(path))


def fingerprint(name: str) -> str:
    """Return what changes when one of a head model's files is replaced."""
    if name == BUILT_IN:
        return name
    return " ".join(
        model_folders.fingerprint(asset, file)
        for asset, file in ((catalogue.FLAME, name), *((a, None) for a in _BESIDE.values()))
    )


def _files_beside(path: Path) -> dict[str, Path]:
    """The files that belong to a model: beside it, or else anywhere in the model folders."""
    if path.suffix == ".safetensors":
        return {}
    files = {}
    for name, asset in _BESIDE.items():
        beside = path.with_name(asset.file)
        files[name] = beside if beside.is_file() else model_folders.found(asset)
    if files["texture"] is not None and files["template"] is None:
        model_folders.path_of(catalogue.FLAME_TEMPLATE)  # says where to get it
    return {name: file for name, file in files.items() if file is not None}
