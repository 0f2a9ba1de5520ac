"""The pack's files in ComfyUI's model folders."""

import os
from pathlib import Path

import folder_paths

from ..errors import BadInput, MissingFile
from ..files.atomic import cannot_write, check_name
from ..files.catalogue import ASSETS, Asset

HOST_FOLDERS = ("detection",)
"""Folders that newer versions of ComfyUI register themselves."""


def register_folders() -> None:
    """Register the pack's model folders with ComfyUI. Folders of extra_model_paths.yaml, registered earlier, are kept."""
    for name in dict.fromkeys(asset.folder for asset in ASSETS):
        if name in HOST_FOLDERS and name in folder_paths.folder_names_and_paths:
            continue  # its list of files is the host's own
        folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir) / name))
        paths, extensions = folder_paths.folder_names_and_paths[name]
        # ComfyUI would list every file of a folder that has no extensions.
        own = {asset.ending for asset in ASSETS if asset.folder == name and asset.ending}
        extensions = (extensions or set(folder_paths.supported_pt_extensions)) | own
        folder_paths.folder_names_and_paths[name] = (paths, extensions)


def choices(asset: Asset) -> list[str]:
    """List an asset's choices. Without files, list its own name, so that the error message can say what to do."""
    return files(asset) or [asset.file]


def files(asset: Asset) -> list[str]:
    """List the files in an asset's folders."""
    return folder_paths.get_filename_list(asset.folder)


def found(asset: Asset, name: str | None = None) -> Path | None:
    """Return the path of a file with the asset's own name or another, or None if it does not exist."""
    path = folder_paths.get_full_path(asset.folder, name or asset.file)
    return None if path is None else Path(path)


def path_of(asset: Asset, name: str | None = None) -> Path:
    """Return the path of a required file.

    Args:
        asset: The asset.
        name: Name of the file within the asset's folder. By default, the asset's own name.

    Raises:
        MissingFile: The file does not exist. The message names the file, the searched folders and the source.
    """
    name = name or asset.file
    path = found(asset, name)
    if path is None:
        raise MissingFile(missing_text(asset, name))
    return path


def missing_text(asset: Asset, name: str) -> str:
    """Return the message for a missing file, with the searched folders and the file's source."""
    searched = " or ".join(folder_paths.get_folder_paths(asset.folder))
    return f"{name} is not in {searched}. {asset.how_to_get()}, put it there and press R to refresh the lists."


def fingerprint(asset: Asset, name: str | None = None) -> str:
    """Return a text that changes when the file is replaced: its path, size and time."""
    path = found(asset, name)
    if path is None:
        return f"{name or asset.file}: missing"
    stat = os.stat(path)  # noqa: PTH116  follows links, unlike a listing
    return f"{path}:{stat.st_size}:{stat.st_mtime_ns}"


def folder(asset: Asset) -> Path:
    """Return the first of an asset's folders that exists, or the default one."""
    paths = [Path(p) for p in folder_paths.get_folder_paths(asset.folder)]
    return next((p for p in paths if p.is_dir()), paths[0])


def new_file(asset: Asset, name: str, overwrite: bool) -> Path:
    """Return the path for a new safetensors file that the user has named.

    Args:
        asset: The asset whose folder gets the file.
        name: File name without folders. A missing ending is added.
        overwrite: Whether an existing file of that name is replaced.

    Raises:
        BadInput: The name is empty, too long or contains folders, or the file exists.
        CannotWrite: The folder does not exist and cannot be made.
    """
    name = name.strip()
    check_name(f"{name}.safetensors")
    if not name or Path(name).name != name or name.startswith("."):
        raise BadInput(f"Expected a plain file name such as capface.safetensors, got {name[:80]!r}.")
    target = folder(asset) / (name if name.endswith(".safetensors") else f"{name}.safetensors")
    if target.exists() and not overwrite:
        raise BadInput(f"{target} exists already. Choose another name, or turn on overwrite.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(target, error) from error
    return target
