"""Edit Head's picture in a real browser, in both of the frontend's node renderers."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from capface.tools.browser import Browser, CanvasPage, why_not
from capface.tools.comfy import ComfyProcess, find_host

if (reason := why_not()) or find_host() is None:
    pytest.skip(reason or "no ComfyUI", allow_module_level=True)

pytestmark = pytest.mark.host
EDITOR = ".capface-editor"
RENDERERS = {"classic": {}, "nodes 2.0": {"Comfy.VueNodes.Enabled": True}}
BUILD = """
const add = (type, x, y) => { const n = LiteGraph.createNode(type); n.pos = [x, y]; app.graph.add(n); return n; };
const model = add('CapFaceLoadHeadModel', -330, 0), saved = add('CapFaceLoadHead', -330, 160);
for (let i = 0; i < EDITORS; i++) {
  const edit = add('CapFaceEditHead', 420 * i, 0);
  saved.connect(0, edit, edit.findInputSlot('head'));
  model.connect(0, edit, edit.findInputSlot('head_model'));
}
saved.widgets.find(w => w.name === 'file').value = 'turned.json';
app.canvas.ds.scale = 0.8; app.canvas.ds.offset = [460, 130]; app.canvas.setDirty(true, true);
"""


@pytest.fixture(scope="module")
def process(comfyui, tmp_path_factory):
    """A ComfyUI with a saved head in its input folder."""
    import torch

    from capface.flame import HeadParams
    from capface.flame.storage import heads_to_json

    with ComfyProcess(comfyui, folder="capface") as process:
        head = HeadParams.neutral().replace(rotation=torch.tensor([[0.0, 0.5, 0.0]]))
        (process.base / "input" / "turned.json").write_text(heads_to_json(head), encoding="utf-8")
        yield process


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(params=RENDERERS)
def session(browser, request):
    """A browser session and the settings of one renderer."""
    context = browser.session()
    yield context, RENDERERS[request.param]
    context.close()


@pytest.fixture
def canvas(session, process):
    """A tab with one editor."""
    yield (page := open_tab(session, process))
    assert page.problems == []


def open_tab(session, process, editors=1):
    """A tab with some editors."""
    page = CanvasPage(session[0], process.url, session[1])
    page.run(BUILD.replace("EDITORS", str(editors)))
    page.idle()
    return page


def values(page, *names, index=0):
    """Widget values of an editor."""
    code = f"""const n = app.canvas.graph.nodes.filter(n => n.type === 'CapFaceEditHead').sort((a, b) => a.id - b.id)[{index}];
    return {json.dumps(names)}.map(name => n.widgets.find(w => w.name === name).value)"""
    return page.run(code)


def shown(page, index=0):
    """The pixels of a picture `[H, W, 4]`, as it is at rest."""
    page.page.wait_for_function(
        f"document.querySelectorAll('{EDITOR} > .picture')[{index}]?.width === 512", timeout=10_000, polling=50
    )
    page.idle()
    data = page.page.locator(f"{EDITOR} > .picture").nth(index).evaluate("canvas => canvas.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1])))).astype(float)


def differ(a, b):
    """By how much two pictures differ, of 255."""
    return np.abs(a - b).mean()


def run_workflow(page):
    """Run the workflow and wait for the editors' heads."""
    done = "JSON.parse(sessionStorage.getItem('capface.given') ?? '[]').length"
    before = page.run("return sessionStorage.getItem('capface.given')")
    page.run("await app.queuePrompt(0, 1)")
    page.page.wait_for_function(
        f"before => {done} > 0 && sessionStorage.getItem('capface.given') !== before", arg=before, timeout=30_000, polling=100
    )
    page.idle()


