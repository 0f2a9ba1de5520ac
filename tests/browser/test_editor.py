"""Edit Head's picture in a real browser, in both of the frontend's node renderers."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from capface.tests.browser.conftest import FRONTEND, NO_DOM_WIDGETS_IN_NODES_2
from capface.tools.browser import Browser, CanvasPage, is_console_noise, is_exception_noise, is_response_noise, why_not
from capface.tools.comfy import ComfyProcess, find_host

if (reason := why_not()) or find_host() is None:
    pytest.skip(reason or "no ComfyUI", allow_module_level=True)

pytestmark = pytest.mark.host
EDITOR = ".capface-editor"
# A few widgets of each section.
SLIDERS = {"pose_mode", "yaw", "roll", "position_x", "size", "smile_left", "cheeks", "jaw_open", "gaze_yaw", "light", "ambient"}
# 1.27 and 1.35 are the tested versions.
PROMOTED = (1, 28)
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


# Whether undo steps differ in the size of a node that was not changed.
FRONTEND_COUNTED_A_CHANGE = """
const { undoQueue, redoQueue, activeState } = app.extensionManager.workflow.activeWorkflow.changeTracker;
const size = (state) => JSON.stringify(state.nodes.find(n => n.type === 'CapFaceLoadHeadModel').size);
return new Set([...undoQueue, ...redoQueue, activeState].map(size)).size > 1;
"""


@pytest.fixture(scope="module")
def process(comfyui, tmp_path_factory):
    """A ComfyUI with a saved head in its input folder."""
    import torch

    from capface.flame import HeadParams
    from capface.flame.io.heads_json import heads_to_json

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
    if RENDERERS[request.param] and NO_DOM_WIDGETS_IN_NODES_2:
        pytest.skip(NO_DOM_WIDGETS_IN_NODES_2)
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
    """Return the widget values of an editor."""
    code = f"""const n = app.canvas.graph.nodes.filter(n => n.type === 'CapFaceEditHead').sort((a, b) => a.id - b.id)[{index}];
    return {json.dumps(names)}.map(name => n.widgets.find(w => w.name === name).value)"""
    return page.run(code)


def set_values(page, **wanted):
    """Set widgets of the editor as its sliders do."""
    page.run(f"""const n = node('CapFaceEditHead');
        for (const [name, value] of Object.entries({json.dumps(wanted)})) {{
          const w = n.widgets.find(w => w.name === name); w.value = value; w.callback(value);
        }}""")
    page.idle()


def shown(page, index=0):
    """Return the pixels `[H, W, 4]` of the picture at rest."""
    image = None
    for _ in range(10):  # on a busy machine, a picture of the gesture may still be requested
        page.page.wait_for_function(
            f"document.querySelectorAll('{EDITOR} > .picture')[{index}]?.width === 512", timeout=60_000, polling=50
        )
        page.idle()
        data = page.page.locator(f"{EDITOR} > .picture").nth(index).evaluate("canvas => canvas.toDataURL('image/png')")
        image = Image.open(io.BytesIO(base64.b64decode(data.split(",")[1])))
        if image.width == 512:
            break
    assert image is not None
    return np.asarray(image).astype(float)


def visible(page):
    """Return the visible widgets, in the editor's order."""
    return page.run("return node('CapFaceEditHead').widgets.filter(w => !w.hidden).map(w => w.name)")


def drawn(page, index=0, which="editors[INDEX]"):
    """Return the sliders whose names are on the screen: in the canvas's text, or in the text of Nodes 2.0."""
    find = f"""const editors = app.canvas.graph.nodes.filter(n => n.type === 'CapFaceEditHead').sort((a, b) => a.id - b.id);
        const n = {which.replace("INDEX", str(index))};"""
    if page.run("return Boolean(LiteGraph.vueNodesMode)"):
        # Without the editor, whose fields and hint name values, too.
        code = """const box = document.querySelector(`[data-node-id="${n.id}"]`);
            const own = [...box.querySelectorAll('.capface-editor, .capface-sections')];
            for (const element of own) element.style.display = 'none';
            const words = box.innerText.split(/\\s+/);
            for (const element of own) element.style.display = '';
            return words"""
    else:
        code = """const written = [], { fillText } = CanvasRenderingContext2D.prototype, { drawWidgets } = n;
            let mine = false;
            CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
              if (mine) written.push(text);
              return fillText.call(this, text, ...rest);
            };
            n.drawWidgets = function (...args) { mine = true; drawWidgets.apply(this, args); mine = false; };
            app.canvas.draw(true, true);
            delete n.drawWidgets;
            CanvasRenderingContext2D.prototype.fillText = fillText;
            return written"""
    return {text.split()[0] for text in page.run(find + code) if text.strip()} & SLIDERS


