"""Files that users save to ComfyUI's output folder, and load from its input and output folders.

A file is named as in ComfyUI's own lists: by its path within the input folder, or by its path within the output folder followed
by ` [output]`.
"""

import os
from collections.abc import Callable
from pathlib import Path

import folder_paths

from ..errors import BadInput, MissingFile
from ..files.atomic import LONGEST_NAME, cannot_write, check_name, write_numbered

INPUT, OUTPUT, TEMPORARY = " [input]", " [output]", " [temp]"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
"""Endings of pictures."""
LARGEST_PICTURE = 64_000_000
"""Bytes of a picture's file."""


def save_numbered(prefix: str, ending: str, write: Callable[[Path], object]) -> Path:
    """Write the next file of a series, numbered as ComfyUI numbers images. Several ComfyUIs may share the output folder.

    Args:
        prefix: Path within the output folder, without number and ending. Variables such as `%year%` work as in Save Image.
        ending: Ending of the file name, such as ".json".
        write: Writes the file to the given path.

    Returns:
        The new file.

    Raises:
        BadInput: The prefix is empty, leads out of the output folder, or makes a name that is too long.
        CannotWrite: The output folder or the disk cannot be written to.
    """
    root = folder_paths.get_output_directory()
    check_name(f"{prefix}_00001_{ending}")
    if not prefix.strip() or prefix.endswith(("/", "\\")) or not _inside(root, prefix):
        raise BadInput(f"Expected a file name within the output folder, such as capface/head, got {prefix[:80]!r}.")
    try:
        folder, name, number, *_ = folder_paths.get_save_image_path(prefix, root)
    except OSError as error:
        raise cannot_write(Path(root) / prefix, error) from error
    return write_numbered(lambda number: Path(folder) / f"{name}_{number:05}_{ending}", number, write)


def list_user_files(ending: str) -> list[str]:
    """List the files with an ending: first those in the input folder, then those in the output folder, up to one level deep."""
    found = []
    for root, mark in ((folder_paths.get_input_directory(), ""), (folder_paths.get_output_directory(), OUTPUT)):
        paths = [path for depth in ("", "*/") for path in sorted(Path(root).glob(f"{depth}*{ending}")) if path.is_file()]
        found += [path.relative_to(root).as_posix() + mark for path in paths]
    return found


def find_user_file(name: str, ending: str) -> Path:
    """Return the path of a file.

    Args:
        name: Name as in `list_user_files`.
        ending: Required ending of the name.

    Raises:
        BadInput: The name leads out of the folder, has another ending, or is none that a file can have; or the file is larger
            than `LARGEST_PICTURE`.
        MissingFile: The file does not exist.
    """
    if name.endswith(OUTPUT):
        inner, root = name.removesuffix(OUTPUT), folder_paths.get_output_directory()
    else:
        inner, root = name, folder_paths.get_input_directory()
    return _find(inner, root, ending, name)


def _find(inner: str, root: str, ending: str, name: str) -> Path:
    """Return the path of a file within a folder; the errors are those of `find_user_file`."""
    if not inner.endswith(ending) or not _inside(root, inner):
        raise BadInput(f"Expected the name of a {ending} file within the input or output folder, got {name[:80]!r}.")
    check_name(inner)
    path = Path(root) / inner
    if not os.path.isfile(path):  # noqa: PTH113  False, not an error, for a path that is too long
        shown = inner if len(inner) <= LONGEST_NAME else f"{inner[:80]}…"
        raise MissingFile(f"{shown} is not in {root}. Put it there, or choose another file and press R to refresh the list.")
    return path


def find_picture(name: str, temporary: bool = True) -> Path:
    """Return the path of a picture in the input folder, or in the temporary folder.

    Args:
        name: Name as Load Image lists it, which may end with " [input]"; " [temp]" at the end stands for the temporary folder.
        temporary: Whether the temporary folder is allowed.

    Raises:
        BadInput: The name leads out of the folder, has another ending, or is none that a file can have.
        MissingFile: The file does not exist.
    """
    inner, root = name.removesuffix(INPUT), folder_paths.get_input_directory()
    if temporary and name.endswith(TEMPORARY):
        inner, root = name.removesuffix(TEMPORARY), folder_paths.get_temp_directory()
    ending = os.path.splitext(inner)[1]  # noqa: PTH122  also for names that no path can have
    if ending.lower() not in PICTURES:
        raise BadInput(f"Expected the name of a picture within the input folder, got {name[:80]!r}.")
    path = _find(inner, root, ending, name)
    size, most = path.stat().st_size / 1e6, LARGEST_PICTURE // 1_000_000
    if size > most:
        raise BadInput(f"Expected a photo of at most {most} MB, got {size:.0f} MB.")
    return path


def input_picture_fingerprint(name: str) -> str:
    """Return a text that changes when the picture is replaced or edited."""
    stat = find_picture(name, temporary=False).stat()
    return f"{name}:{stat.st_size}:{stat.st_mtime_ns}"


def user_file_fingerprint(name: str, ending: str) -> str:
    """Return a text that changes when the file is replaced or edited."""
    stat = find_user_file(name, ending).stat()
    return f"{name}:{stat.st_size}:{stat.st_mtime_ns}"


def _inside(root: str, name: str) -> bool:
    """Return whether a path relative to `root` stays within it."""
    if "\0" in name:
        return False
    root = os.path.abspath(root)  # noqa: PTH100  does not follow links: users may link to other folders
    return Path(os.path.abspath(os.path.join(root, name))).is_relative_to(root)  # noqa: PTH100, PTH118
