"""Measure how long Edit Head's picture lags behind the mouse, in a real browser on a real ComfyUI.

    python tasks.py bench editor

Fifty drags turn the built-in head, in each of the frontend's two renderers. The latency of a drag is the time from its last
pointer event to the end of the frame that shows the picture for that event's value (256 × 256 while dragging). It is split
into: event received, picture requested, transfer and queue, drawing, packing, picture in the canvas, and painted. Needs `pip
install playwright` and a Chromium. Run it on an otherwise idle machine.
"""

import os
import platform
import statistics
import sys

from capface.tools.browser import Browser, CanvasPage, why_not
from capface.tools.comfy import ComfyProcess, find_host

DRAGS, MOVES, MOVE_MS = 50, 10, 16
EDITOR = ".capface-editor"
RENDERERS = {"classic nodes": {}, "nodes 2.0": {"Comfy.VueNodes.Enabled": True}}
PARTS = ("heard", "asked", "way", "draw", "pack", "canvas", "painted")

# Records when pointer events occurred and were handled, and when pictures were requested, put in the canvas, and painted. A
# message posted in the next frame's callbacks arrives after painting.
WATCH = """
const root = document.querySelector('.capface-editor');
window.moves = []; window.shown = [];
performance.setResourceTimingBufferSize(5000);
root.addEventListener('pointermove', (event) => moves.push([event.timeStamp, performance.now()]), true);
root.addEventListener('capface-picture', ({ detail }) => {
  const drawn = performance.now();
  requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => shown.push({ ...detail, drawn, painted: performance.now() });
    port2.postMessage(0);
  });
});
"""
# The last move, its picture, and the picture's request.
LAST = """
const [came, heard] = moves.at(-1);
const pictures = shown.filter(({ side, asked }) => side === 256 && asked >= moves[0][1]);
const picture = pictures.find(({ asked }) => asked >= heard);
const requests = performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('/capface/edit'));
const request = requests.find(({ startTime }) => startTime >= picture.asked);
const server = Object.fromEntries(request.serverTiming.map(({ name, duration }) => [name, duration]));
return {
  total: picture.painted - came, pictures: pictures.length,
  heard: heard - came, asked: picture.asked - heard, way: request.responseEnd - picture.asked - server.draw - server.pack,
  draw: server.draw, pack: server.pack, canvas: picture.drawn - request.responseEnd, painted: picture.painted - picture.drawn,
};
"""


def one_drag(canvas, number):
    """Return the milliseconds from the last move to its picture, in total and by part, and the number of pictures shown."""
    canvas.run("moves.length = shown.length = 0; performance.clearResourceTimings()")
    x, y = canvas.at(EDITOR, 0.5, 0.45)
    reach = 60 if number % 2 else -60
    mouse = canvas.page.mouse
    mouse.move(x, y)
    mouse.down()
    for step in range(1, MOVES + 1):
        mouse.move(x + reach * step / MOVES, y + (number % 5 - 2) * step)
        canvas.page.wait_for_timeout(MOVE_MS)
    # The finer picture is requested when no request is pending.
    finer = "shown.some(({ side, asked }) => side === 512 && asked > moves.at(-1)[1])"
    canvas.page.wait_for_function(finer, polling=20, timeout=20_000)
    mouse.up()
    return canvas.run(LAST)


def measure(url, settings):
    """Return the results of `one_drag` in one renderer; none if it shows no editor, as Nodes 2.0 of frontend 1.27."""
    with Browser() as browser:
        canvas = CanvasPage(browser.session(), url, settings)
        canvas.run("const n = LiteGraph.createNode('CapFaceEditHead'); app.graph.add(n); app.canvas.ds.offset = [400, 100];")
        canvas.idle()
        if not canvas.run(f"return document.querySelector('{EDITOR}') !== null"):
            return []
        # With Playwright's routes in place, every request takes a detour through Playwright.
        canvas.page.unroute_all()
        canvas.run(WATCH)
        one_drag(canvas, 0)
        drags = [one_drag(canvas, number) for number in range(DRAGS)]
        if canvas.problems:
            sys.exit(f"the page had problems: {canvas.problems}")
        return drags


def main():
    """Print the latencies in both renderers."""
    if (reason := why_not()) or (comfyui := find_host()) is None:
        sys.exit(reason or "no ComfyUI: set COMFYUI_PATH")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {DRAGS} drags of {MOVES} moves")
    with ComfyProcess(comfyui, folder="capface") as process:
        for name, settings in RENDERERS.items():
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
            drags = measure(process.url, settings)
            if not drags:
                print(f"{name:14} shows no editor in this frontend", flush=True)
                continue
            total = sorted(drag["total"] for drag in drags)
            parts = {part: statistics.median(drag[part] for drag in drags) for part in PARTS}
            print(
                f"{name:14} last move to picture: median {statistics.median(total):.0f} ms, "
                f"nine in ten under {total[int(0.9 * DRAGS)]:.0f} ms; "
                f"{statistics.mean(drag['pictures'] for drag in drags):.1f} pictures a drag; load before {load:.1f}\n"
                f"{'':14} " + ", ".join(f"{part} {value:.0f}" for part, value in parts.items()),
                flush=True,
            )


if __name__ == "__main__":
    main()
