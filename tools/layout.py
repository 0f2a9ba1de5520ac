"""Measure how the workflows look on the canvas, in both renderers, before and after a run:

    python -m capface.tools.layout [NAME ...]

For each workflow it prints what overlaps, the least contrast of text in notes, the size of nodes' titles when the whole
workflow is fitted into windows of two sizes, and the links against the reading direction. The last column says which it is.
"""

import itertools
import json
import sys
from dataclasses import dataclass

from capface.tools.browser import Browser, CanvasPage
from capface.tools.browser import why_not as why_no_browser
from capface.tools.canvas import subgraphs_of
from capface.tools.comfy import PACK, ComfyProcess, find_host

WINDOWS = ((1366, 768), (1920, 1080))
TITLE_PIXELS = 14
"""Height of a node's title text on the canvas, in its own units."""
READABLE = 8.0
"""The classic renderer draws no text below this size."""
LEAST_CONTRAST = 4.5
"""The contrast that WCAG asks of text."""
PREVIEWS = ("CapFaceEncodeIdentity", "CapFaceFitHead", "CapFaceRenderHead", "CapFacePersonMask", "SaveImage", "PreviewImage")
RENDERERS = {"classic": False, "nodes 2.0": True}

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in the canvas's units."""

_RUN = """const graph = app.canvas.graph, outer = app.graph.nodes.find((n) => n.subgraph === graph);
for (const node of graph.nodes.filter((n) => PREVIEWS.includes(n.type))) {
  const output = { images: [{ filename: 'photo.png', subfolder: '', type: 'input' }] };
  const id = outer ? `${outer.id}:${node.id}` : String(node.id);
  app.api.dispatchEvent(new CustomEvent('executed', { detail: { node: id, display_node: id, output } }));
}
app.canvas.setDirty(true, true);""".replace("PREVIEWS", json.dumps(PREVIEWS))
_MEASURE = """
const graph = app.canvas.graph;
const shown = LiteGraph.vueNodesMode, { scale, offset } = app.canvas.ds;
const frame = app.canvas.canvas.getBoundingClientRect();
const nodes = {}, groups = {};
for (const node of graph.nodes) {
  let [x, y, w, h] = node.boundingRect ?? node.getBounding();
  const at = shown && document.querySelector(`[data-node-id="${node.id}"]`);
  if (at) {
    const r = at.getBoundingClientRect();
    [x, y] = [(r.x - frame.x) / scale - offset[0], (r.y - frame.y) / scale - offset[1]];
    [w, h] = [r.width / scale, r.height / scale];
  }
  nodes[node.id] = [x, y, x + w, y + h];
}
for (const group of graph.groups) {
  const [x, y, w, h] = group.boundingRect ?? group._bounding;
  groups[group.title] = [x, y, x + w, y + h];
}
const all = graph.links.values?.() ?? Object.values(graph.links);
const links = [...all].map((l) => [l.origin_id, l.target_id].map(String)).filter((ends) => ends.every((id) => id in nodes));
const over = (a, b) => a.slice(0, 3).map((v, i) => v * a[3] + b[i] * (1 - a[3]));
const brush = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
const parse = (color) => {
  brush.clearRect(0, 0, 1, 1); brush.fillStyle = color; brush.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = brush.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const luminance = (c) => {
  const [r, g, b] = c.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
let contrast = Infinity, worst = '';
const notes = graph.nodes.filter((n) => n.type === 'MarkdownNote').map((n) => `[data-node-id="${n.id}"]`);
for (const root of document.querySelectorAll(shown && notes.length ? notes.join(', ') : '.comfy-markdown')) {
  for (const e of [root, ...root.querySelectorAll('*')]) {
    const text = [...e.childNodes].filter((c) => c.nodeType === 3).map((c) => c.data).join('').trim();
    if (!text) continue;
    let back = parse('#443322');
    const chain = [];
    for (let up = e; up; up = up.parentElement) {
      const own = parse(getComputedStyle(up).backgroundColor);
      chain.push(own);
      if (own[3] === 1 || (!shown && up.matches('.comfy-markdown'))) break;
    }
    for (const layer of chain.reverse()) back = over(layer, back);
    const fore = over(parse(getComputedStyle(e).color), back);
    const [a, b] = [luminance(fore), luminance(back)].sort((p, q) => q - p);
    const c = (a + 0.05) / (b + 0.05);
    if (c < contrast) [contrast, worst] = [c, text];
  }
}
const panel = (document.querySelector('.graph-canvas-panel') ?? app.canvas.canvas).getBoundingClientRect();
const margins = [innerWidth - panel.width, 94];
return { nodes, groups, links, contrast: contrast === Infinity ? 99 : contrast, worst, margins };
"""


