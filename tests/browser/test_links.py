"""Edit Head's picture finds the loader behind its inputs like an exported prompt, also through other packs' virtual nodes.

The packs are in the folders listed in PACKS (separated like PATH), else in ~/comfy/packs.
"""

import json
import os
from pathlib import Path

import pytest

from capface.tests.browser.conftest import NO_DOM_WIDGETS_IN_NODES_2
from capface.tools.browser import Browser, CanvasPage, why_not
from capface.tools.comfy import ComfyProcess, find_host

if (reason := why_not()) or find_host() is None:
    pytest.skip(reason or "no ComfyUI", allow_module_level=True)

pytestmark = pytest.mark.host
RENDERERS = {"classic": {}, "nodes 2.0": {"Comfy.VueNodes.Enabled": True}}
PACKS = ("rgthree-comfy", "ComfyUI-KJNodes", "cg-use-everywhere", "ComfyUI-Impact-Pack")
FILE = "generic_model.pkl"
MAKE = """
app.canvas.setGraph?.(app.rootGraph ?? app.graph);
app.graph.clear();
const add = (type, graph = app.graph) => {
  const n = LiteGraph.createNode(type);
  if (!n) throw new Error('no node ' + type);
  graph.add(n);
  return n;
};
const loader = (value = FILE) => {
  const n = add('CapFaceLoadHeadModel');
  n.widgets.find(w => w.name === 'model').value = value;
  return n;
};
const edit = add('CapFaceEditHead'), shown = add('CapFaceRenderHead');
const slot = edit.findInputSlot('head_model');
edit.connect(0, shown, shown.findInputSlot('head'));
const wire = (...nodes) => {
  nodes.forEach((n, i) => { if (i) nodes[i - 1].connect(0, n, n === edit ? slot : 0); });
  if (nodes.at(-1) === edit) loader('built-in').connect(0, shown, shown.findInputSlot('head_model'));
};
const settle = (ms = 150) => new Promise(done => setTimeout(done, ms));
const named = (type, name) => { const n = add(type); n.widgets[0].value = name; n.widgets[0].callback?.(name); return n; };
""".replace("FILE", json.dumps(FILE))
ASK = """
await settle();
const all = (graph) => graph.nodes.flatMap(n => [n, ...(n.subgraph ? all(n.subgraph) : [])]);
const { widgetBehind } = await import('/extensions/capface/links.js');
const editor = all(app.rootGraph ?? app.graph).find(n => n.type === 'CapFaceEditHead');
const start = performance.now();
const found = widgetBehind(editor, 'head_model', 'CapFaceLoadHeadModel', 'model') ?? null;
const direct = performance.now() - start;
const { output } = await app[EXPORT]();
const exported = performance.now() - start - direct;
const [origin] = Object.values(output).find(s => s.class_type === 'CapFaceEditHead').inputs.head_model ?? [];
return { found, origin: output[origin]?.class_type ?? null, model: output[origin]?.inputs.model ?? null, direct, exported };
"""
SUBGRAPH = "app.graph.convertToSubgraph(new Set([%s]))"
CASES = {
    "a link": "wire(loader(), edit)",
    "core's reroutes": "wire(loader(), add('Reroute'), add('Reroute'), edit)",
    "a bypassed node": "const pass = add('CapFaceEditHead'); pass.mode = 4; loader().connect(0, pass, slot);"
    "const by = add('Reroute'); by.mode = 4; wire(loader(), by, edit)",
    "a muted loader": "const mute = loader(); mute.mode = 2; wire(mute, edit)",
    "nothing": "wire(edit)",
    "a subgraph's input": f"wire(loader(), edit); {SUBGRAPH % 'edit, shown'}",
    "a subgraph's output": f"const l = loader(); wire(l, edit); {SUBGRAPH % 'l'}",
    "subgraphs in subgraphs": f"const l = loader(), r = add('Reroute'); wire(l, r, edit); {SUBGRAPH % 'l'};"
    f"const outer = {SUBGRAPH % 'edit, shown'}; {SUBGRAPH % 'outer.node, r'}",
    "rgthree-comfy: Reroute": "wire(loader(), add('Reroute (rgthree)'), add('Reroute (rgthree)'), edit)",
    "rgthree-comfy: Any Switch": "const s = add('Any Switch (rgthree)'), no = loader('built-in'); no.mode = 2;"
    "no.connect(0, s, 0); loader().connect(0, s, 1); s.connect(0, edit, slot); wire(edit)",
    "ComfyUI-KJNodes: Set and Get": "const put = named('SetNode', 'head'); loader().connect(0, put, 0);"
    "const take = named('GetNode', 'head'); await settle(); wire(take, edit)",
    "ComfyUI-KJNodes: Get without Set": "wire(named('GetNode', 'nobody'), edit)",
    "ComfyUI-KJNodes: Get in a subgraph": "const put = named('SetNode', 'head'); loader().connect(0, put, 0);"
    f"const take = named('GetNode', 'head'); await settle(); wire(take, edit); {SUBGRAPH % 'take, edit, shown'};"
    "const inner = [...app.graph.subgraphs.values()].flatMap(g => g.nodes).find(n => n.type === 'GetNode');"
    "inner.widgets[0].value = 'head'",
    "cg-use-everywhere": "loader().connect(0, add('Anything Everywhere'), 0); wire(edit); await settle(3000)",
    "ComfyUI-Impact-Pack: Switch": "const s = add('ImpactSwitch');"
    "const put = (n, name) => n.connect(0, s, s.findInputSlot(name));"
    "put(loader('built-in'), 'input1'); await settle(300); put(loader(), 'input2'); await settle(300);"
    "s.widgets.find(w => w.name === 'select').value = 2; s.connect(0, edit, slot); wire(edit)",
}
AT_RUN_TIME = ("Any Switch", "Impact")
"""The input that such a node takes is known only in a run, so the search ends at the node."""
NOTHING = ("a muted loader", "nothing", "ComfyUI-KJNodes: Get without Set")


