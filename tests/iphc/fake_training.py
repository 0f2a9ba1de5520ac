"""Stands in for `tasks.py person`: writes its command line as the person's file, and a line for each training to a log."""

import json
import os
import sys
from pathlib import Path

photo, out, *rest = sys.argv[1:]
with (Path(os.environ["FAKE_COMFY"]) / "trainings.txt").open("a") as file:
    file.write(f"{Path(out).name} {' '.join(rest)}\n")
if "refused" in rest:
    sys.exit("first line\nrefused on demand")
Path(out).mkdir()
content = {"photo": Path(photo).name, "options": rest, "bytes": Path(photo).stat().st_size}
(Path(out) / f"{Path(out).name}.safetensors").write_text(json.dumps(content))
