"""Report which files and packages CapFace finds, and which features they enable; started by `tasks.py check`."""

import argparse
import contextlib
import platform
import sys
from pathlib import Path

from capface.tools.comfy import import_host


def in_host(comfyui, verify):
    """Return the report on a ComfyUI: its own model folders, and those of its extra_model_paths.yaml."""
    import torch

    with contextlib.redirect_stdout(sys.stderr):  # what the host prints during its import is not part of the report
        import_host(comfyui, comfyui, cpu=not torch.accelerator.is_available())
        import comfy.utils
        from utils.extra_config import load_extra_path_config

        extra = Path(comfyui) / "extra_model_paths.yaml"
        if extra.is_file():
            load_extra_path_config(str(extra))
        if verify:
            comfy.utils.set_progress_bar_global_hook(show)
        from capface.host.installation import check

        return check(verify)


def show(value, total, *_, **__):
    """Update a progress line on the terminal."""
    print(f"\rreading {value / max(total, 1):4.0%}", end="\n" if value == total else "", file=sys.stderr, flush=True)


def alone():
    """Return the report without a ComfyUI: the known files, and the installed packages."""
    import torch

    from capface.files.capabilities import Inventory
    from capface.files.scan import SearchPaths, scan
    from capface.files.scan_report import report

    machine = [
        f"CapFace without a ComfyUI, Python {platform.python_version()} on {sys.platform}, torch {torch.__version__}",
        "Name a ComfyUI with --comfyui PATH to have its folders searched.",
    ]
    return report(machine, Inventory(scan(SearchPaths({}, {}, [])), [], []))


def main():
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comfyui", metavar="PATH", help="folder of a ComfyUI")
    parser.add_argument("--checksums", action="store_true", help="compare checksums")
    options = parser.parse_args()
    print(in_host(options.comfyui, options.checksums) if options.comfyui else alone(), end="")


if __name__ == "__main__":
    main()
