"""Take the pictures of docs/first_minute.md, from ComfyUI's empty canvas to a portrait by the miniature, in a real browser:

    python -m capface.tools.walk [--comfyui PATH]

Mouse and keyboard do what a user does. The pictures are saved in docs/first_minute/, and the time of each run is printed.
"""

import argparse
import io
import sys
import time
from pathlib import Path

from PIL import Image

from capface.tools.browser import Browser, CanvasPage, why_not
from capface.tools.comfy import PACK, ComfyProcess, find_host

FOLDER = PACK / "docs" / "first_minute"
WINDOW = (1366, 768)
CARD = "template-workflow-miniature"
MOST_BYTES = 150_000
"""Largest file size of a picture."""
PRESETS = {"Pose": "Three-quarter left", "Expression": "Smile"}
"""Section of the editor -> the preset that is chosen there."""
_SHOW = """const boxes = NODES.map((type) => node(type).boundingRect ?? node(type).getBounding());
const left = Math.min(...boxes.map((b) => b[0])), top = Math.min(...boxes.map((b) => b[1]));
const right = Math.max(...boxes.map((b) => b[0] + b[2])), bottom = Math.max(...boxes.map((b) => b[1] + b[3]));
const frame = app.canvas.canvas.getBoundingClientRect(), ds = app.canvas.ds;
const [x, y, width, height] = [80, 110, frame.width - 110, frame.height - 130];
ds.scale = Math.min(width / (right - left), height / (bottom - top), 1);
ds.offset = [x / ds.scale - left, y / ds.scale - top];
app.canvas.setDirty(true, true);"""


def show(page: CanvasPage, *types: str) -> None:
    """Move the view so that nodes of these classes fill the window."""
    page.run(_SHOW.replace("NODES", str(list(types))))
    page.idle(quiet=1.0)


def save(page: CanvasPage, name: str) -> None:
    """Save what the window shows."""
    path = FOLDER / f"{name}.jpg"
    Image.open(io.BytesIO(page.page.screenshot())).convert("RGB").save(path, quality=82, optimize=True)
    print(f"{path.relative_to(PACK)}: {path.stat().st_size} bytes")
    if path.stat().st_size > MOST_BYTES:
        print(f"That is more than {MOST_BYTES}.", file=sys.stderr)


def run(page: CanvasPage) -> None:
    """Run the workflow, and wait for its picture."""
    page.run("node('SaveImage').imgs = null")
    start = time.monotonic()
    page.page.keyboard.press("Control+Enter")
    page.page.wait_for_function("window.app.graph.nodes.find((n) => n.type === 'SaveImage').imgs?.length", timeout=120_000)
    print(f"run: {time.monotonic() - start:.1f} s")
    page.idle(quiet=1.0)


def walk(page: CanvasPage) -> None:
    """Take the walk, and save a picture of each step."""
    FOLDER.mkdir(exist_ok=True)
    page.run("await app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.page.locator(".p-dialog, [role=dialog]").get_by_text("capface", exact=True).first.click()
    card = page.page.get_by_test_id(CARD)
    card.locator("img").first.wait_for()
    page.idle(quiet=1.5)
    save(page, "1_templates")

    card.click()
    page.page.wait_for_function("window.app.graph.nodes.length > 10")
    page.idle(quiet=1.0)
    show(page, "CapFaceApply", "SaveImage", "CapFaceEditHead")
    page.page.mouse.click(WINDOW[0] - 30, WINDOW[1] / 2)  # the canvas has the keyboard
    run(page)
    save(page, "2_run")

    show(page, "CapFaceEditHead")
    for section, name in PRESETS.items():
        tab = page.page.locator(".capface-sections .tabs button", has_text=section).first
        if tab.get_attribute("aria-expanded") != "true":
            tab.click()
        page.page.locator(f".tile[aria-label='{name}']").first.click()
        page.idle(quiet=1.0)
    save(page, "3_edit_head")

    show(page, "CapFaceApply", "SaveImage", "CapFaceEditHead")
    run(page)
    save(page, "4_posed")


def main() -> int:
    """Take the walk. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=Path)
    options = parser.parse_args()
    comfyui, problem = find_host(options.comfyui), why_not()
    if comfyui is None or problem:
        print(problem or "There is no ComfyUI: name one with --comfyui PATH.", file=sys.stderr)
        return 1
    with ComfyProcess(comfyui, folder="capface") as process, Browser() as browser:
        page = CanvasPage(browser.session(WINDOW), process.url, {"Comfy.Minimap.Visible": False})
        walk(page)
        if page.problems:
            print(page.problems[0], file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
