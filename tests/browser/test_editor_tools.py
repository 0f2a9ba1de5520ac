"""The tools of Edit Head's editor in a real browser: presets, rings, fingers, typed numbers, photos, the full window, words."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from capface.flame.model.rotation import axis_angle_to_matrix
from capface.tests.browser.test_editor import (
    BUILD,
    EDITOR,
    FRONTEND_COUNTED_A_CHANGE,
    browser,
    canvas,
    differ,
    open_tab,
    process,
    session,
    set_values,
    shown,
    toggle,
    undo,
    values,
)
from capface.tools.browser import CanvasPage

__all__ = ["browser", "canvas", "process", "session"]

pytestmark = pytest.mark.host
STRIP = ".capface-sections .strip"
NEUTRAL = dict.fromkeys(("yaw", "pitch", "roll", "position_x", "position_y"), 0) | {"size": 1}
# The ratio of the luminances of text and background, as in WCAG 2.2; the darkest and the lightest background are tried.
CONTRAST = """(root) => {
  const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (text) => { const n = text.match(/[\\d.]+/g)?.map(Number) ?? [0, 0, 0, 0]; return [n.slice(0, 3), n[3] ?? 1]; };
  const under = (element, start) => {
    const layers = [];
    for (let e = element; e && e !== root; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, [above, a]) => below.map((c, i) => above[i] * a + c * (1 - a)), start);
  };
  const found = [];
  for (const e of root.querySelectorAll('*')) {
    const text = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.matches('input, button[aria-label]');
    if (!text || e.matches('style, title, .tile, canvas, [type=range], [type=color]') || e.closest('svg, [hidden]')) continue;
    const ink = parse(getComputedStyle(e).color)[0];
    // The picture: from the background's darkest to its lightest.
    for (const start of root.matches('.capface-editor') ? [[23, 24, 27], [210, 180, 160]] : [[33, 33, 33]]) {
      const [a, b] = [luminance(ink), luminance(under(e, start))].sort((x, y) => y - x);
      found.push([(a + 0.05) / (b + 0.05), e.className || e.tagName, e.textContent.slice(0, 20)]);
    }
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""


def tile(page, title):
    """Return the button of a preset."""
    return page.page.locator(f'{STRIP} .tile[aria-label="{title}"]')


def press(page, name):
    """Press a tool or a mode of the editor."""
    page.page.locator(f"{EDITOR} [data-tool={name}], {EDITOR} [data-mode={name}]").click()
    page.idle()


def keys(page, *pressed):
    """Focus the picture and press keys."""
    page.page.locator(EDITOR).focus()
    for key in pressed:
        page.page.keyboard.press(key)
    page.page.wait_for_timeout(500)
    page.idle()


def drag_ring(page, axis, dx, dy):
    """Drag a ring or a handle by its middle, or at its right end, by fractions of the picture."""
    x, y = page.page.locator(f"{EDITOR} [data-axis={axis}]").evaluate("""g => {
      const path = g.querySelector('.line');
      const point = path ? path.getPointAtLength(0.4 * path.getTotalLength()) : { x: 0, y: 0 };
      const at = new DOMPoint(point.x, point.y).matrixTransform(g.getScreenCTM());
      return [at.x, at.y];
    }""")
    box = page.page.locator(EDITOR).bounding_box()
    fractions = (x - box["x"]) / box["width"], (y - box["y"]) / box["height"]
    page.drag(EDITOR, fractions, (fractions[0] + dx, fractions[1] + dy))


def test_a_preset_is_seen_while_pointed_at_and_set_by_a_click_as_one_undo_step(canvas):
    canvas.run("app.canvas.ds.scale = 1; app.canvas.ds.offset = [400, 100]; app.canvas.setDirty(true, true);")
    canvas.load(canvas.prompt()["workflow"])
    before = shown(canvas)
    toggle(canvas, "Expression")
    names = ("expression_mode", "smile_left", "smile_right", "mouth_open", "yaw")
    start = values(canvas, *names)
    tile(canvas, "Laugh").hover()
    canvas.page.wait_for_timeout(500)
    assert differ(shown(canvas), before) > 0.3 and values(canvas, *names) == start
    tile(canvas, "Laugh").click()
    canvas.idle()
    assert values(canvas, *names) == ["absolute", 1.2, 1.2, 0.6, 0]
    assert tile(canvas, "Laugh").get_attribute("aria-pressed") == "true"
    # The next one replaces it.
    tile(canvas, "Sad").click()
    canvas.idle()
    assert values(canvas, "smile_left", "mouth_open", "frown") == [0, 0, 1.1]
    canvas.page.mouse.move(5, 400)
    undo(canvas)
    assert values(canvas, *names) == ["absolute", 1.2, 1.2, 0.6, 0]
    undo(canvas)
    assert values(canvas, *names) == start and differ(shown(canvas), before) == 0


def test_the_users_own_presets_are_files(session, process):
    page = open_tab(session, process)
    folder = process.base / "user" / "default" / "capface" / "presets" / "pose"
    say = "app.extensionManager.dialog.prompt = async () => %s; app.extensionManager.dialog.confirm = async () => true;"
    name, other = (f"{word} {'2.0' if session[1] else 'classic'}" for word in ("Mine", "Renamed: a/b"))
    kept = other.replace(":", "").replace("a/b", "a b")
    set_values(page, yaw=33, roll=-5)
    page.run(say % json.dumps(name))
    page.page.locator(f"{STRIP} .plus").click()
    tile(page, name).wait_for(timeout=10_000)
    saved = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    assert (
        saved["values"] | {"yaw": 33, "roll": -5, "pose_mode": "add"} == saved["values"] and "smile_left" not in saved["values"]
    )
    assert saved["picture"].startswith("data:image/jpeg;base64,")
    # A second one of this name is refused.
    set_values(page, yaw=-10)
    page.page.locator(f"{STRIP} .plus").click()
    page.idle()
    assert json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) == saved
    expected = [problem for problem in page.problems if "409" in problem]
    page.open()
    page.run(BUILD.replace("EDITORS", "1"))
    page.idle()
    tile(page, name).click()
    page.idle()
    assert values(page, "yaw", "roll") == [33, -5]
    page.run(say % json.dumps(other))
    tile(page, name).focus()
    page.page.keyboard.press("F2")
    tile(page, kept).wait_for(timeout=10_000)
    assert [path.name for path in folder.iterdir()] == [f"{kept}.json"] and tile(page, name).count() == 0
    tile(page, kept).focus()
    page.page.keyboard.press("Delete")
    tile(page, kept).wait_for(state="detached", timeout=10_000)
    assert list(folder.iterdir()) == []
    assert [problem for problem in page.problems if problem not in expected] == []


