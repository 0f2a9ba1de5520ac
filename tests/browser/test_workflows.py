"""The workflows in ComfyUI's own frontend, in a real browser: they load completely, are tidy and export the shipped prompts."""

import contextlib
import functools
import json
import re
from types import SimpleNamespace

import pytest
from PIL import Image

from capface.tests.browser.conftest import FRONTEND, NO_DOM_WIDGETS_IN_NODES_2
from capface.tools import layout
from capface.tools.browser import Browser, CanvasPage, why_not
from capface.tools.canvas import blueprints, nodes_of, subgraphs_of
from capface.tools.comfy import PACK, ComfyProcess, find_host, request
from capface.tools.other_packs import NEEDS, NODES, copy_of
from capface.tools.other_packs import why_not as why_no_pack
from capface.tools.standins import write_inputs

if (reason := why_not()) or find_host() is None:
    pytest.skip(reason or "no ComfyUI", allow_module_level=True)

pytestmark = pytest.mark.host
FOLDER = PACK / "workflows"
TEMPLATES_MODULE = PACK / "web" / "templates.js"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
NEEDY = sorted(NEEDS)
ALONE = [name for name in NAMES if name not in NEEDS]
NOTES = {"Note", "MarkdownNote"}
LOADED_FROM = {
    "ckpt_name": "checkpoints",
    "clip_name": "clip_vision",
    "checkpoint": "capface",
    "facenet": "facenet",
    "control_net_name": "controlnet",
    "lora_name": "loras",
    "unet_name": "diffusion_models",
    "vae_name": "vae",
    "instantid_file": "instantid",
}
"""Input that names a file -> its folder under ComfyUI's `models`."""
WITH_SUBGRAPHS = ("one_node",)
FIRST = ("one_node", "portrait", "toon", "miniature")
"""Workflows that a window of 1366 x 768 shows readably as a whole."""
MOST_BYTES = 100_000
TOAST = ".p-toast-message, [data-toast-kind]"
"""A message in the corner, in frontends up to 1.55 and in later ones."""
UNFOLLOWED = ["InstantIDModelLoader"]
"""Loaders of .bin files. The frontend downloads no such files, so a workflow states no address for them."""
ORDER = re.findall(r'^  "(\w+)",$', TEMPLATES_MODULE.read_text(encoding="utf-8"), re.MULTILINE)
TEMPLATES = json.loads((PACK / "tools" / "templates.json").read_text(encoding="utf-8"))
WORDS = {
    "pose": "CapFaceEditHead",
    "expression": "CapFaceEditHead",
    "smile": "CapFaceEditHead",
    "emotion": "CapFaceEditHead",
    "gaze": "CapFaceEditHead",
    "light": "CapFaceEditHead",
    "relight": "CapFaceEditHead",
    "portrait": "CapFaceApply",
    "flame": "CapFaceFitHead",
    "caphuman": "CapFaceLoad",
    "face id": "CapFaceApply",
    "regional prompt": "CapFacePersonMask",
}
"""Words that people type -> a node that they look for."""
OLD_WORDS = ("pose", "expression", "portrait", "flame", "caphuman", "regional prompt")
"""Those that frontends without aliases find as well."""
PINIA = "document.querySelector('#vue-app').__vue_app__.config.globalProperties.$pinia._s"
FIND = f"return {PINIA}.get('nodeDef').nodeSearchService.searchNode(%s, [], {{ limit: 500 }}).map((def) => def.name)"
COMPLAINTS = """const loads = (n) => n.properties.models?.length || n.subgraph?.nodes.some(loads);
const linked = app.graph.nodes.filter(loads).map(n => n.type);
const named = new Set([...linked, ...UNFOLLOWED]);
return {
  missing: app.graph.nodes.filter(n => !(n.type in LiteGraph.registered_node_types) || (n.has_errors && !named.has(n.type)))
    .map(n => n.type),
  said: [...document.querySelectorAll('.p-dialog, [role=dialog], .comfy-modal, TOAST')]
    .filter(e => e.checkVisibility()).map(e => e.innerText),
}""".replace("TOAST", TOAST).replace("UNFOLLOWED", json.dumps(UNFOLLOWED))
"""The frontend's complaints about a workflow. Missing models are tested in test_missing_models.py."""
CUT_OFF = """const below = new Map();
  for (const { pos } of app.graph.nodes.filter(n => NOTES.includes(n.type))) {
    app.canvas.ds.scale = 0.7; app.canvas.ds.offset = [80 - pos[0], 120 - pos[1]]; app.canvas.setDirty(true, true);
    await new Promise(done => setTimeout(done, 100));
    for (const e of [...document.querySelectorAll('.comfy-markdown .tiptap')].filter(e => e.offsetParent))
      below.set(e.textContent, e.lastElementChild.getBoundingClientRect().bottom - e.getBoundingClientRect().bottom);
  }
  return [...below.values()];""".replace("NOTES", json.dumps(sorted(NOTES)))
