"""Inputs that what is broadcast by type does not find, and that take what they always took."""

import asyncio
import json
from pathlib import Path

import pytest

import capface

SURFACE = json.loads(Path(__file__).with_name("surface.json").read_text(encoding="utf-8"))
BY_HAND = {
    "CapFaceApply": {"mask": "MASK", "head_control": "CAPFACE"},
    "CapFaceBlendIdentities": {"identity_3": "CAPFACE_IDENTITY", "identity_4": "CAPFACE_IDENTITY"},
    "CapFaceAnimateHead": {"head_2": "HEAD", "head_3": "HEAD", "head_4": "HEAD"},
    "CapFaceMeasure": {"reference": "IMAGE"},
    "CapFaceCropHead": {"image": "IMAGE", "region": "MASK"},
}
"""What changes the result unseen where it is connected because of its type."""
MEANT = {
    ("CapFaceApply", "identity"),  # the person whom the prompt is about
    ("CapFaceEncodeIdentity", "clip_vision"),  # the only CLIP that fits; others are refused
    ("CapFaceEditHead", "photo"),  # read only where the light is to be the photo's
    ("CapFaceAnimateHead", "driving"),  # read only where the motion is a sequence's, and missed there
    ("CapFaceMeasure", "identity"), ("CapFaceMeasure", "head"), ("CapFaceMeasure", "head_model"),  # what was asked for
    ("CapFaceSaveHead", "head_model"), ("CapFaceLoadHead", "head_model"),  # a note, a warning
}  # fmt: skip
"""Optional inputs that may be filled by type: what is broadcast is what they want, or it changes nothing."""
PLAIN = {"INT", "FLOAT", "BOOLEAN", "STRING", "COMBO"}


@pytest.fixture(scope="module")
def nodes(in_host):
    """The pack's nodes, as /object_info tells of them."""

    async def listed():
        return await (await capface.comfy_entrypoint()).get_node_list()

    return {node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in asyncio.run(listed())}


def test_every_optional_input_is_by_hand_or_meant_to_be_found(nodes):
    optional = {
        (name, key)
        for name, info in nodes.items()
        for key, (kind, *_) in info["input"].get("optional", {}).items()
        if not isinstance(kind, list) and kind not in PLAIN
    }
    assert optional == MEANT | {(name, key) for name, keys in BY_HAND.items() for key in keys}


def test_no_output_has_the_type_of_an_input_that_is_connected_by_hand(nodes):
    given = {kind for info in nodes.values() for kind in info["output"]} | {"IMAGE", "MASK", "SEGS", "BOUNDING_BOX", "STITCHER"}
    for name, keys in BY_HAND.items():
        for key in keys:
            assert nodes[name]["input"]["optional"][key][0] not in given, f"{name}.{key}"


def test_it_takes_what_it_always_took(nodes):
    """By the host's own rule, so that links of saved workflows stay."""
    from comfy_execution.validation import validate_node_input

    for name, keys in BY_HAND.items():
        for key, kind in keys.items():
            wanted = nodes[name]["input"]["optional"][key][0]
            assert validate_node_input(kind, wanted) and not validate_node_input("LATENT", wanted), f"{name}.{key}"