def test_left_and_right_are_linked_and_mirrored_and_sections_are_reset(canvas):
    press(canvas, "link")
    set_values(canvas, smile_left=0.7)
    assert values(canvas, "smile_left", "smile_right") == [0.7, 0.7]
    press(canvas, "link")
    set_values(canvas, smile_right=0.2, yaw=25, key_azimuth=-40)
    press(canvas, "mirror")
    assert values(canvas, "smile_left", "smile_right", "yaw", "pitch", "key_azimuth") == [0.2, 0.7, -25, 0, 40]
    press(canvas, "reset")  # the pose is open
    assert values(canvas, "smile_left", "yaw", "key_azimuth") == [0.2, 0, 40]
    press(canvas, "resetAll")
    (step,) = (s for s in canvas.prompt()["output"].values() if s["class_type"] == "CapFaceEditHead")
    assert values(canvas, "smile_left", "smile_right", "key_azimuth") == [0, 0, 30] and step["inputs"]["yaw"] == 0


def test_rings_and_handles_change_one_thing_each(canvas):
    canvas.page.mouse.move(*canvas.at(EDITOR, 0.5, 0.6))
    for axis, by, changed in (
        ("yaw", (0.1, 0.08), {"yaw"}),
        ("pitch", (0.08, -0.1), {"pitch"}),
        ("roll", (0.1, 0.05), {"roll"}),
        ("move", (-0.1, 0.05), {"position_x", "position_y"}),
        ("size", (0.06, 0.06), {"size"}),
    ):
        drag_ring(canvas, axis, *by)
        now = dict(zip(NEUTRAL, values(canvas, *NEUTRAL), strict=True))
        assert {name for name in NEUTRAL if now[name] != NEUTRAL[name]} == changed, axis
        press(canvas, "resetAll")
    # With Ctrl, values are multiples of a step.
    canvas.drag(EDITOR, (0.4, 0.55), (0.57, 0.6), key="Control")
    assert [angle % 15 for angle in values(canvas, "yaw", "pitch")] == [0, 0] and values(canvas, "yaw")[0] in (30, 45)


