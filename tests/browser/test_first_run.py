"""The first run of a new user without the files: the dialog lists the missing files, their folders and sources."""

import json

import pytest

from capface.tests.browser.conftest import NO_DOM_WIDGETS_IN_NODES_2
from capface.tools.browser import Browser, CanvasPage, why_not
from capface.tools.comfy import PACK, ComfyProcess, find_host
from capface.tools.standins import write_inputs

if (reason := why_not()) or find_host() is None:
    pytest.skip(reason or "no ComfyUI", allow_module_level=True)

pytestmark = pytest.mark.host
WARNING = {"Comfy.Workflow.ShowMissingModelsWarning": True}
"""The frontend's own message about a workflow's models on loading."""
RENDERERS = {"classic": WARNING, "nodes 2.0": {**WARNING, "Comfy.VueNodes.Enabled": True}}
DIALOGS = "[...document.querySelectorAll('.p-dialog, dialog[open]')].filter(e => e.checkVisibility()).length"
PANEL = "Boolean(app.extensionManager.setting.get('Comfy.RightSidePanel.ShowErrorsTab'))"
SETTLED = """const all = await (await fetch('/queue')).json();
return all.queue_running.length + all.queue_pending.length === 0"""


@pytest.fixture(scope="module")
def process(comfyui):
    """A ComfyUI without models and pictures."""
    with ComfyProcess(comfyui, folder="capface") as process:
        for picture in (process.base / "input").glob("*.png"):  # the examples that the pack has placed
            picture.unlink()
        yield process


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(params=RENDERERS)
def page(browser, process, request):
    """A tab in one of the renderers."""
    if request.param != "classic" and NO_DOM_WIDGETS_IN_NODES_2:
        pytest.skip(NO_DOM_WIDGETS_IN_NODES_2)
    session = browser.session()
    yield CanvasPage(session, process.url, RENDERERS[request.param])
    session.close()


def load(page, name="portrait"):
    """Load a workflow, and close the frontend's own messages about files."""
    page.load(json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8")), name)
    page.page.keyboard.press("Escape")


def run(page):
    """Press Run, and return the dialog's text, or None if no dialog appeared when the run ended."""
    page.run("await app.queuePrompt(0, 1)")
    page.page.wait_for_function(f"async () => {{ {SETTLED} }}", timeout=60_000, polling=200)
    page.page.wait_for_timeout(500)
    dialog = page.page.locator("dialog[open]")
    return dialog.inner_text() if dialog.count() else None


def folder(process, kind):
    return str(process.base / "models" / kind)


def test_a_first_run_lists_missing_files_with_folders_and_sources(page, process):
    load(page)
    said = run(page) or ""
    assert "Files are missing" in said and "Nothing has run" in said
    for words in (
        *("photo.png", "Drop a picture on the node.", "Photo of the person"),
        *("realisticVisionV60B1_v51VAE.safetensors", "civitai.com/models/4201", folder(process, "checkpoints")),
        *("clip-vit-large-patch14.safetensors", "huggingface.co/openai/clip-vit-large-patch14", folder(process, "clip_vision")),
        *("caphuman.ckpt", "github.com/VamosC/CapHuman", folder(process, "capface"), "CC-BY-NC-4.0"),
        *("20180402-114759-vggface2.pt", "github.com/timesler/facenet-pytorch", folder(process, "facenet")),
        *("6f0086112db9abc6ce4518a458d4d4b8", "press R", "CapFace Check", "miniature"),
    ):
        assert words in said
    # Older frontends, without an error panel, open their own dialog when a prompt is refused: ours is above it.
    assert page.run(f"return {DIALOGS}") == (1 if page.run(f"return {PANEL}") else 2)
    assert page.run("return document.elementFromPoint(innerWidth / 2, innerHeight / 2).closest('dialog').className") == (
        "capface-missing"
    )
    link = page.page.locator("dialog[open] a", has_text="github.com/VamosC/CapHuman")
    assert link.get_attribute("href") == "https://github.com/VamosC/CapHuman"
    # For the pack's own nodes, the frontend's own list has the same text.
    assert "caphuman.ckpt is not in" in json.dumps(page.run("return app.lastNodeErrors"))
    page.page.keyboard.press("Enter")
    page.page.wait_for_timeout(500)
    page.page.keyboard.press("Escape")
    page.page.wait_for_function(f"() => {DIALOGS} === 0", timeout=5_000)


def test_the_dialog_leads_to_the_node_and_goes_by_keyboard(page):
    load(page)
    run(page)
    page.page.locator("dialog[open] button", has_text="Load CapFace").click()
    assert page.page.locator("dialog[open]").count() == 0
    assert page.run("return Object.values(app.canvas.selected_nodes).map(n => n.type)") == ["CapFaceLoad"]
    run(page)
    page.page.keyboard.press("Enter")
    assert page.page.locator("dialog[open]").count() == 0
    run(page)
    page.page.keyboard.press("Escape")
    assert page.page.locator("dialog[open]").count() == 0


def test_previews_that_need_no_files_do_not_hide_the_dialog(page, process):
    write_inputs(process.base / "input")
    try:
        load(page, "head_first")
        # Without an identity FaceNet is not needed, and the head is fitted and rendered.
        page.run("app.graph.remove(node('CapFaceEncodeIdentity'))")
        said = run(page) or ""
        assert "Only a part has run" in said and "caphuman.ckpt" in said
        assert "photo.png" not in said and "vggface2" not in said
    finally:
        for file in (process.base / "input").glob("*.*"):
            file.unlink()


def test_the_dialog_uses_the_users_language(browser, process):
    session = browser.session()
    page = CanvasPage(session, process.url, {"Comfy.Locale": "ja"})
    load(page)
    assert "\u30d5\u30a1\u30a4\u30eb\u304c\u3042\u308a\u307e\u305b\u3093" in (run(page) or "")
    session.close()


def test_no_dialog_without_missing_files_or_without_our_nodes(page):
    page.run("""app.graph.clear(); const add = type => { const n = LiteGraph.createNode(type); app.graph.add(n); return n; };
        const model = add('CapFaceLoadHeadModel'), head = add('CapFaceEditHead'), draw = add('CapFaceRenderHead');
        for (const node of [head, draw]) model.connect(0, node, node.findInputSlot('head_model'));
        head.connect(0, draw, draw.findInputSlot('head'));""")
    assert run(page) is None
    page.run("""app.graph.clear(); const add = type => { const n = LiteGraph.createNode(type); app.graph.add(n); return n; };
        const photo = add('LoadImage'), shown = add('PreviewImage'); photo.connect(0, shown, 0);
        photo.widgets[0].value = 'nobody.png';""")
    page.run("await app.queuePrompt(0, 1)")
    page.page.wait_for_timeout(500)
    assert page.page.locator(".capface-missing").count() == 0