"""The pixels by which each note's text extends below its node."""


@pytest.fixture(scope="module")
def process(comfyui):
    """A ComfyUI without models, with the pictures that the workflows load."""
    with ComfyProcess(comfyui, folder="capface") as process:
        write_inputs(process.base / "input")
        yield process


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(browser, process):
    return CanvasPage(browser.session(), process.url)


@pytest.fixture(scope="module")
def modern(browser, process):
    """A tab with the frontend's other node renderer, Nodes 2.0."""
    return CanvasPage(browser.session(), process.url, {"Comfy.VueNodes.Enabled": True})


@pytest.fixture(scope="module")
def beside(comfyui, tmp_path_factory):
    """`beside(pack)` returns a ComfyUI that also has a pack; tests that use it are skipped if the pack is missing."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def start(pack):
            if reason := why_no_pack(pack):
                pytest.skip(reason)
            others = [copy_of(pack, tmp_path_factory.mktemp("packs"))]
            process = stack.enter_context(ComfyProcess(comfyui, folder="capface", others=others))
            if lacks := NODES[pack] - json.loads(request(f"{process.url}/object_info")).keys():
                pytest.skip(f"{pack} does not load here: no {min(lacks)}")
            write_inputs(process.base / "input")
            return process

        yield start


@pytest.fixture(scope="module")
def canvases(browser, process, beside):
    """`canvases(name)` returns a tab of the ComfyUI that a workflow needs; `settings` as for `CanvasPage`."""

    @functools.cache
    def opened(pack, **settings):
        return CanvasPage(browser.session(), (beside(pack) if pack else process).url, settings)

    return lambda name, **settings: opened(NEEDS.get(name), **settings)


@pytest.fixture(scope="module", params=NAMES)
def loaded(canvases, request):
    """A shipped workflow, the frontend's version of it after loading, and its page."""
    page, workflow = canvases(request.param), read(request.param)
    complaints = load(page, request.param, workflow)
    return SimpleNamespace(name=request.param, workflow=workflow, complaints=complaints, saved=page.prompt(), page=page)


def load(page, name, workflow):
    """Load a workflow; return all complaints of the frontend."""
    page.load(workflow, name)
    found = {**page.run(COMPLAINTS), "problems": page.problems.copy()}
    page.problems.clear()
    return {kind: what for kind, what in found.items() if what}