def toggle(page, title, index=0, beside=False):
    """Open a section in place of the others or beside them, or close it."""
    modifiers = ["Shift"] if beside else []
    page.page.locator(".capface-sections .tabs").nth(index).locator("button", has_text=title).click(modifiers=modifiers)
    page.idle()


def undo(page, key="z"):
    """Undo the last step, or redo it with "y"."""
    page.page.keyboard.press(f"Control+{key}")
    page.page.wait_for_timeout(500)
    page.idle()


def assert_sections_work(page, index=0):
    """Open another section beside and in place of the pose, and check which sliders are seen. Only the pose is open before."""
    pose, expression = {"yaw", "roll"}, {"smile_left", "jaw_open"}
    assert pose <= drawn(page, index) and not {*expression, "light", "position_x"} & drawn(page, index)
    toggle(page, "Expression", index, beside=True)
    assert pose | expression <= drawn(page, index) and not {"gaze_yaw", "cheeks"} & drawn(page, index)
    toggle(page, "Expression", index)
    assert expression <= drawn(page, index) and not pose & drawn(page, index)
    toggle(page, "Pose", index)
    assert pose <= drawn(page, index) and not expression & drawn(page, index)


def differ(a, b):
    """Return the difference of two pictures, in 0..255."""
    return np.abs(a - b).mean()


def run_workflow(page):
    """Run the workflow and wait for the editors' heads."""
    done = "JSON.parse(sessionStorage.getItem('capface.given') ?? '[]').length"
    before = page.run("return sessionStorage.getItem('capface.given')")
    # The other renderer's test may have run the same prompt, and ComfyUI 0.33 does not send outputs of cached nodes to a new
    # tab.
    page.run("await fetch('/free', {method: 'POST', body: JSON.stringify({free_memory: true})})")
    page.page.wait_for_timeout(1500)
    page.run("await app.queuePrompt(0, 1)")
    page.page.wait_for_function(
        f"before => {done} > 0 && sessionStorage.getItem('capface.given') !== before", arg=before, timeout=120_000, polling=100
    )
    page.idle()


def test_the_mouse_writes_the_widgets(canvas):
    canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.4))
    yaw, pitch = values(canvas, "yaw", "pitch")
    # The head's surface stays under the pointer: 0.4 of half the editor's width, on a head with a radius of 0.62 halves of the
    # picture's side.
    box = canvas.page.locator(EDITOR).bounding_box()
    wide, tall = (box[side] / min(box["width"], box["height"]) for side in ("width", "height"))
    assert yaw == pytest.approx(np.degrees(0.4 * wide / 0.62), abs=2) and 10 < pitch < 25
    canvas.drag(EDITOR, (0.5, 0.5), (0.6, 0.55), key="Shift")
    assert values(canvas, "position_x", "position_y") == pytest.approx([0.2 * wide, 0.1 * tall], abs=0.03)
    canvas.drag(EDITOR, (0.5, 0.5), (0.6, 0.5), key="Alt")
    assert values(canvas, "roll")[0] == pytest.approx(np.degrees(0.2 * wide / 0.62), abs=2)
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


def test_the_wheel_scales_a_head_before_any_click(canvas):
    scale = canvas.run("return app.canvas.ds.scale")
    canvas.page.mouse.move(*canvas.at(EDITOR, 0.5, 0.5))
    canvas.page.mouse.wheel(0, -200)
    canvas.page.wait_for_timeout(500)
    canvas.idle()
    assert values(canvas, "size")[0] > 1.1 and canvas.run("return app.canvas.ds.scale") == scale


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


