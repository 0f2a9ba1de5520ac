"""The addresses in the workflows' loaders for the frontend's list of missing models are complete and match the catalogue."""

import json

import pytest

from capface.files.catalogue import CAPHUMAN, HOST_FILES, OTHER_MODEL_FILES
from capface.tests.conftest import ROOT
from capface.tools.canvas import nodes_of

WORKFLOWS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "workflows").glob("*.json"))}
FILES = {asset.file: asset for asset in (CAPHUMAN, *HOST_FILES, *OTHER_MODEL_FILES)}
FOLLOWED = ("https://civitai.com/", "https://huggingface.co/")
"""Where the frontend downloads from."""
ENDINGS = (".safetensors", ".ckpt")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_loader_has_the_address_of_its_file(name):
    for node in nodes_of(WORKFLOWS[name]):
        if "Note" in node["type"]:
            continue
        chosen = [FILES[value] for value in node.get("widgets_values") or [] if isinstance(value, str) and value in FILES]
        links = [{"name": asset.file, "url": asset.address, "directory": asset.folder} for asset in chosen]
        assert node["properties"].get("models", []) == links, node["type"]


def test_the_frontend_follows_every_address():
    for asset in FILES.values():
        assert asset.address is not None and asset.address.startswith(FOLLOWED) and asset.file.endswith(ENDINGS), asset.file
