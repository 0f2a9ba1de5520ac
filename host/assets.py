"""The files that the pack can use: where they belong, what they are for, where they come from, and how to find them."""

import os
from dataclasses import dataclass
from pathlib import Path

import folder_paths

from ..errors import BadInput, MissingFile


@dataclass(frozen=True)
class Asset:
    """A file that the user brings."""

    folder: str
    """Name of the folder under ComfyUI's `models`, also in extra_model_paths.yaml."""
    file: str
    purpose: str
    source: str
    licence: str
    md5: str | None = None

    def how_to_get(self) -> str:
        """Say in a sentence what to do about it being missing."""
        checksum = f", MD5 {self.md5}" if self.md5 else ""
        return f"Get {self.file} ({self.purpose}) from {self.source} (licence {self.licence}{checksum})"


CAPHUMAN = Asset(
    "capface",
    "caphuman.ckpt",
    "the CapFace network",
    "the page of github.com/VamosC/CapHuman",
    "CC-BY-NC-4.0",
    "6f0086112db9abc6ce4518a458d4d4b8",
)
FACENET = Asset(
    "facenet",
    "20180402-114759-vggface2.pt",
    "FaceNet, the global identity",
    "the releases of github.com/timesler/facenet-pytorch",
    "MIT",
)
INSIGHTFACE = Asset(
    "insightface",
    "models/buffalo_l/*.onnx",
    "face detection and landmarks",
    "the releases of github.com/deepinsight/insightface",
    "non-commercial research",
)
ASSETS = (CAPHUMAN, FACENET, INSIGHTFACE)


def register_folders():
    """Make the pack's model folders known to ComfyUI; folders of extra_model_paths.yaml, which are read earlier, stay."""
    for name in dict.fromkeys(asset.folder for asset in ASSETS):
        folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir) / name))
        paths, extensions = folder_paths.folder_names_and_paths[name]
        # A folder without extensions would offer every file in it.
        folder_paths.folder_names_and_paths[name] = (paths, extensions or set(folder_paths.supported_pt_extensions))


def choices(asset: Asset) -> list[str]:
    """List the files to choose from; where there are none, the one that is wanted, so that choosing it can say what to do."""
    return folder_paths.get_filename_list(asset.folder) or [asset.file]


def path_of(asset: Asset, name: str) -> Path:
    """Find a file that was chosen.

    Args:
        asset: What it is chosen as.
        name: Its name within the folder.

    Raises:
        MissingFile: naming the file, the folders that were searched, and the source.
    """
    found = folder_paths.get_full_path(asset.folder, name)
    if found is None:
        searched = " or ".join(folder_paths.get_folder_paths(asset.folder))
        raise MissingFile(f"{name} is not in {searched}. {asset.how_to_get()}, put it there and press R to refresh the lists.")
    return Path(found)


def fingerprint(asset: Asset, name: str) -> str:
    """Return what changes when the file is replaced: its path, size and time."""
    found = folder_paths.get_full_path(asset.folder, name)
    if found is None:
        return f"{name}: missing"
    stat = os.stat(found)  # noqa: PTH116  follows links, unlike a listing
    return f"{found}:{stat.st_size}:{stat.st_mtime_ns}"


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
