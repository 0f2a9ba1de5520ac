"""Show and fetch the model files: `python <the pack's folder>/files/weights.py get portrait`, in ComfyUI's Python.

ComfyUI loads the pack by path, under whatever name the folder has, and so does this script: nothing need be installed, and the
folder may be called CapFace-ComfyUI. Only the user starts it; no node imports it. The work is done in `files/downloads`.
"""

import importlib.util
import os
import shlex
import sys
from pathlib import Path

PACKAGE = "capface"


def command(*arguments: str, windows: bool = os.name == "nt") -> str:
    """Return the line that starts this script in this Python, wherever the pack lies.

    Args:
        arguments: Its arguments, such as "get" and "portrait".
        windows: Whether it is quoted for Windows.
    """
    words = [sys.executable, str(Path(__file__).resolve()), *arguments]
    if windows:
        return " ".join(f'"{word}"' if " " in word else word for word in words)
    return shlex.join(words)


def main() -> int:
    """Load the pack as a package, and run the command; returns the exit status."""
    if sys.version_info < (3, 10):  # noqa: UP036  the message is for whoever starts it with an older one
        sys.stderr.write(f"CapFace needs Python 3.10 or newer; this is {sys.version.split()[0]} ({sys.executable}).\n")
        return 2
    root = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(PACKAGE, root / "__init__.py", submodule_search_locations=[str(root)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{root} is not the pack: expected its __init__.py there.")
    sys.modules[PACKAGE] = pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")  # a folder's name may hold what a console's code page cannot show
    return importlib.import_module(f"{PACKAGE}.files.downloads.command").main()


if __name__ == "__main__":
    sys.exit(main())