def test_the_picture_follows_the_sliders_and_equals_the_result_of_a_run(canvas):
    before = shown(canvas)
    set_values(canvas, yaw=-45)
    after = shown(canvas)
    assert differ(after, before) > 5
    sent = canvas.prompt()["output"]
    (step,) = (s for s in sent.values() if s["class_type"] == "CapFaceEditHead")
    assert step["inputs"]["yaw"] == -45 and "editor" not in step["inputs"]
    run_workflow(canvas)
    assert canvas.page.locator(f"{EDITOR} > .source.on").count() == 0
    # The head of the file was shown before, and is also the node's input.
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
    # At other scales, Nodes 2.0 move nodes by 0.00001 pixels at each layout, and count that as a change.
    canvas.run("app.canvas.ds.scale = 1; app.canvas.ds.offset = [400, 100]; app.canvas.setDirty(true, true);")
    canvas.load(canvas.prompt()["workflow"])  # opens a workflow whose changes are tracked
    start = shown(canvas)
    canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.5))
    first = values(canvas, "yaw")
    canvas.drag(EDITOR, (0.5, 0.5), (0.5, 0.6))
    second = values(canvas, "yaw", "pitch")
    turned = shown(canvas)
    expected = [[*first, 0], [0, 0], [*first, 0], second, [*first, 0], [0, 0]]
    seen = []
    for _ in range(4):
        seen = []
        for key in "zzyyzz":
            canvas.page.keyboard.press(f"Control+{key}")
            canvas.page.wait_for_timeout(500)
            canvas.idle()
            seen.append(values(canvas, "yaw", "pitch"))
        if seen == expected or canvas.run(FRONTEND_COUNTED_A_CHANGE) is False:
            break
        # In a busy browser, Nodes 2.0 measure all nodes again and count that as a step. Undo once more, with the measured
        # sizes.
        set_values(canvas, yaw=0, pitch=0)
        canvas.load(canvas.prompt()["workflow"])
        canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.5))
        canvas.drag(EDITOR, (0.5, 0.5), (0.5, 0.6))
    assert seen == expected
    canvas.idle()
    assert differ(shown(canvas), start) == 0 and differ(turned, start) > 5
    # The picture on the screen belongs to the current node.
    canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.5))
    assert values(canvas, "yaw") == pytest.approx(first, abs=1) and canvas.page.locator(EDITOR).count() == 1


def test_copies_and_deleted_editors(canvas):
    canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.5))
    (yaw,) = values(canvas, "yaw")
    canvas.run("app.canvas.selectItems([node('CapFaceEditHead')]); app.canvas.copyToClipboard();")
    canvas.run("app.canvas.pasteFromClipboard({ position: [430, 0] });")
    canvas.idle()
    assert values(canvas, "yaw", index=1) == [yaw] and canvas.page.locator(EDITOR).count() == 2
    assert_sections_work(canvas, index=1)
    canvas.drag(EDITOR, (0.5, 0.5), (0.5, 0.6), index=1)
    assert values(canvas, "yaw", "pitch", index=0) == [yaw, 0] and values(canvas, "pitch", index=1)[0] < -10
    canvas.run("app.graph.remove(node('CapFaceEditHead'))")
    canvas.idle()
    assert canvas.page.locator(EDITOR).count() == 1
    canvas.drag(EDITOR, (0.5, 0.5), (0.6, 0.5))
    assert values(canvas, "yaw")[0] > yaw


def test_two_editors_and_two_tabs_are_independent(session, process):
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


