"""Example pictures for the workflows, in ComfyUI's input folder, so that nothing is missing when a workflow is opened first."""

import logging
import shutil
from pathlib import Path

import folder_paths

from ..errors import CannotWrite
from ..files.atomic import write_atomically

PICTURES = Path(__file__).resolve().parent.parent / "workflows" / "pictures"


def place_examples() -> list[Path]:
    """Copy the example pictures that ComfyUI's input folder lacks. A file that is there is never replaced.

    Returns:
        The new files.
    """
    folder, placed = Path(folder_paths.get_input_directory()), []
    if not folder.is_dir():
        return placed
    for picture in sorted(PICTURES.glob("*.png")):
        target = folder / picture.name
        if target.exists():
            continue
        try:
            write_atomically(target, lambda part, picture=picture: shutil.copyfile(picture, part), replace=False)
        except (CannotWrite, OSError) as error:  # an input folder that cannot be written to does not keep the pack from loading
            logging.getLogger("capface").info("No example picture in %s: %s", folder, error)
            break
        placed.append(target)
    return placed
