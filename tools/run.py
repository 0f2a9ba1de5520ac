"""Runs a script, or a module's `main`, with the pack importable as `capface`, whatever its folder is called.

python tools/run.py tools/check_files.py …          a script
python tools/run.py capface.training.prepare …  the `main` of a module; processes that it starts know the pack too
"""

import importlib
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


if __name__ == "__mp_main__":  # a child of multiprocessing: what it is sent belongs to the pack
    load_pack()

if __name__ == "__main__":
    load_pack()
    sys.path.pop(0)  # tools/, which Python puts there for this file
    sys.argv = sys.argv[1:]
    if sys.argv[0].startswith("capface."):
        sys.exit(importlib.import_module(sys.argv[0]).main(sys.argv[1:]))
    runpy.run_path(sys.argv[0], run_name="__main__")
