"""Node ids, inputs and outputs are a promise to everybody's saved workflows."""

import asyncio
import json
import os
from pathlib import Path

import pytest

import capface
from capface.tests.conftest import ROOT

SURFACE = Path(__file__).with_name("surface.json")
WORKFLOWS = sorted((ROOT / "workflows" / "api").glob("*.json"))


async def list_nodes():
    extension = await capface.comfy_entrypoint()
    return await extension.get_node_list()


@pytest.fixture(scope="module")
def nodes(in_host):
    """The pack's nodes by id, as /object_info tells of them."""
    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(list_nodes())}


def surface(node):
    """What a saved workflow relies on."""
    info = node.GET_NODE_INFO_V1()
    kinds = {name: spec[0] for group in ("required", "optional") for name, spec in info["input"].get(group, {}).items()}
    return {
        "inputs": {name: "COMBO" if isinstance(kind, list) else kind for name, kind in kinds.items()},
        "outputs": dict(zip(info["output_name"], info["output"], strict=True)),
    }


def test_the_surface_is_the_checked_in_one(nodes):
    """After a change that is meant, CAPFACE_WRITE_SURFACE=1 writes the list anew; the difference belongs in the changelog."""
    actual = {name: surface(node) for name, node in sorted(nodes.items())}
    if os.environ.get("CAPFACE_WRITE_SURFACE"):
        SURFACE.write_text(json.dumps(actual, indent=1) + "\n", encoding="utf-8")
    assert actual == json.loads(SURFACE.read_text(encoding="utf-8"))


def test_every_node_and_input_explains_itself(nodes):
    for name, node in nodes.items():
        info = node.GET_NODE_INFO_V1()
        assert name.startswith("CapFace")
        assert info["category"] == "CapFace"
        assert len(info["description"]) > 30
        plain = {"INT", "FLOAT", "BOOLEAN", "STRING", "COMBO"}
        for group in ("required", "optional"):
            for key, (kind, *options) in info["input"].get(group, {}).items():
                if isinstance(kind, list) or kind in plain:
                    assert options, f"{name}.{key} has no tooltip"
                    assert options[0].get("tooltip"), f"{name}.{key} has no tooltip"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_api_workflows_use_what_is_there(nodes, path):
    """Of ours; the host's nodes are seen to be there where the workflows run."""
    prompt = json.loads(path.read_text(encoding="utf-8"))
    for key, step in prompt.items():
        for value in step["inputs"].values():
            assert not isinstance(value, list) or value[0] in prompt
        if step["class_type"].startswith("CapFace"):
            inputs = nodes[step["class_type"]].INPUT_TYPES()
            known = {name for group in ("required", "optional") for name in inputs.get(group, {})}
            assert set(inputs["required"]) <= set(step["inputs"]) <= known, f"{key}: {step['class_type']}"