def test_every_axis_has_keys_and_a_field(canvas):
    keys(canvas, "ArrowRight", "ArrowUp", ".", "Shift+ArrowRight", "+")
    assert values(canvas, *NEUTRAL) == [2, 2, 2, 0.02, 0, 1.02]
    keys(canvas, "Alt+ArrowRight", "Control+ArrowUp", "Alt+,", "Control+Shift+ArrowUp", "-")
    assert values(canvas, *NEUTRAL) == [2.5, 17, 1.5, 0.02, -0.15, 1]
    field = canvas.page.locator(f"{EDITOR} .reading input[data-name=yaw]")
    field.fill("\N{MINUS SIGN}31,5°")
    field.press("Enter")
    assert values(canvas, "yaw") == [-31.5] and field.input_value() == "\N{MINUS SIGN}31.5°"
    field.fill("nonsense")
    field.press("Enter")
    assert values(canvas, "yaw") == [-31.5] and field.input_value() == "\N{MINUS SIGN}31.5°"
    toggle(canvas, "Position")
    size = canvas.page.locator(f"{EDITOR} .reading input[data-name=size]")
    size.fill("9")
    size.press("Tab")
    assert values(canvas, "size") == [4]


def look(yaw, pitch, roll=0.0):
    """Return R_y(yaw) · R_x(-pitch) · R_z(-roll)."""
    axes = torch.eye(3, dtype=torch.float64)
    parts = ((yaw, axes[1]), (-pitch, axes[0]), (-roll, axes[2]))
    y, x, z = (axis_angle_to_matrix(torch.deg2rad(torch.tensor(angle).double()) * axis) for angle, axis in parts)
    return y @ x @ z


def test_eyes_are_dragged_and_stay_on_the_camera(canvas):
    # The head of the file is turned by half a radian. Its right eye is near the middle of the picture.
    canvas.drag(EDITOR, (0.522, 0.43), (0.55, 0.41))
    yaw, pitch = values(canvas, "gaze_yaw", "gaze_pitch")
    assert yaw > 5 and pitch > 3 and values(canvas, *NEUTRAL) == list(NEUTRAL.values())
    press(canvas, "camera")
    keys(canvas, "ArrowLeft", "ArrowLeft", "ArrowUp", ".", ".")
    pose, gaze = values(canvas, "yaw", "pitch", "roll"), values(canvas, "gaze_yaw", "gaze_pitch")
    ahead = look(np.degrees(0.5) + pose[0], *pose[1:]) @ look(*gaze)[:, 2]
    assert ahead[2] > 0.9999
    press(canvas, "camera")
    keys(canvas, "ArrowLeft")
    assert values(canvas, "gaze_yaw", "gaze_pitch") == gaze


def test_two_fingers_size_tilt_and_move_the_head_but_not_the_canvas(canvas):
    view = canvas.run("return [app.canvas.ds.scale, ...app.canvas.ds.offset]")
    devtools = canvas.page.context.new_cdp_session(canvas.page)

    def touch(kind, *points):
        places = [dict(zip("xy", canvas.at(EDITOR, *point), strict=True), id=i) for i, point in enumerate(points)]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
        canvas.page.wait_for_timeout(30)

    touch("touchStart", (0.45, 0.55))
    touch("touchMove", (0.47, 0.55))
    touch("touchStart", (0.47, 0.55), (0.57, 0.55))
    for step in range(1, 9):
        touch("touchMove", (0.47 - 0.01 * step, 0.55 - 0.004 * step), (0.57 + 0.01 * step, 0.55 + 0.01 * step))
    touch("touchEnd")
    canvas.idle()
    now = dict(zip(NEUTRAL, values(canvas, *NEUTRAL), strict=True))
    assert (now["yaw"], now["pitch"]) == (0, 0)
    assert 2 < now["size"] < 3.5 and 10 < now["roll"] < 35 and now["position_y"] > 0.02
    assert canvas.run("return [app.canvas.ds.scale, ...app.canvas.ds.offset]") == view
    touch("touchStart", (0.5, 0.55))
    touch("touchMove", (0.6, 0.55))
    touch("touchEnd")
    canvas.idle()
    assert values(canvas, "yaw")[0] > 5


