"""Take screenshots of the nodes without a picture of their own, on ComfyUI's canvas in a real browser:

    python -m capface.tools.node_pictures [--comfyui PATH] [NODE ...]

Each node is shown with the nodes it is used with, and is saved in web/docs/<node>/. `tools/pictures.py` draws the other
pictures.
"""

import argparse
import io
import json
import sys
from pathlib import Path

from PIL import Image

from capface.tools.browser import Browser, CanvasPage, why_not
from capface.tools.comfy import PACK, ComfyProcess, find_host, model_folders
from capface.tools.pictures import PAGE_BYTES
from capface.tools.standins import make_standins

SHOWN = {
    "CapFaceLoad": [["CapFaceLoad"], ["CapFaceApply"]],
    "CapFaceConvert": [["CapFaceConvert"]],
    "CapFaceLoadFaceReader": [["CapFaceLoadFaceReader"], ["CapFaceEncodeIdentity"]],
    "CapFaceConvertHead": [["CapFaceConvertHead"]],
    "CapFaceBlendIdentities": [["CapFaceLoadIdentity", "CapFaceLoadIdentity"], ["CapFaceBlendIdentities"]],
    "CapFaceSaveIdentity": [["CapFaceEncodeIdentity"], ["CapFaceSaveIdentity"]],
    "CapFaceLoadIdentity": [["CapFaceLoadIdentity"], ["CapFaceApply"]],
    "CapFaceSaveHead": [["CapFaceFitHead"], ["CapFaceSaveHead"]],
    "CapFaceLoadHead": [["CapFaceLoadHeadModel", "CapFaceLoadHead"], ["CapFaceRenderHead"]],
    "CapFaceExportHead": [["CapFaceLoadHeadModel", "CapFaceLoadHead"], ["CapFaceExportHead"]],
    "CapFaceImportHead": [["CapFaceLoadHeadModel"], ["CapFaceImportHead"], ["CapFaceRenderHead"]],
    "CapFaceApply": [["CLIPTextEncode", "CLIPTextEncode", "CapFaceLoad"], ["CapFaceApply"], ["KSampler"]],
    "CapFacePersonMask": [["CapFaceRenderHead", "CLIPTextEncode"], ["CapFacePersonMask"], ["ConditioningSetMask"]],
    "CapFaceReuseControlNet": [["ControlNetApplyAdvanced"], ["CapFaceReuseControlNet"], ["KSampler"]],
    "CapFaceMeasure": [["CapFaceMeasure"]],
    "CapFaceCheck": [["CapFaceCheck"]],
    "CapFaceLoadMiniature": [["CapFaceLoadMiniature", "CapFaceSyntheticPerson"], ["CapFaceEncodeIdentity"]],
}
"""Columns of nodes in each node's picture, from left to right."""
VALUES = {
    "CLIPTextEncode": [{"text": "a photo of a person in a garden"}, {"text": "blurry, deformed, low quality"}],
    "CapFaceLoadIdentity": [{"file": "ada.identity.safetensors"}, {"file": "grace.identity.safetensors"}],
    "CapFaceImportHead": [{"file": "take.csv"}],
    "CapFaceMeasure": [{"prompt": "a photo of a person in a garden", "other_prompts": "a photo of a person at sea"}],
}
"""Widget values of the first, second, … node of a class."""
FILES = ("ada.identity.safetensors", "grace.identity.safetensors", "nod.json", "take.csv")
"""Files for the input folder, so that the nodes' file lists are not empty."""
WIDTH, GAP, MARGIN = 310, 50, 16
SETTINGS = {"Comfy.NodeBadge.NodeSourceBadgeMode": "None", "Comfy.NodeBadge.NodeIdBadgeMode": "None"}
# Places the nodes in columns, links each output to the first free input of its type farther right, and returns the frame that
# the nodes fill.
_LAY_OUT = """([columns, values, least, gap, margin]) => {
  const graph = app.canvas.graph, seen = {}, placed = [];
  graph.clear();
  let x = margin, bottom = 0;
  for (const column of columns) {
    let y = margin + LiteGraph.NODE_TITLE_HEIGHT, width = 0;
    const nodes = column.map(type => {
      const node = LiteGraph.createNode(type);
      graph.add(node);
      const own = values[type]?.[seen[type] = (seen[type] ?? -1) + 1] ?? {};
      for (const widget of node.widgets ?? []) if (widget.name in own) widget.value = own[widget.name];
      node.setSize([least, node.computeSize()[1]]);
      node.pos = [x, y];
      y += node.size[1] + LiteGraph.NODE_TITLE_HEIGHT + gap / 3;
      width = Math.max(width, node.size[0]);
      return node;
    });
    for (const node of nodes) for (const from of placed) from.outputs.forEach((output, slot) => {
      const free = node.inputs.findIndex(i => i.type === output.type && i.link == null);
      if (free >= 0 && !output.links?.length) from.connect(slot, node, free);
    });
    placed.push(...nodes);
    x += width + gap;
    bottom = Math.max(bottom, y - LiteGraph.NODE_TITLE_HEIGHT - gap / 3);
  }
  return [x - gap + margin, bottom + margin];
}"""
_SHOW_AT = """([left, top]) => {
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [left, top];
  app.canvas.draw(true, true);
}"""
LEFT, TOP = 120, 120
"""Page pixels from which on nothing covers the canvas."""


def take(canvas: CanvasPage, columns: list[list[str]]) -> Image.Image:
    """Lay out nodes, and take a screenshot of them."""
    width, height = canvas.page.evaluate(_LAY_OUT, [columns, VALUES, WIDTH, GAP, MARGIN])
    canvas.page.evaluate(_SHOW_AT, [LEFT, TOP])
    canvas.idle()
    shot = canvas.page.screenshot(clip={"x": LEFT, "y": TOP, "width": width, "height": height})
    return Image.open(io.BytesIO(shot)).convert("RGB")


def main():
    """Take all screenshots, or those of the named nodes. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", nargs="*", metavar="NODE", help=f"out of {', '.join(SHOWN)}")
    parser.add_argument("--comfyui", type=Path)
    options = parser.parse_args()
    comfyui, problem = find_host(options.comfyui), why_not()
    if comfyui is None or problem:
        print(problem or "There is no ComfyUI: name one with --comfyui PATH.", file=sys.stderr)
        return 1
    with ComfyProcess(comfyui, model_folders(make_standins()), folder="capface") as process, Browser() as browser:
        for name in FILES:
            (process.base / "input" / name).write_text(json.dumps({}), encoding="utf-8")
        canvas = CanvasPage(browser.session((1500, 1100), scale=1.5), process.url, SETTINGS)
        for node in options.nodes or SHOWN:
            picture, path = take(canvas, SHOWN[node]), PACK / "web" / "docs" / node / "picture.png"
            picture.quantize().save(path, optimize=True)
            size = path.stat().st_size
            print(f"{path.relative_to(PACK)}: {picture.width} × {picture.height}, {size} bytes")
            if size > PAGE_BYTES:
                print(f"That is more than {PAGE_BYTES}.", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