def test_a_reload_gives_the_same_values_and_picture(canvas):
    canvas.drag(EDITOR, (0.5, 0.5), (0.6, 0.45))
    canvas.drag(EDITOR, (0.5, 0.5), (0.45, 0.5), key="Shift")
    canvas.drag(f"{EDITOR} > .ball", (0.5, 0.5), (0.3, 0.4))
    toggle(canvas, "Eyes")
    names = ("yaw", "pitch", "position_x", "position_y", "light", "key_azimuth", "key_elevation")
    numbers, sections = values(canvas, *names), visible(canvas)
    for run in (False, True):
        if run:
            run_workflow(canvas)
        saved, picture = canvas.prompt(), shown(canvas)
        canvas.open()
        canvas.load(saved["workflow"])
        assert values(canvas, *names) == numbers and visible(canvas) == sections
        assert canvas.prompt()["output"] == saved["output"]
        assert np.array_equal(shown(canvas), picture)
        # After a run, the node's input head is found again.
        assert canvas.page.locator(f"{EDITOR} > .source.on").count() == (0 if run else 1)


def test_a_draft_is_restored_with_its_values_and_picture(session, process):
    page = CanvasPage(session[0], process.url, {**session[1], "Comfy.Workflow.Persist": True})
    page.run(BUILD.replace("EDITORS", "1"))
    page.load(page.prompt()["workflow"])
    page.drag(EDITOR, (0.4, 0.5), (0.6, 0.4))
    numbers, picture = values(page, "yaw", "pitch"), shown(page)
    page.page.wait_for_timeout(1500)
    page.open()
    page.page.wait_for_selector(EDITOR, timeout=20_000)
    page.idle()
    assert values(page, "yaw", "pitch") == numbers and numbers[0] > 20
    assert np.array_equal(shown(page), picture)
    assert page.problems == []


def test_an_editor_in_a_subgraph(canvas):
    canvas.run("""app.canvas.selectItems([node('CapFaceEditHead')]);
        const { subgraph, node: outer } = app.canvas.graph.convertToSubgraph(app.canvas.selectedItems);
        app.canvas.setGraph ? app.canvas.setGraph(subgraph) : app.canvas.openSubgraph(subgraph);
        app.canvas.ds.scale = 0.8; app.canvas.ds.offset = [460, 130]; app.canvas.setDirty(true, true);""")
    canvas.idle()
    canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.5))
    (yaw,) = values(canvas, "yaw")
    assert yaw > 20
    assert_sections_work(canvas)
    (step,) = (s for s in canvas.prompt()["output"].values() if s["class_type"] == "CapFaceEditHead")
    assert step["inputs"]["yaw"] == yaw
    before = shown(canvas)
    run_workflow(canvas)
    assert canvas.page.locator(f"{EDITOR} > .source.on").count() == 0
    # Before, the saved head was found outside the subgraph.
    assert differ(shown(canvas), before) == 0


def test_a_result_is_used_unless_it_belongs_to_another_open_workflow(canvas):
    canvas.load(canvas.prompt()["workflow"])
    first = canvas.run("return app.graph.id")
    canvas.run("await app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    canvas.idle()
    canvas.run(BUILD.replace("EDITORS", "1"))
    canvas.idle()
    executed = (
        "node('CapFaceEditHead').onExecuted({ capface_given: ['none', %s] }); return sessionStorage.getItem('capface.given')"
    )
    assert canvas.run(executed % json.dumps(first)) is None
    # The host has cached it from a run of the same workflow in another tab.
    assert json.loads(canvas.run(executed % "crypto.randomUUID()"))[0][1] == "none"


def test_a_linked_widget_is_not_changed(canvas):
    canvas.run("""const n = LiteGraph.createNode('PrimitiveFloat'); n.pos = [-330, 320]; app.graph.add(n);
        const e = node('CapFaceEditHead'); n.connect(0, e, e.inputs.findIndex(i => i.widget?.name === 'yaw'));""")
    canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.4))
    assert values(canvas, "yaw")[0] == 0 and values(canvas, "pitch")[0] > 10