@dataclass(frozen=True)
class Measured:
    """A workflow as it is on the canvas."""

    nodes: dict[str, Box]
    groups: dict[str, Box]
    links: list[tuple[str, str]]
    contrast: float
    """The least contrast of text in notes."""
    worst: str
    """The text with that contrast."""
    margins: tuple[float, float]
    """Pixels of the window's width and height that the canvas does not have to itself."""

    def overlaps(self) -> list[str]:
        """Return the pairs of nodes or of groups that overlap, and the nodes that stick out of every group."""
        found = [f"{a} and {b}" for boxes in (self.nodes, self.groups) for a, b in itertools.combinations(boxes, 2)
                 if meet(boxes[a], boxes[b])]  # fmt: skip
        return found + [n for n, box in self.nodes.items() if not any(inside(box, group) for group in self.groups.values())]

    def backwards(self) -> list[str]:
        """Return the links whose target is neither to the right of their origin nor below it."""
        boxes = self.nodes
        return [f"{a} to {b}" for a, b in self.links if boxes[b][0] < boxes[a][2] and boxes[b][1] < boxes[a][3]]

    def title_pixels(self, window: tuple[int, int]) -> float:
        """Return the size of nodes' titles in pixels when the whole workflow is fitted into a window."""
        boxes = [*self.nodes.values(), *self.groups.values()]
        width = max(box[2] for box in boxes) - min(box[0] for box in boxes)
        height = max(box[3] for box in boxes) - min(box[1] for box in boxes)
        return TITLE_PIXELS * min((window[0] - self.margins[0]) / width, (window[1] - self.margins[1]) / height)


def meet(a: Box, b: Box) -> bool:
    """Return whether two boxes overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def inside(a: Box, b: Box) -> bool:
    """Return whether the first box lies in the second."""
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def measure(page: CanvasPage, after_run: bool = False) -> Measured:
    """Measure the workflow that a page shows.

    Args:
        page: A page with a workflow.
        after_run: Whether to show a picture in each node that shows one after a run.
    """
    if after_run:
        page.run(_RUN)
        page.idle(quiet=0.5)
    page.page.wait_for_timeout(300)
    return Measured(**page.run(_MEASURE))


def open_subgraph(page: CanvasPage, node: int) -> None:
    """Open the graph that a node stands for, as the button in its title does."""
    page.run(f"const one = node({node}); app.canvas.openSubgraph(one.subgraph, one)")
    page.idle()


def main() -> None:
    """Print the table."""
    host, reason = find_host(), why_no_browser()
    if host is None or reason:
        sys.exit(reason or "no ComfyUI: set COMFYUI_PATH")
    names = sys.argv[1:] or sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
    print(f"{'workflow':22}{'renderer':12}{'overlap':>8}{'contrast':>9}{'1366':>6}{'1920':>6}{'back':>5}  which")
    with Browser() as browser, ComfyProcess(host, folder="capface") as process:
        for renderer, modern in RENDERERS.items():
            page = CanvasPage(browser.session((1920, 1080)), process.url, {"Comfy.VueNodes.Enabled": modern})
            for name in names:
                workflow = json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
                page.load(workflow, name)
                _print_row(name, renderer, page)
                for node in (node for node in workflow["nodes"] if node["type"] in subgraphs_of(workflow)):
                    open_subgraph(page, node["id"])
                    _print_row(f"  {node['title']}", renderer, page)


def _print_row(name: str, renderer: str, page: CanvasPage) -> None:
    before, after = measure(page), measure(page, after_run=True)
    overlaps, back = [*dict.fromkeys(before.overlaps() + after.overlaps())], after.backwards()
    sizes = "".join(f"{after.title_pixels(window):6.1f}" for window in WINDOWS)
    which = "; ".join([*overlaps, *(f"link {link}" for link in back)])
    print(f"{name:22}{renderer:12}{len(overlaps):8}{after.contrast:9.1f}{sizes}{len(back):5}  {which}", flush=True)


if __name__ == "__main__":
    main()
