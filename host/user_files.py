"""Files that users save and load: numbered in ComfyUI's output folder, chosen from its input and output folders.

A file is named as ComfyUI names it in its own lists: its path within the input folder, or within the output folder with
` [output]` after it.
"""

import os
from pathlib import Path

import folder_paths

from ..errors import BadInput, MissingFile

OUTPUT = " [output]"


def numbered_file(prefix: str, ending: str) -> Path:
    """Return where to save the next file of a series, as ComfyUI numbers images.

    Args:
        prefix: File name, possibly after folders within the output folder; `%date%`-like variables as in Save Image.
        ending: Such as ".json".

    Raises:
        BadInput: the prefix is empty or leads out of the output folder.
    """
    root = folder_paths.get_output_directory()
    if not prefix.strip() or prefix.endswith(("/", "\\")) or not _inside(root, prefix):
        raise BadInput(f"Expected a file name within the output folder, such as capface/head, got {prefix!r}.")
    folder, name, number, *_ = folder_paths.get_save_image_path(prefix, root)
    return Path(folder) / f"{name}_{number:05}_{ending}"


def choices(ending: str) -> list[str]:
    """List the files with an ending: those in the input folder, then those in the output folder, down to one folder deep."""
    found = []
    for root, mark in ((folder_paths.get_input_directory(), ""), (folder_paths.get_output_directory(), OUTPUT)):
        paths = [path for depth in ("", "*/") for path in sorted(Path(root).glob(f"{depth}*{ending}")) if path.is_file()]
        found += [path.relative_to(root).as_posix() + mark for path in paths]
    return found


def find(name: str, ending: str) -> Path:
    """Return the path of a file that was chosen.

    Args:
        name: As in `choices`.
        ending: What its name has to end in.

    Raises:
        BadInput: the name leads out of the folder, or has another ending.
        MissingFile: there is no such file.
    """
    if name.endswith(OUTPUT):
        inner, root = name.removesuffix(OUTPUT), folder_paths.get_output_directory()
    else:
        inner, root = name, folder_paths.get_input_directory()
    if not inner.endswith(ending) or not _inside(root, inner):
        raise BadInput(f"Expected the name of a {ending} file within the input or output folder, got {name!r}.")
    path = Path(root) / inner
    if not path.is_file():
        raise MissingFile(f"{inner} is not in {root}. Put it there, or choose another file and press R to refresh the list.")
    return path


def fingerprint(name: str, ending: str) -> str:
    """Return what changes when a file that was chosen is replaced or edited."""
    stat = find(name, ending).stat()
    return f"{name}:{stat.st_size}:{stat.st_mtime_ns}"


def _inside(root: str, name: str) -> bool:
    """Whether a path within `root` stays there."""
    if "\0" in name:
        return False
    root = os.path.abspath(root)  # noqa: PTH100  links below the folder are its owner's choice and are not followed
    return Path(os.path.abspath(os.path.join(root, name))).is_relative_to(root)  # noqa: PTH100, PTH118
