"""Inputs that are connected by hand: links of saved workflows are kept, and Use Everywhere does not fill them."""

import os
from pathlib import Path

import pytest

from capface.tests.host.test_by_hand import BY_HAND
from capface.tools.browser import Browser, CanvasPage, why_not
from capface.tools.comfy import ComfyProcess, find_host

if (reason := why_not()) or find_host() is None:
    pytest.skip(reason or "no ComfyUI", allow_module_level=True)

pytestmark = pytest.mark.host
SOURCES = {
    "CAPFACE": ("CapFaceLoad", 0),
    "CAPFACE_IDENTITY": ("CapFaceIdentityParts", 0),
    "HEAD": ("CapFaceTransferHead", 0),
    "IMAGE": ("EmptyImage", 0),
    "MASK": ("SolidMask", 0),
    "FACE_LANDMARKS": ("MediaPipeFaceLandmarker", 0),
    "BOUNDING_BOX": ("MediaPipeFaceLandmarker", 1),
}
"""For each type, a node that outputs it, and the index of the output. Older versions of ComfyUI lack the last node."""
FOUND = {"CapFaceApply": "capface", "CapFaceBlendIdentities": "identity_2", "CapFaceAnimateHead": "head",
         "CapFaceMeasure": "image", "CapFaceCropHead": "head", "CapFaceEncodeIdentity": "image",
         "CapFaceFitHead": "image"}  # fmt: skip
"""Inputs that may be filled by type."""
LINKED = """app.graph.clear();
const make = (type) => { const n = LiteGraph.createNode(type); app.graph.add(n); return n; };
const target = make('%(target)s'), source = make('%(source)s');
const at = target.inputs.findIndex(i => i.name === '%(input)s');
const done = source.connect(%(output)d, target, at);
const kept = JSON.parse(JSON.stringify(app.graph.serialize()));
const saved = kept.nodes.find(n => n.type === '%(target)s').inputs.find(i => i.name === '%(input)s');
saved.type = '%(kind)s';  // as before the input had a type of its own
return { done: !!done, kept, target: target.id, source: source.id };"""
BROADCAST = """app.graph.clear();
const make = (type) => { const n = LiteGraph.createNode(type); app.graph.add(n); return n; };
const ids = {};
for (const type of %(targets)s) ids[type] = make(type).id;
for (const [type, output] of %(sources)s) {
  const everywhere = make('Anything Everywhere');
  make(type).connect(output, everywhere, 0);
}
// Otherwise that pack makes its links for queueing alone.
await app.extensionManager.setting.set('Use Everywhere.Options.always_modify_graph', true);
await new Promise(done => setTimeout(done, 500));
const { output } = await app.graphToPrompt(app.rootGraph ?? app.graph);
return Object.fromEntries(Object.entries(ids).map(([type, id]) => [type, output[id].inputs]));"""


def use_everywhere():
    """Return the pack's folder, or None."""
    for root in [Path(p) for p in os.environ.get("PACKS", "").split(os.pathsep) if p] or [Path.home() / "comfy" / "packs"]:
        if (root / "cg-use-everywhere" / "js").is_dir():
            return root / "cg-use-everywhere"
    return None


@pytest.fixture(scope="module")
def page(comfyui):
    others = [folder] if (folder := use_everywhere()) else []
    with ComfyProcess(comfyui, folder="capface", others=others) as process, Browser() as browser:
        yield CanvasPage(browser.session(), process.url)


@pytest.fixture(scope="module")
def sources(page):
    """The entries of SOURCES whose node this ComfyUI has."""
    known = page.run("return Object.keys(LiteGraph.registered_node_types);")
    return {kind: source for kind, source in SOURCES.items() if source[0] in known}


@pytest.mark.parametrize(
    ("target", "name", "kind"), [(node, name, kind) for node, keys in BY_HAND.items() for name, kind in keys.items()]
)
def test_saved_links_are_kept_on_opening(page, sources, target, name, kind):
    if kind not in sources:
        pytest.skip(f"this ComfyUI has no {SOURCES[kind][0]}")
    source, output = sources[kind]
    made = page.run(LINKED % {"target": target, "source": source, "input": name, "output": output, "kind": kind})
    assert made["done"]
    page.load(made["kept"])
    assert page.prompt()["output"][str(made["target"])]["inputs"][name] == [str(made["source"]), output]


def test_broadcasts_do_not_reach_inputs_that_are_connected_by_hand(page, sources):
    if use_everywhere() is None:
        pytest.skip("no cg-use-everywhere: put it into ~/comfy/packs, or name the folder with the packs in PACKS")
    targets = str(list(BY_HAND))
    prompt = page.run(BROADCAST % {"targets": targets, "sources": str([list(source) for source in sources.values()])})
    for target, keys in BY_HAND.items():
        inputs = prompt[target]
        assert isinstance(inputs.get(FOUND[target]), list), f"{target}.{FOUND[target]} was not found: is the pack at work?"
        assert not keys.keys() & inputs.keys(), target
