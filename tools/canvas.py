"""Write workflows/api/*.json from workflows/*.json, by ComfyUI's own frontend in a real browser:

    python tools/run.py tools/canvas.py

To change a workflow, open it in ComfyUI, save it over workflows/<name>.json, and run this.
"""

import json
import re
import sys

from capface.tools.browser import Browser, CanvasPage, why_not
from capface.tools.comfy import PACK, ComfyProcess, find_host
from capface.tools.standins import write_inputs

WORKFLOWS = PACK / "workflows"


def api_text(prompt: dict) -> str:
    """A prompt as it is kept: nodes by their number, a line for each input."""
    nodes = {key: {name: prompt[key][name] for name in ("class_type", "inputs", "_meta")} for key in sorted(prompt, key=int)}
    text = json.dumps(nodes, indent=2, ensure_ascii=False)
    return re.sub(r'\[\s+("\d+"),\s+(\d+)\s+\]', r"[\1, \2]", text) + "\n"


def main():
    """Export all of them."""
    host = find_host()
    if host is None or why_not():
        sys.exit(why_not() or "no ComfyUI: set COMFYUI_PATH")
    with ComfyProcess(host, folder="capface") as process, Browser() as browser:
        write_inputs(process.base / "input")
        page = CanvasPage(browser.session(), process.url)
        for path in sorted(WORKFLOWS.glob("*.json")):
            page.load(json.loads(path.read_text(encoding="utf-8")), path.stem)
            if page.problems:
                sys.exit(f"{path.name}: {page.problems[0]}")
            (WORKFLOWS / "api" / path.name).write_text(api_text(page.prompt()["output"]), encoding="utf-8")
            print(f"{path.name} -> api/{path.name}")


if __name__ == "__main__":
    main()