def test_the_mouse_writes_the_widgets(canvas):
    canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.4))
    yaw, pitch = values(canvas, "yaw", "pitch")
    # A head's surface stays under the pointer: 0.4 of the half width on a head of 0.62 of it.
    assert yaw == pytest.approx(np.degrees(0.4 / 0.62), abs=2) and 10 < pitch < 25
    canvas.drag(EDITOR, (0.5, 0.5), (0.6, 0.55), key="Shift")
    assert values(canvas, "position_x", "position_y") == pytest.approx([0.2, 0.1], abs=0.03)
    canvas.drag(EDITOR, (0.5, 0.5), (0.6, 0.5), key="Alt")
    assert values(canvas, "roll")[0] == pytest.approx(np.degrees(0.2 / 0.62), abs=2)
    canvas.page.mouse.move(*canvas.at(EDITOR, 0.5, 0.5))
    scale = canvas.run("return app.canvas.ds.scale")
    canvas.page.wait_for_timeout(400)
    canvas.page.mouse.wheel(0, -300)
    canvas.page.wait_for_timeout(600)
    assert values(canvas, "size") == pytest.approx([2 ** (1 / 3)], abs=0.01)
    assert canvas.run("return app.canvas.ds.scale") == scale
    assert values(canvas, "yaw", "pitch") == [yaw, pitch]
    canvas.page.mouse.dblclick(*canvas.at(EDITOR, 0.3, 0.7))
    canvas.idle()
    assert values(canvas, "yaw", "pitch", "roll", "position_x", "position_y", "size") == [0, 0, 0, 0, 0, 1]


def test_the_ball_sets_the_light(canvas):
    before = shown(canvas)
    ball = f"{EDITOR} > .ball"
    canvas.drag(ball, (0.5, 0.5), (0.5 - 5 / 12 * np.sin(np.radians(40)), 0.5))
    light, azimuth, elevation = values(canvas, "light", "key_azimuth", "key_elevation")
    assert light == "custom" and azimuth == pytest.approx(-40, abs=4) and elevation == pytest.approx(0, abs=4)
    assert differ(shown(canvas), before) > 1
    canvas.drag(ball, (0.5 - 5 / 12 * np.sin(np.radians(40)), 0.5), (0.5 - 5 / 12 * 1.5, 0.5))
    assert values(canvas, "key_azimuth")[0] == pytest.approx(-135, abs=6)
    canvas.page.mouse.dblclick(*canvas.at(ball, 0.5, 0.5))
    canvas.idle()
    assert values(canvas, "light", "key_azimuth", "key_elevation") == ["keep", 30, 25]
    assert differ(shown(canvas), before) == 0


def test_the_picture_follows_the_sliders_and_only_shows_what_a_run_gives(canvas):
    before = shown(canvas)
    canvas.run("const w = node('CapFaceEditHead').widgets.find(w => w.name === 'yaw'); w.value = -45; w.callback(-45);")
    canvas.idle()
    after = shown(canvas)
    assert differ(after, before) > 5
    sent = canvas.prompt()["output"]
    (step,) = (s for s in sent.values() if s["class_type"] == "CapFaceEditHead")
    assert step["inputs"]["yaw"] == -45 and "editor" not in step["inputs"]
    run_workflow(canvas)
    assert canvas.page.locator(f"{EDITOR} > .source.on").count() == 0
    # The head of the file was shown before, and is what the node was given.
    assert differ(shown(canvas), after) == 0


def test_a_saved_workflow_has_its_values_in_the_schemas_order(canvas):
    canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.4))
    saved = canvas.prompt()
    (node,) = (n for n in saved["workflow"]["nodes"] if n["type"] == "CapFaceEditHead")
    assert node["widgets_values"][:4] == ["add", *values(canvas, "yaw", "pitch", "roll")]
    assert None not in node["widgets_values"]
    picture = shown(canvas)
    canvas.load(saved["workflow"])
    assert canvas.prompt()["output"] == saved["output"]
    assert differ(shown(canvas), picture) == 0


def test_undo_and_redo_take_one_gesture_at_a_time(canvas):
    canvas.load(canvas.prompt()["workflow"])  # gives the canvas a workflow whose changes are tracked
    start = shown(canvas)
    canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.5))
    first = values(canvas, "yaw")
    canvas.drag(EDITOR, (0.5, 0.5), (0.5, 0.6))
    second = values(canvas, "yaw", "pitch")
    turned = shown(canvas)
    for key, expected in (("z", [*first, 0]), ("z", [0, 0]), ("y", [*first, 0]), ("y", second), ("z", [*first, 0])):
        canvas.page.keyboard.press(f"Control+{key}")
        canvas.page.wait_for_timeout(500)
        canvas.idle()
        assert values(canvas, "yaw", "pitch") == expected
    canvas.page.keyboard.press("Control+z")
    canvas.page.wait_for_timeout(500)
    assert differ(shown(canvas), start) == 0 and differ(turned, start) > 5
    # The picture on the screen is the living node's.
    canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.5))
    assert values(canvas, "yaw") == pytest.approx(first, abs=1) and canvas.page.locator(EDITOR).count() == 1


