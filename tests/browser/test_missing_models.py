"""On loading a workflow, the frontend's own list of missing models contains the addresses in the workflow."""

import json

import pytest

from capface.files.catalogue import CAPHUMAN, HOST_FILES
from capface.tools.browser import Browser, CanvasPage, why_not
from capface.tools.canvas import nodes_of
from capface.tools.comfy import PACK, ComfyProcess, find_host

if (reason := why_not()) or find_host() is None:
    pytest.skip(reason or "no ComfyUI", allow_module_level=True)

pytestmark = pytest.mark.host
NAME = "lora_and_depth"
DIALOG = """return [...document.querySelectorAll('.p-dialog button[title^="https://"]')].map(button => ({
  url: button.title, follows: !button.disabled,
  text: button.closest('.p-listbox-option, li')?.innerText ?? button.parentElement.parentElement.innerText,
}))"""
"""The entries in the dialog of older frontends."""
PANEL = """const found = [], { click } = HTMLAnchorElement.prototype;
HTMLAnchorElement.prototype.click = function () { found.at(-1).url = this.href; };
for (const button of document.querySelectorAll('[data-testid="missing-model-download"]')) {
  found.push({ url: null, follows: !button.disabled, text: button.parentElement.innerText });
  button.click();
  await new Promise(done => setTimeout(done, 300));
}
HTMLAnchorElement.prototype.click = click;
return found"""
"""The entries in the panel of newer frontends, which it opens."""


def test_a_workflow_has_its_missing_models_listed_with_their_addresses(comfyui):
    workflow = json.loads((PACK / "workflows" / f"{NAME}.json").read_text(encoding="utf-8"))
    carried = {link["name"] for node in nodes_of(workflow) for link in node["properties"].get("models", [])}
    wanted = {asset.file: asset for asset in (CAPHUMAN, *HOST_FILES) if asset.file in carried}
    assert len(wanted) == 5
    with ComfyProcess(comfyui, folder="capface") as process, Browser() as browser:
        page = CanvasPage(browser.session(), process.url, {"Comfy.Workflow.ShowMissingModelsWarning": True})
        page.load(workflow, NAME)
        panel = page.run("return Boolean(app.extensionManager.setting.get('Comfy.RightSidePanel.ShowErrorsTab'))")
        if panel:
            page.page.get_by_role("button", name="View details").click()
            page.page.get_by_test_id("missing-model-download").first.wait_for(timeout=10_000)
            # The pack's loader lists the name of its missing file, so this panel does not report it.
            del wanted[CAPHUMAN.file]
        else:
            page.page.locator(".p-dialog", has_text=CAPHUMAN.file).wait_for(timeout=10_000)
        listed = page.run(PANEL if panel else DIALOG)
    assert len(listed) == len(wanted)
    for file, asset in wanted.items():
        (entry,) = (entry for entry in listed if file in entry["text"])
        assert entry["url"] == asset.address and asset.folder in entry["text"]
        # The dialog follows only addresses of .safetensors files.
        assert entry["follows"] == (panel or file.endswith(".safetensors"))
