"""Head models: the built-in one, and FLAME from the files in models/flame."""

import logging
from pathlib import Path

from ..flame.assets import convert_flame, load_flame
from ..flame.builtin import builtin_head
from ..flame.head import HeadModel
from . import assets

log = logging.getLogger("capface")

BUILT_IN = "built-in"
_BESIDE = {"landmarks": assets.FLAME_LANDMARKS, "template": assets.FLAME_TEMPLATE, "texture": assets.FLAME_TEXTURE}
"""The files that belong to FLAME's, by `load_flame`'s names for them."""


def choices() -> list[str]:
    """List the head models to choose from."""
    return [BUILT_IN, *assets.choices(assets.FLAME)]


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
    path = assets.path_of(assets.FLAME, name)
    model = load_flame(path, **_files_beside(path))
    if not model.has_landmarks:
        log.warning("%s cannot be fitted to landmarks. %s.", model.name, assets.FLAME_LANDMARKS.how_to_get())
    if model.texture_basis is None:
        log.warning("%s has one colour all over. %s.", model.name, assets.FLAME_TEXTURE.how_to_get())
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
    path = assets.path_of(assets.FLAME, name)
    return convert_flame(path, assets.new_file(assets.FLAME, filename, overwrite), **_files_beside(path))


def fingerprint(name: str) -> str:
    """Return what changes when one of a head model's files is replaced."""
    if name == BUILT_IN:
        return name
    return " ".join(
        assets.fingerprint(asset, file) for asset, file in ((assets.FLAME, name), *((a, None) for a in _BESIDE.values()))
    )


def _files_beside(path: Path) -> dict[str, Path]:
    """The files that belong to a model: beside it, or else anywhere in the model folders."""
    if path.suffix == ".safetensors":
        return {}
    files = {}
    for name, asset in _BESIDE.items():
        beside = path.with_name(asset.file)
        files[name] = beside if beside.is_file() else assets.found(asset)
    if files["texture"] is not None and files["template"] is None:
        assets.path_of(assets.FLAME_TEMPLATE)  # says where to get it
    return {name: file for name, file in files.items() if file is not None}
