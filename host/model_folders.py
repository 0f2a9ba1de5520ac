"""Finding the files that the pack can use in ComfyUI's model folders."""

import os
from pathlib import Path

import folder_paths

from ..errors import BadInput, MissingFile
from ..files.catalogue import ASSETS, Asset


def register_folders():
    """Make the pack's model folders known to ComfyUI; folders of extra_model_paths.yaml, which are read earlier, stay."""
    for name in dict.fromkeys(asset.folder for asset in ASSETS):
        folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir) / name))
        paths, extensions = folder_paths.folder_names_and_paths[name]
        # A folder without extensions would offer every file in it.
        own = {asset.ending for asset in ASSETS if asset.folder == name and asset.ending}
        extensions = (extensions or set(folder_paths.supported_pt_extensions)) | own
        folder_paths.folder_names_and_paths[name] = (paths, extensions)


def choices(asset: Asset) -> list[str]:
    """List the files to choose from; where there are none, the one that is wanted, so that choosing it can say what to do."""
    return files(asset) or [asset.file]


def files(asset: Asset) -> list[str]:
    """List the files in an asset's folders."""
    return folder_paths.get_filename_list(asset.folder)


def found(asset: Asset, name: str | None = None) -> Path | None:
    """Return the path of a file, by the asset's own name or another, or None where there is none."""
    path = folder_paths.get_full_path(asset.folder, name or asset.file)
    return None if path is None else Path(path)


def path_of(asset: Asset, name: str | None = None) -> Path:
    """Find a file that is needed.

    Args:
        asset: What it is needed as.
        name: Its name within the folder; the asset's own by default.

    Raises:
        MissingFile: naming the file, the folders that were searched, and the source.
    """
    name = name or asset.file
    path = found(asset, name)
    if path is None:
        raise MissingFile(missing_text(asset, name))
    return path


def missing_text(asset: Asset, name: str) -> str:
    """Say that a file is missing, where it was searched, and where it comes from."""
    searched = " or ".join(folder_paths.get_folder_paths(asset.folder))
    return f"{name} is not in {searched}. {asset.how_to_get()}, put it there and press R to refresh the lists."


def fingerprint(asset: Asset, name: str | None = None) -> str:
    """Return what changes when the file is replaced: its path, size and time."""
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
    """Return where to write a new safetensors file of the user's choice.

    Args:
        asset: Whose folder it goes to.
        name: File name without folders; the ending is added where it is missing.
        overwrite: Whether a file of that name may be replaced.

    Raises:
        BadInput: for an empty name, one with folders in it, or an existing file.
    """
    name = name.strip()
    if not name or Path(name).name != name or name.startswith("."):
        raise BadInput(f"Expected a plain file name such as capface.safetensors, got {name!r}.")
    target = folder(asset) / (name if name.endswith(".safetensors") else f"{name}.safetensors")
    if target.exists() and not overwrite:
        raise BadInput(f"{target} exists already. Choose another name, or turn on overwrite.")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
