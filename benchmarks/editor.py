"""How long Edit Head's picture lags behind the mouse, in a real browser on a real ComfyUI.

    python tasks.py bench editor

Fifty drags turn the built-in head. Of each, the time from the last pointer event to the frame that shows its picture counts
(256 × 256 while dragging). Needs `pip install playwright` and a Chromium; the machine should have nothing else to do.
"""

import os
import platform
import statistics
import sys

from capface.tools.browser import Browser, CanvasPage, why_not
from capface.tools.comfy import ComfyProcess, find_host

DRAGS, MOVES, MOVE_MS = 50, 10, 16
EDITOR = ".capface-editor"


# Times of pointer events, and of the frames that show pictures: after the frame's callbacks a message comes when it is painted.
WATCH = """
const root = document.querySelector('.capface-editor');
window.moves = []; window.frames_shown = [];
root.addEventListener('pointermove', (event) => moves.push(event.timeStamp), true);
root.addEventListener('capface-picture', ({ detail }) => requestAnimationFrame(() => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => frames_shown.push([detail.side, performance.now()]);
  port2.postMessage(0);
}));
"""


def one_drag(canvas, number):
    """Milliseconds from the last move to its picture, and the pictures shown while dragging."""
    canvas.run("moves.length = frames_shown.length = 0")
    x, y = canvas.at(EDITOR, 0.5, 0.45)
    reach = 60 if number % 2 else -60
    mouse = canvas.page.mouse
    mouse.move(x, y)
    mouse.down()
    for step in range(1, MOVES + 1):
        mouse.move(x + reach * step / MOVES, y + (number % 5 - 2) * step)
        canvas.page.wait_for_timeout(MOVE_MS)
    # The finer picture comes when nothing is under way any more.
    canvas.page.wait_for_function("frames_shown.some(([side]) => side === 512)", polling=20, timeout=10_000)
    mouse.up()
    moves, frames = canvas.run("return [moves, frames_shown]")
    times = [time for side, time in frames if side == 256 and time > moves[1]]
    return times[-1] - moves[-1], len(times)


def measure(url, settings):
    """Latencies and numbers of pictures of all drags in one renderer."""
    with Browser() as browser:
        canvas = CanvasPage(browser.session(), url, settings)
        canvas.run("const n = LiteGraph.createNode('CapFaceEditHead'); app.graph.add(n); app.canvas.ds.offset = [400, 100];")
        canvas.idle()
        canvas.run(WATCH)
        one_drag(canvas, 0)
        latencies, pictures = zip(*(one_drag(canvas, number) for number in range(DRAGS)), strict=True)
        if canvas.problems:
            sys.exit(f"the page had problems: {canvas.problems}")
        return sorted(latencies), pictures


def main():
    """Print the latencies in both renderers."""
    if (reason := why_not()) or (comfyui := find_host()) is None:
        sys.exit(reason or "no ComfyUI: set COMFYUI_PATH")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {DRAGS} drags of {MOVES} moves")
    with ComfyProcess(comfyui, folder="capface") as process:
        for name, settings in (("classic nodes", {}), ("nodes 2.0", {"Comfy.VueNodes.Enabled": True})):
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
            latencies, pictures = measure(process.url, settings)
            print(
                f"{name:14} last move to picture: median {statistics.median(latencies):.0f} ms, "
                f"nine in ten under {latencies[int(0.9 * DRAGS)]:.0f} ms; {statistics.mean(pictures):.1f} pictures a drag; "
                f"load before {load:.1f}"
            )


if __name__ == "__main__":
    main()