def read(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def shipped(name):
    """Read a workflow's shipped API form."""
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


def test_every_workflow_has_an_api_form_and_a_picture():
    for folder, ending in ((FOLDER / "api", "json"), (FOLDER, "jpg")):
        assert sorted(path.stem for path in folder.glob(f"*.{ending}")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_picture_is_small_and_unique(name):
    path = FOLDER / f"{name}.jpg"
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "JPEG" and picture.size == (512, 512)
    assert path.stat().st_size < MOST_BYTES
    assert [other for other in NAMES if (FOLDER / f"{other}.jpg").read_bytes() == path.read_bytes()] == [name]


def test_nothing_is_missing_and_there_are_no_complaints(loaded):
    assert loaded.complaints == {}


def test_a_missing_node_is_noticed(page):
    workflow = read(ALONE[0])
    workflow["nodes"][0]["type"] = "NoSuchNode"
    assert "NoSuchNode" in load(page, "broken", workflow)["missing"]
    page.page.keyboard.press("Escape")


def test_it_uses_only_comfyui_this_pack_and_the_pack_it_needs(loaded):
    nodes = json.loads(request(f"{loaded.page.url}/object_info"))
    types = {n["type"] for n in nodes_of(loaded.workflow)} - NOTES
    needed = {kind for kind in types if nodes[kind]["python_module"] == f"custom_nodes.{NEEDS.get(loaded.name)}"}
    assert needed == NODES.get(NEEDS.get(loaded.name) or "", set())
    modules = {nodes[kind]["python_module"] for kind in types - needed}
    assert all(m == "nodes" or m.startswith("comfy_extras.") or m == "custom_nodes.capface" for m in modules), modules


@pytest.mark.parametrize("name", NEEDY)
def test_without_the_pack_that_it_needs_the_canvas_shows_a_message(browser, process, name):
    """The host names the missing nodes, and the first note names the pack; everything else is complete."""
    page, workflow = CanvasPage(browser.session(), process.url), read(name)  # frontends list missing nodes once in a tab
    assert set(load(page, "needy", workflow)["missing"]) == NODES[NEEDS[name]]
    details = page.page.get_by_text("View details", exact=True)
    if details.count():  # if models are also missing, the list opens from a message that counts both
        details.first.click()
    for kind in NODES[NEEDS[name]]:
        page.page.get_by_text(kind).first.wait_for(timeout=10_000)
    page.page.keyboard.press("Escape")
    start = next(n for n in workflow["nodes"] if n.get("title") == "Start here")
    assert NEEDS[name] in start["widgets_values"][0].partition("\n")[0]
    assert page.run("return app.graph.nodes.length") == len(workflow["nodes"])
    page.problems.clear()  # the host looks up missing nodes in its registry, which cannot be reached from here


def test_values_and_positions_are_preserved(loaded):
    kept = ("type", "pos", "size", "mode")
    before, after = (
        {n["id"]: [n.get("widgets_values") or [], *(n[key] for key in kept)] for n in nodes_of(workflow)}
        for workflow in (loaded.workflow, loaded.saved["workflow"])
    )
    assert after == before


def test_the_export_is_the_api_form(loaded):
    assert loaded.saved["output"] == shipped(loaded.name)


def tidy(page, name):
    """Check that groups hold all nodes, nothing overlaps, links run forward and text can be read, before and after a run."""
    for after_run in (False, True):
        made = layout.measure(page, after_run)
        assert made.overlaps() == [], f"after a run: {after_run}"
        assert made.backwards() == []
    assert made.contrast >= layout.LEAST_CONTRAST, made.worst
    assert len(made.groups) >= 4 and all(title[0].isdigit() for title in made.groups)
    homes = {node: [t for t, group in made.groups.items() if layout.inside(box, group)] for node, box in made.nodes.items()}
    assert {node: titles for node, titles in homes.items() if len(titles) != 1} == {}
    assert {title for titles in homes.values() for title in titles} == set(made.groups)
    return made


def test_it_is_tidy_and_can_be_read_when_fitted_into_a_window(loaded):
    made = tidy(loaded.page, loaded.name)
    assert made.title_pixels((1920, 1080)) >= layout.READABLE
    if loaded.name in FIRST:
        assert made.title_pixels((1366, 768)) >= layout.READABLE


@pytest.mark.parametrize("renderer", ["page", "modern"])
@pytest.mark.parametrize("name", WITH_SUBGRAPHS)
def test_its_subgraphs_are_tidy(request, name, renderer):
    if renderer == "modern" and NO_DOM_WIDGETS_IN_NODES_2:
        pytest.skip(NO_DOM_WIDGETS_IN_NODES_2)
    page, workflow = request.getfixturevalue(renderer), read(name)
    for node in (n for n in workflow["nodes"] if n["type"] in subgraphs_of(workflow)):
        assert load(page, name, workflow) == {}
        layout.open_subgraph(page, node["id"])
        made = tidy(page, name)
        assert len(made.nodes) == len(subgraphs_of(workflow)[node["type"]]["nodes"])


@pytest.mark.parametrize("name", WITH_SUBGRAPHS)
def test_its_subgraphs_are_offered_as_nodes(browser, process, name):
    for title, text in blueprints(read(name)).items():
        assert (PACK / "subgraphs" / f"{title}.json").read_text(encoding="utf-8") == text
        if FRONTEND < (1, 35):
            pytest.skip("this ComfyUI knows no subgraphs of packs")
        listed = json.loads(request(f"{process.url}/global_subgraphs"))
        (key,) = (key for key, entry in listed.items() if entry["name"] == title)
        assert json.loads(json.loads(request(f"{process.url}/global_subgraphs/{key}"))["data"]) == json.loads(text)
        page = CanvasPage(browser.session(), process.url)
        page.run("app.graph.clear()")
        page.page.mouse.dblclick(600, 400)
        page.page.wait_for_timeout(1000)
        page.page.keyboard.type(title.lower(), delay=20)
        page.page.wait_for_timeout(1000)
        page.page.keyboard.press("Enter")
        page.page.wait_for_timeout(1000)
        page.page.mouse.click(700, 450)  # newer frontends let the mouse place it
        page.page.wait_for_timeout(500)
        (made,) = page.run("return app.graph.nodes.map((n) => [n.title, n.subgraph.nodes.length])")
        assert made == [title, len(json.loads(text)["definitions"]["subgraphs"][0]["nodes"])] and page.problems == []


def test_an_untidy_workflow_is_noticed(page):
    workflow = read("portrait")
    nodes = {n["id"]: n for n in workflow["nodes"]}
    nodes[8]["pos"], nodes[9]["pos"] = nodes[9]["pos"], nodes[7]["pos"]
    load(page, "untidy", workflow)
    made = layout.measure(page)
    assert "7 and 9" in made.overlaps() and "8 to 9" in made.backwards()


def test_notes_name_every_file_and_show_their_whole_text(loaded):
    notes = [n for n in loaded.workflow["nodes"] if n["type"] in NOTES]
    text = "\n".join(n["widgets_values"][0] for n in notes)
    for node in shipped(loaded.name).values():
        for key in LOADED_FROM.keys() & node["inputs"].keys():
            folder = "text_encoders" if node["class_type"] == "CLIPLoader" else LOADED_FROM[key]
            assert f"models/{folder}/{node['inputs'][key]}" in text
    below = loaded.page.run(CUT_OFF)
    assert len(below) == len(notes) and max(below) <= 0


@pytest.mark.parametrize("name", NAMES)
def test_nodes_2_0_also_loads_it(canvases, modern, name):
    page = canvases(name, **{"Comfy.VueNodes.Enabled": True}) if name in NEEDS else modern
    assert load(page, name, read(name)) == {}
    assert page.prompt()["output"] == shipped(name)
    if not NO_DOM_WIDGETS_IN_NODES_2:
        tidy(page, name)


def test_the_template_browser_shows_all_of_them(page, process):
    assert {pack: sorted(names) for pack, names in json.loads(request(f"{process.url}/api/workflow_templates")).items()} == {
        "capface": NAMES
    }
    page.run("await app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.page.locator(".p-dialog, [role=dialog]").get_by_text("capface", exact=True).first.click()
    cards = page.page.locator("[data-testid^='template-workflow-']")
    for _ in range(20):  # older frontends load more entries on scrolling
        if cards.count() == len(NAMES):
            break
        cards.last.scroll_into_view_if_needed()
        page.page.wait_for_timeout(200)
    for name in NAMES:
        card = page.page.get_by_test_id(f"template-workflow-{name}")
        card.scroll_into_view_if_needed(timeout=10_000)
        picture = card.locator("img").first
        picture.wait_for(timeout=10_000)
        assert picture.evaluate("async e => { await e.decode(); return e.naturalWidth; }") == 512
        assert TEMPLATES[name]["en"][0] in card.inner_text()
    shown = [card.get_attribute("data-testid").removeprefix("template-workflow-") for card in cards.all()]
    assert shown == ORDER
    assert page.problems == []
    page.page.keyboard.press("Escape")


def test_templates_are_in_the_order_of_the_documentation():
    listed = re.findall(r"^\| \[(\w+)\]", (PACK / "docs" / "workflows.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == ORDER and sorted(ORDER) == NAMES == sorted(TEMPLATES)


@pytest.mark.parametrize("word", WORDS)
def test_search_finds_nodes_by_the_words_that_people_type(page, word):
    if FRONTEND < (1, 42) and word not in OLD_WORDS:
        pytest.skip("this frontend compares only the first words of a title")
    found = page.run(FIND % json.dumps(word))
    ours = [name for name in found if name.startswith("CapFace")]
    assert WORDS[word] in ours, found[:20]


def test_titles_stay_short(page):
    """Older frontends find words only in titles, so the results there have longer ones."""
    made = page.run(
        """app.graph.clear(); app.graph.add(LiteGraph.createNode('CapFaceEditHead'));
        const def = PINIA.get('nodeDef').nodeDefsByName.CapFaceEditHead;
        app.graph.add(LiteGraph.createNode(def.name, def.display_name));
        await new Promise((done) => setTimeout(done, 50));
        return app.graph.nodes.map((node) => node.title)""".replace("PINIA", PINIA)
    )
    assert made == ["Edit Head", "Edit Head"]


@pytest.mark.parametrize("renderer", ["page", "modern"])
def test_a_report_is_shown_in_its_node_and_not_saved_in_the_workflow(renderer, request):
    if renderer == "modern" and NO_DOM_WIDGETS_IN_NODES_2:
        pytest.skip(NO_DOM_WIDGETS_IN_NODES_2)
    page = request.getfixturevalue(renderer)
    page.run("app.graph.clear(); app.graph.add(LiteGraph.createNode('CapFaceCheck')); await app.queuePrompt(0, 1)")
    page.page.locator("pre", has_text="caphuman.ckpt").wait_for(timeout=60_000)
    sent = page.prompt()
    (step,), (node,) = sent["output"].values(), sent["workflow"]["nodes"]
    assert step["inputs"] == {"checksums": False} and node["widgets_values"] == [False]
    assert page.problems == []


def test_notes_about_a_photo_are_shown_once_until_they_change(page):
    page.run("app.graph.clear(); app.graph.add(LiteGraph.createNode('CapFaceEncodeIdentity'))")
    say = "node('CapFaceEncodeIdentity').onExecuted({ images: [], text: %s })"
    shown = page.page.locator(TOAST)
    page.run(say % '["a small face", "no parser"]')
    page.page.locator(TOAST, has_text="no parser").wait_for(timeout=5_000)
    page.run(say % '["a small face", "no parser"]')
    page.idle()
    assert shown.count() == 1
    page.run(say % '[""]')
    page.idle()
    assert shown.count() == 1
    page.run(say % '["another note"]')
    page.page.locator(TOAST, has_text="another note").wait_for(timeout=5_000)
    assert page.problems == []