def test_the_full_window_edits_and_closes_with_escape(canvas):
    canvas.run("app.canvas.ds.scale = 1; app.canvas.ds.offset = [400, 100]; app.canvas.setDirty(true, true);")
    canvas.load(canvas.prompt()["workflow"])
    place = canvas.page.locator(EDITOR).bounding_box()
    press(canvas, "full")
    dialog = canvas.page.locator("dialog.capface-window")
    wide = dialog.locator(EDITOR).bounding_box()
    assert wide["width"] > 1.8 * place["width"] and wide["height"] > 900
    canvas.page.wait_for_function(f"document.querySelector('{EDITOR} > .picture').width === 1024", timeout=30_000)
    yaw = dialog.locator("label", has=canvas.page.locator("[type=range]")).nth(0).locator("[type=number]")
    yaw.fill("20")
    yaw.press("Enter")
    assert values(canvas, "yaw") == [20]
    # Undo acts in the window, which stays, also from a field. The host replaces the node.
    canvas.drag(f"dialog {EDITOR}", (0.5, 0.6), (0.5, 0.5))
    assert values(canvas, "pitch")[0] > 5
    for key, yaw_then, tilted in (("z", 20, False), ("z", 0, False), ("y", 20, False), ("Shift+z", 20, True), ("z", 20, False)):
        undo(canvas, key)
        assert values(canvas, "yaw") == [yaw_then] and (values(canvas, "pitch")[0] > 5) == tilted
        dialog.locator(f"{EDITOR}:focus").wait_for(timeout=10_000)
        assert dialog.count() == canvas.page.locator(EDITOR).count() == canvas.page.locator(".capface-sections").count() == 1
    dialog.locator("label [type=number]").nth(0).focus()
    undo(canvas)
    dialog.locator(f"{EDITOR}:focus").wait_for(timeout=10_000)
    assert values(canvas, "yaw") == [0]
    undo(canvas, "y")
    assert values(canvas, "yaw") == [20]
    # The focus stays in the window.
    for _ in range(60):
        canvas.page.keyboard.press("Tab")
        assert canvas.page.evaluate(
            "document.activeElement === document.body || Boolean(document.activeElement.closest('dialog'))"
        )
    canvas.page.keyboard.press("Escape")
    canvas.idle()
    assert dialog.count() == 0 and canvas.page.locator(EDITOR).count() == 1
    assert canvas.page.locator(EDITOR).bounding_box() == pytest.approx(place, abs=2)
    undo(canvas)
    if values(canvas, "yaw") != [0] and canvas.run(FRONTEND_COUNTED_A_CHANGE):
        undo(canvas)
    assert values(canvas, "yaw") == [0]


def test_a_photo_is_under_the_head_before_any_run(canvas, process):
    Image.new("RGB", (200, 300), (20, 200, 40)).save(process.base / "input" / "tall.png")
    over = canvas.page.locator(f"{EDITOR} [data-view=over]")
    assert not over.is_visible()
    canvas.run("""const photo = LiteGraph.createNode('LoadImage'); photo.pos = [-330, 320]; app.graph.add(photo);
        photo.widgets.find(w => w.name === 'image').value = 'tall.png';
        const edit = node('CapFaceEditHead'); photo.connect(0, edit, edit.findInputSlot('photo'));""")
    canvas.idle()
    over.click()
    canvas.page.wait_for_function(f"document.querySelector('{EDITOR} > .picture').height === 512", timeout=30_000)
    canvas.idle()

    def pixels():
        canvas.idle()
        return np.asarray(
            canvas.page.locator(f"{EDITOR} > .picture").evaluate("""c => [...c.getContext('2d')
          .getImageData(c.width / 2, c.height / 2, 1, 1).data, ...c.getContext('2d').getImageData(2, 2, 1, 1).data, c.width]""")
        )

    before = pixels()
    assert list(before[4:]) == [20, 200, 40, 255, 341] and before[1] < 180
    opacity = canvas.page.locator(f"{EDITOR} .opacity")
    opacity.fill("0")
    canvas.page.wait_for_timeout(600)
    assert list(pixels()[:3]) == [20, 200, 40]
    opacity.fill("0.8")
    # The frame of the render has the latent's sides.
    canvas.run("""const add = (type) => { const n = LiteGraph.createNode(type); app.graph.add(n); n.pos = [900, 0]; return n; };
        const render = add('CapFaceRenderHead'), edit = node('CapFaceEditHead');
        render.widgets.find(w => w.name === 'width').value = 1024;
        edit.connect(0, render, render.findInputSlot('head'));""")
    over.click()
    press(canvas, "guides")
    canvas.page.wait_for_timeout(700)
    canvas.idle()
    assert list(pixels()[8:]) == [512] and canvas.page.locator(f"{EDITOR} > .picture").evaluate("c => c.height") == 256
    assert "320 px at 512" in canvas.page.locator(f"{EDITOR} .guides").evaluate("svg => svg.textContent")
    press(canvas, "guides")


