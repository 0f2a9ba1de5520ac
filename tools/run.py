"""Runs a script with the pack importable as `capface`, whatever its folder is called: `python tools/run.py SCRIPT ...`."""

import importlib.util
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def load_pack():
    """Load the pack by path, the way ComfyUI does, under the name `capface`."""
    spec = importlib.util.spec_from_file_location("capface", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    pack = importlib.util.module_from_spec(spec)
    sys.modules["capface"] = pack
    spec.loader.exec_module(pack)


if __name__ == "__main__":
    load_pack()
    sys.path.pop(0)  # tools/, which Python puts there for this file
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