def test_sections_collapse_and_change_only_the_appearance(canvas):
    sent = canvas.prompt()
    assert visible(canvas)[:3] == ["editor", "sections", "pose_mode"] and len(visible(canvas)) == 9
    height = canvas.run("return node('CapFaceEditHead').size[1]")
    picture = canvas.page.locator(EDITOR).bounding_box()
    # Whatever section is open, the node keeps its height and the picture its size.
    for title, shown, hidden in (
        ("Expression", {"smile_left", "jaw_open", "pucker"}, "gaze_yaw"),
        ("Brows", {"cheeks", "brows_down"}, "smile_left"),
        ("Eyes", {"gaze_yaw", "squint_left"}, "cheeks"),
        ("Light", {"light", "key_color"}, "gaze_yaw"),
        ("Shape", {"shape_strength"}, "light"),
        ("Position", {"position_x", "size"}, "shape_strength"),
    ):
        toggle(canvas, title)
        assert shown <= set(visible(canvas)) and hidden not in visible(canvas)
        assert canvas.run("return node('CapFaceEditHead').size[1]") == pytest.approx(height, abs=12)
        assert canvas.page.locator(EDITOR).bounding_box()["height"] == pytest.approx(picture["height"], abs=12)
    toggle(canvas, "Expression", beside=True)
    assert {"smile_left", "size"} <= set(visible(canvas))
    assert canvas.run("return node('CapFaceEditHead').size[1]") > height + 50
    opened = canvas.prompt()
    assert opened["output"] == sent["output"]
    (before,), (after,) = ([n for n in p["workflow"]["nodes"] if n["type"] == "CapFaceEditHead"] for p in (sent, opened))
    assert after["widgets_values"] == before["widgets_values"] and after["inputs"] == before["inputs"]
    assert {"smile_left", "size", "jaw_open"} <= drawn(canvas)
    canvas.load(opened["workflow"])
    assert "smile_left" in visible(canvas)
    for beside in (False, True):
        toggle(canvas, "Expression", beside=beside)
    assert visible(canvas) == ["editor", "sections"]
    assert canvas.run("return node('CapFaceEditHead').size[1]") < height
    assert drawn(canvas) == set()


def test_sections_open_and_close_on_the_screen_after_undo_and_reload(canvas):
    assert_sections_work(canvas)
    canvas.run("app.canvas.ds.scale = 1; app.canvas.ds.offset = [400, 100]; app.canvas.setDirty(true, true);")
    canvas.load(canvas.prompt()["workflow"])
    assert_sections_work(canvas)
    canvas.drag(EDITOR, (0.4, 0.5), (0.6, 0.5))
    for key in "zyz":
        undo(canvas, key)
        assert canvas.page.locator(".capface-sections").count() == canvas.page.locator(EDITOR).count() == 1
    assert_sections_work(canvas)
    # Opening a section is a separate undo step.
    toggle(canvas, "Light")
    assert "ambient" in drawn(canvas) and "roll" not in drawn(canvas)
    undo(canvas)
    assert_sections_work(canvas)
    saved = canvas.prompt()
    canvas.open()
    canvas.load(saved["workflow"])
    assert canvas.prompt()["output"] == saved["output"]
    assert_sections_work(canvas)


def test_a_section_marks_changed_values_that_it_hides(canvas):
    changed = ".capface-sections button[data-changed]"
    assert canvas.page.locator(changed).count() == 0
    set_values(canvas, smile_left=1, gaze_yaw=10)
    assert canvas.page.locator(changed).all_inner_texts() == ["Expression", "Eyes"]
    canvas.run("""const n = LiteGraph.createNode('PrimitiveFloat'); n.pos = [-330, 320]; app.graph.add(n);
        const e = node('CapFaceEditHead'); n.connect(0, e, e.inputs.findIndex(i => i.widget?.name === 'size'));""")
    canvas.idle()
    # A linked widget is always visible, even in a closed section, also after loading.
    for _ in range(2):
        assert "size" in drawn(canvas) and not {"position_x", "smile_left"} & drawn(canvas)
        canvas.load(canvas.prompt()["workflow"])


def test_a_workflow_older_than_the_sections_gets_a_short_node(canvas):
    saved = canvas.prompt()
    (node,) = (n for n in saved["workflow"]["nodes"] if n["type"] == "CapFaceEditHead")
    del node["properties"]["open_sections"]
    node["size"][1] = 1500
    canvas.load(saved["workflow"])
    assert canvas.run("return node('CapFaceEditHead').size[1]") < 1000 and len(visible(canvas)) == 9
    assert canvas.prompt()["output"] == saved["output"]