def test_a_section_is_taken_from_a_dropped_photo(canvas):
    sent = []
    answer = {"values": {"gaze_yaw": 12.0, "gaze_pitch": -4.0}, "text": ""}
    canvas.page.route("**/capface/photo", lambda route: (sent.append(route.request.post_data_json), route.fulfill(json=answer)))
    toggle(canvas, "Eyes")
    drop = """root => {
      const data = new DataTransfer(), bytes = Uint8Array.from(atob('BASE64'), c => c.charCodeAt(0));
      data.items.add(new File([bytes], 'face.png', { type: 'image/png' }));
      const options = { bubbles: true, cancelable: true, dataTransfer: data };
      for (const name of ['dragover', 'drop']) root.dispatchEvent(new DragEvent(name, options));
    }""".replace("BASE64", "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
    nodes = canvas.run("return app.graph.nodes.length")
    canvas.page.locator(EDITOR).evaluate(drop)
    canvas.page.wait_for_timeout(800)
    canvas.idle()
    assert values(canvas, "gaze_yaw", "gaze_pitch") == [12, -4] and canvas.run("return app.graph.nodes.length") == nodes
    assert sent[0]["section"] == "Gaze" and re.fullmatch(r"capface/face.*\.png \[temp\]", sent[0]["photo"])
    # Without the networks' files, the server says what Fit Head would.
    canvas.page.unroute("**/capface/photo")
    canvas.page.locator(EDITOR).evaluate(drop)
    canvas.page.wait_for_selector(f"{EDITOR} .error.on", timeout=60_000)
    assert len(canvas.page.locator(f"{EDITOR} .error").inner_text()) > 20
    assert values(canvas, "gaze_yaw", "gaze_pitch") == [12, -4]
    assert all("422" in problem for problem in canvas.problems)
    canvas.problems.clear()


def test_controls_have_names_texts_have_contrast_and_words_have_translations(session, process):
    page = open_tab(session, process)
    for section in ("Pose", "Light"):
        if section != "Pose":
            toggle(page, section)
        for root in (EDITOR, ".capface-sections"):
            nameless = page.page.locator(root).evaluate("""root => [...root.querySelectorAll('button, input, [role]')]
                .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label')?.textContent.trim())
                  && !e.matches('.error, .busy, .reading')).map(e => e.outerHTML)""")
            assert nameless == []
            worst = page.page.locator(root).evaluate(CONTRAST)[0]
            assert worst[0] >= 4.5, worst
    words = page.run("return (await import(new URL('/extensions/capface/words.js', location))).WORDS")
    assert len(words) > 40
    for key, texts in words.items():
        assert len(texts) == 4 and all(texts), key
        assert len(set(texts)) == 4 or len(texts[0]) < 15, key
    page.page.close()
    translated = CanvasPage(session[0], process.url, {**session[1], "Comfy.Locale": "ja"})
    translated.run(BUILD.replace("EDITORS", "1"))
    translated.idle()
    titles = translated.page.locator(".capface-sections .tabs button").all_inner_texts()
    assert titles[:3] == ["\u59ff\u52e2", "\u4f4d\u7f6e", "\u8868\u60c5"]
    assert tile(translated, "\u6b63\u9762").count() == 1 and page.problems == translated.problems == []