def folder_of(pack):
    """Return the folder of a pack, or None."""
    roots = [Path(p) for p in os.environ.get("PACKS", "").split(os.pathsep) if p] or [Path.home() / "comfy" / "packs"]
    return next((root / pack for root in roots if (root / pack).is_dir()), None)


@pytest.fixture(scope="module")
def process(comfyui):
    with ComfyProcess(comfyui, folder="capface", others=[folder for pack in PACKS if (folder := folder_of(pack))]) as process:
        yield process


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module", params=RENDERERS)
def page(browser, process, request):
    if RENDERERS[request.param] and NO_DOM_WIDGETS_IN_NODES_2:
        pytest.skip(NO_DOM_WIDGETS_IN_NODES_2)
    session = browser.session()
    yield CanvasPage(session, process.url, RENDERERS[request.param])
    session.close()


@pytest.mark.parametrize("case", CASES)
def test_the_picture_and_the_prompt_find_the_same_loader(page, case):
    pack = case.split(":")[0]
    if pack in PACKS and folder_of(pack) is None:
        pytest.skip(f"no {pack}: put it into ~/comfy/packs, or name the folder with the packs in PACKS")
    types = [part.split("'")[0] for part in CASES[case].split("add('")[1:]]
    if pack in PACKS and (lacks := page.run(f"return {types}.filter(t => !(t in LiteGraph.registered_node_types))")):
        pytest.skip(f"{pack} does not load here: no {lacks[0]}")
    # Use Everywhere makes its links only for queueing, and for code that asks for them by name.
    export = "ue_modified_prompt" if pack == "cg-use-everywhere" else "graphToPrompt"
    seen = page.run(MAKE + CASES[case] + ";\n" + ASK.replace("EXPORT", json.dumps(export)))
    print(case, seen)
    assert seen["found"] == (None if case in NOTHING else FILE)
    if not any(name in case for name in AT_RUN_TIME):
        assert seen["found"] == seen["model"], "the prompt says otherwise"


def test_a_computed_value_is_not_known_before_a_run(page):
    seen = page.run(
        MAKE
        + """wire(edit); const fit = add('CapFaceFitHead'); fit.connect(0, edit, edit.findInputSlot('head')); await settle();
        const { widgetBehind } = await import('/extensions/capface/links.js');
        return widgetBehind(edit, 'head', 'CapFaceLoadHead', 'file') ?? 'unknown'"""
    )
    assert seen == "unknown"


def test_the_editor_requests_the_head_behind_the_links(page):
    asked = []
    page.page.on("request", lambda r: asked.append(json.loads(r.post_data)) if r.url.endswith("/capface/edit") else None)
    page.run(MAKE + CASES["core's reroutes"])
    page.page.wait_for_timeout(1500)
    assert asked[-1]["model"] == FILE