@pytest.mark.skipif(FRONTEND < PROMOTED, reason=f"frontend {FRONTEND} promotes no widgets but by links")
def test_promoted_sliders_and_the_editor_in_a_subgraph_stay_in_step(canvas):
    canvas.run("""const edit = node('CapFaceEditHead');
        app.canvas.selectItems([edit]);
        const { node: outer } = app.canvas.graph.convertToSubgraph(app.canvas.selectedItems);
        outer.properties.proxyWidgets = [[String(edit.id), 'yaw'], [String(edit.id), 'smile_left'], [String(edit.id), 'light']];
        window.outer = outer.id; window.inner = edit.id; window.instance = outer.subgraph;""")
    canvas.idle()
    promoted = "app.rootGraph ?? app.graph"
    by_name = canvas.run(f"return ({promoted}).getNodeById(outer).widgets.length === 3")
    if not by_name:
        # Later frontends convert these entries of a workflow to links.
        canvas.load(canvas.prompt()["workflow"])
        canvas.run(f"""const n = ({promoted}).getNodeById(outer); window.instance = n.subgraph;
            app.canvas.ds.scale = 0.8; app.canvas.ds.offset = [460, 130]; app.canvas.setDirty(true, true);""")
        canvas.idle()

    def outside():
        return canvas.run(f"""const n = ({promoted}).getNodeById(outer);
            return n.widgets.map(w => [w.name.split(': ').at(-1), w.value, Boolean(w.hidden || w.options.hidden)])""")

    def sent():
        (step,) = (s for s in canvas.prompt()["output"].values() if s["class_type"] == "CapFaceEditHead")
        return [step["inputs"][name] for name in ("yaw", "smile_left", "light")]

    # A promoted slider is visible on the subgraph's node, although its section is closed.
    assert outside() == [["yaw", 0, False], ["smile_left", 0, False], ["light", "keep", False]]
    canvas.run(f"""const n = ({promoted}).getNodeById(outer);
        for (const [i, value] of [25, 0.5, 'studio'].entries()) {{
          n.widgets[i].value = value;
          n.widgets[i].callback?.(value);
        }}""")
    assert sent() == [25, 0.5, "studio"]
    if not by_name:
        assert drawn(canvas, which=f"({promoted}).getNodeById(outer)") == {"yaw", "smile_left", "light"}
    canvas.run("app.canvas.setGraph(instance); app.canvas.ds.scale = 0.8; app.canvas.ds.offset = [460, 130];")
    canvas.idle()
    before = shown(canvas)
    toggle(canvas, "Eyes", beside=True)
    assert {"roll", "gaze_yaw"} <= drawn(canvas)
    toggle(canvas, "Eyes", beside=True)
    assert {"roll"} <= drawn(canvas) and "gaze_yaw" not in drawn(canvas)
    if by_name:
        assert values(canvas, "yaw", "smile_left", "light") == [25, 0.5, "studio"]
    canvas.drag(EDITOR, (0.5, 0.5), (0.4, 0.4))
    (yaw, pitch) = values(canvas, "yaw", "pitch")
    assert pitch > 10 and differ(shown(canvas), before) > 2
    if by_name:
        assert yaw < 15
    else:
        yaw = 25
    assert sent() == [yaw, 0.5, "studio"]
    canvas.run("app.canvas.setGraph(app.canvas.graph.rootGraph)")
    canvas.idle()
    assert [value for _, value, _ in outside()] == [yaw, 0.5, "studio"]
    saved = canvas.prompt()
    canvas.load(saved["workflow"])
    assert canvas.prompt()["output"] == saved["output"] and sent() == [yaw, 0.5, "studio"]


NOISE_TEXT = (
    "Fetch API cannot load https://huggingface.co/a/b/resolve/main/c.safetensors. Refused to connect because it violates the "
    "document's Content Security Policy."
)


