"""Node ids, inputs and outputs are a promise to all saved workflows."""

import json

import pytest

from capface.tests.conftest import ROOT
from capface.tools.surface import SURFACE, surface
from capface.tools.words import pack_nodes

WORKFLOWS = sorted((ROOT / "workflows" / "api").glob("*.json"))


@pytest.fixture(scope="module")
def nodes(in_host):
    """The pack's nodes by id, as in /object_info."""
    return pack_nodes()


def test_the_surface_equals_the_recorded_one(nodes):
    """After an intended change, `python tasks.py surface` writes the list; describe the difference in the changelog."""
    actual = {name: surface(node) for name, node in sorted(nodes.items())}
    assert actual == json.loads(SURFACE.read_text(encoding="utf-8"))


def test_every_node_and_input_has_a_description(nodes):
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
def test_api_workflows_use_existing_nodes_and_inputs(nodes, path):
    """Checks only our nodes; running the workflows checks the host's nodes."""
    prompt = json.loads(path.read_text(encoding="utf-8"))
    for key, step in prompt.items():
        for value in step["inputs"].values():
            assert not isinstance(value, list) or value[0] in prompt
        if step["class_type"].startswith("CapFace"):
            inputs = nodes[step["class_type"]].INPUT_TYPES()
            known = {name for group in ("required", "optional") for name in inputs.get(group, {})}
            assert set(inputs["required"]) <= set(step["inputs"]) <= known, f"{key}: {step['class_type']}"