def test_copies_and_deleted_editors(canvas):
    canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.5))
    (yaw,) = values(canvas, "yaw")
    canvas.run("app.canvas.selectItems([node('CapFaceEditHead')]); app.canvas.copyToClipboard();")
    canvas.run("app.canvas.pasteFromClipboard({ position: [430, 0] });")
    canvas.idle()
    assert values(canvas, "yaw", index=1) == [yaw] and canvas.page.locator(EDITOR).count() == 2
    canvas.drag(EDITOR, (0.5, 0.5), (0.5, 0.6), index=1)
    assert values(canvas, "yaw", "pitch", index=0) == [yaw, 0] and values(canvas, "pitch", index=1)[0] < -10
    canvas.run("app.graph.remove(node('CapFaceEditHead'))")
    canvas.idle()
    assert canvas.page.locator(EDITOR).count() == 1
    canvas.drag(EDITOR, (0.5, 0.5), (0.6, 0.5))
    assert values(canvas, "yaw")[0] > yaw


def test_two_editors_and_two_tabs_mind_their_own(session, process):
    page = open_tab(session, process, editors=2)
    other = open_tab(session, process)
    page.drag(EDITOR, (0.5, 0.5), (0.3, 0.5), index=1)
    still = shown(other)
    run_workflow(page)
    other.drag(EDITOR, (0.5, 0.5), (0.5, 0.6))
    assert values(page, "yaw", index=0) == [0] and values(page, "yaw", index=1)[0] < -20
    assert differ(shown(page, 0), shown(page, 1)) > 5 and differ(shown(other), still) > 5
    assert other.page.locator(f"{EDITOR} > .source.on").count() == 1
    assert page.problems == other.problems == []


def test_a_reload_finds_the_given_head_again(canvas):
    canvas.drag(EDITOR, (0.5, 0.5), (0.6, 0.5))
    run_workflow(canvas)
    saved, picture = canvas.prompt()["workflow"], shown(canvas)
    canvas.open()
    canvas.load(saved)
    assert differ(shown(canvas), picture) == 0
    assert canvas.page.locator(f"{EDITOR} > .source.on").count() == 0


def test_an_editor_in_a_subgraph(canvas):
    canvas.run("""app.canvas.selectItems([node('CapFaceEditHead')]);
        const { subgraph, node: outer } = app.canvas.graph.convertToSubgraph(app.canvas.selectedItems);
        app.canvas.setGraph ? app.canvas.setGraph(subgraph) : app.canvas.openSubgraph(subgraph);
        app.canvas.ds.scale = 0.8; app.canvas.ds.offset = [460, 130]; app.canvas.setDirty(true, true);""")
    canvas.idle()
    canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.5))
    (yaw,) = values(canvas, "yaw")
    assert yaw > 20
    (step,) = (s for s in canvas.prompt()["output"].values() if s["class_type"] == "CapFaceEditHead")
    assert step["inputs"]["yaw"] == yaw
    before = shown(canvas)
    run_workflow(canvas)
    assert canvas.page.locator(f"{EDITOR} > .source.on").count() == 0
    # Inside a subgraph the saved head could not be told before.
    assert differ(shown(canvas), before) > 5


def test_a_linked_widget_is_left_alone(canvas):
    canvas.run("""const n = LiteGraph.createNode('PrimitiveFloat'); n.pos = [-330, 320]; app.graph.add(n);
        const e = node('CapFaceEditHead'); n.connect(0, e, e.inputs.findIndex(i => i.widget?.name === 'yaw'));""")
    canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.4))
    assert values(canvas, "yaw")[0] == 0 and values(canvas, "pitch")[0] > 10