def test_messages_from_a_pack_are_never_ignored_as_noise(browser, process):
    said = f"console.error({json.dumps(NOISE_TEXT)});"
    thrown = "setTimeout(() => { (function addSetting() { throw new Error('ours'); })(); });"
    context = browser.session()
    script = {"content_type": "text/javascript", "body": said + thrown}
    context.route("**/extensions/capface/report.js", lambda route: route.fulfill(**script))
    context.route("**/extensions/capface/ball.js", lambda route: route.abort())
    problems = CanvasPage(context, process.url).problems
    context.close()
    assert any(problem.startswith(NOISE_TEXT) for problem in problems)
    assert any("ours" in problem and "addSetting" in problem for problem in problems)
    # The editor cannot be loaded without ball.js.
    assert any("/extensions/capface/editor.js" in problem for problem in problems)


def test_the_hosts_noise_is_recognized_by_text_and_source():
    script = "http://127.0.0.1:8188/assets/missingModelMetadata-aSd3ss-0.js"
    assert is_console_noise(NOISE_TEXT, script)
    assert not is_console_noise(NOISE_TEXT, "http://127.0.0.1:8188/assets/app-aSd3ss-0.js")
    assert not is_console_noise("Something else", script)
    assert not is_console_noise(f"{NOISE_TEXT}\n    at http://127.0.0.1:8188/extensions/capface/editor.js:1:1", script)
    assert is_exception_noise("Error\n    at addSetting (http://127.0.0.1:8188/assets/index.js:1:1)")
    assert not is_exception_noise("Error\n    at http://127.0.0.1:8188/assets/index.js:1:1")
    assert not is_exception_noise("Error\n    at addSetting\n    at http://127.0.0.1:8188/extensions/capface/editor.js:1:1")
    host = "http://127.0.0.1:8188"
    assert is_response_noise(404, f"{host}/api/userdata?dir=workflows&recurse=true")
    assert is_response_noise(404, f"{host}/user.css")
    assert not is_response_noise(500, f"{host}/user.css")
    assert not is_response_noise(404, f"{host}/extensions/capface/user.css")
    assert not is_response_noise(400, f"{host}/capface/edit")


def test_the_photo_appears_after_a_run_and_the_batch_can_be_browsed(session, process):
    from capface.flame import HeadParams
    from capface.flame.io.heads_json import heads_to_json

    Image.new("RGB", (320, 240), (20, 200, 40)).save(process.base / "input" / "green.png")
    three = HeadParams.neutral(3)
    three.rotation[:, 1] = three.rotation.new_tensor([0.0, 0.5, -0.5])
    (process.base / "input" / "three.json").write_text(heads_to_json(three), encoding="utf-8")
    page = CanvasPage(session[0], process.url, session[1])
    page.run(
        BUILD.replace("EDITORS", "1").replace("turned.json", "three.json")
        + """
        const photo = add('LoadImage', -330, 320), edit = node('CapFaceEditHead');
        photo.widgets.find(w => w.name === 'image').value = 'green.png';
        photo.connect(0, edit, edit.findInputSlot('photo'));"""
    )
    page.idle()
    over, number = page.page.locator(f"{EDITOR} [data-view=over]"), page.page.locator(f"{EDITOR} .number")
    following = page.page.locator(f"{EDITOR} [data-step='1']")
    first = shown(page)
    # Before a run, the photo is that of Load Image.
    assert over.is_visible() and number.inner_text() == "1/3"
    following.click()
    page.idle()
    assert number.inner_text() == "2/3" and differ(shown(page), first) > 5
    run_workflow(page)
    assert over.is_visible() and number.inner_text() == "2/3"
    plain = shown(page)
    assert plain.shape[:2] == (384, 512) and plain[5, 5, 3] == 0
    over.click()
    page.idle()
    photo = shown(page)
    # The photo around the head, and the head on it.
    assert np.abs(photo[5, 5] - (20, 200, 40, 255)).max() < 6 and np.abs(photo[192, 256, :3] - (20, 200, 40)).max() > 60
    following.click()
    page.idle()
    assert number.inner_text() == "3/3" and differ(shown(page), photo) > 2
    following.click()
    page.idle()
    assert number.inner_text() == "1/3"
    over.click()
    page.idle()
    assert shown(page)[5, 5, 3] == 0
    assert page.problems == []
