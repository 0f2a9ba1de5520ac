"""Inputs that broadcasts by type do not fill, and that still accept the same types."""

import asyncio
import json
from pathlib import Path

import pytest

import capface

SURFACE = json.loads(Path(__file__).with_name("surface.json").read_text(encoding="utf-8"))
BY_HAND = {
    "CapFaceApply": {"mask": "MASK", "head_control": "CAPFACE", "third": "CONDITIONING"},
    "CapFaceBlendIdentities": {"identity_3": "CAPFACE_IDENTITY", "identity_4": "CAPFACE_IDENTITY"},
    "CapFaceAnimateHead": {"head_2": "HEAD", "head_3": "HEAD", "head_4": "HEAD"},
    "CapFaceMeasure": {"reference": "IMAGE"},
    "CapFacePersonMask": {"other": "MASK", "other_2": "MASK", "other_3": "MASK"},
    "CapFaceEncodeIdentity": {"face_landmarks": "FACE_LANDMARKS", "bboxes": "BOUNDING_BOX"},
    "CapFaceFitHead": {"face_landmarks": "FACE_LANDMARKS", "bboxes": "BOUNDING_BOX"},
    "CapFaceImportHead": {"base": "HEAD"},
    "CapFaceCropHead": {"image": "IMAGE", "region": "MASK"},
}
"""Inputs that would change the result unnoticed if they were connected by type."""
MEANT = {
    ("CapFaceApply", "identity"),  # the person of the prompt
    ("CapFaceEncodeIdentity", "clip_vision"),  # only one CLIP fits; others are refused
    ("CapFaceEditHead", "photo"),  # read only for the light 'from photo'
    ("CapFaceAnimateHead", "driving"),  # read only for the motion 'driving', which requires it
    ("CapFaceMeasure", "identity"), ("CapFaceMeasure", "head"), ("CapFaceMeasure", "head_model"),  # required
    ("CapFaceSaveHead", "head_model"), ("CapFaceLoadHead", "head_model"),  # for a warning
}  # fmt: skip
"""Optional inputs that may be filled by type: the broadcast value is the right one, or it changes nothing."""
PLAIN = {"INT", "FLOAT", "BOOLEAN", "STRING", "COMBO"}


@pytest.fixture(scope="module")
def nodes(in_host):
    """The pack's nodes, as in /object_info."""

    async def listed():
        return await (await capface.comfy_entrypoint()).get_node_list()

    return {node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in asyncio.run(listed())}


def test_every_optional_input_is_connected_by_hand_or_may_be_filled_by_type(nodes):
    optional = {
        (name, key)
        for name, info in nodes.items()
        for key, (kind, *_) in info["input"].get("optional", {}).items()
        if not isinstance(kind, list) and kind not in PLAIN
    }
    assert optional == MEANT | {(name, key) for name, keys in BY_HAND.items() for key in keys}


def test_no_output_has_the_type_of_an_input_that_is_connected_by_hand(nodes):
    given = {kind for info in nodes.values() for kind in info["output"]} | {
        "IMAGE", "MASK", "SEGS", "BOUNDING_BOX", "STITCHER", "FACE_LANDMARKS"
    }  # fmt: skip
    for name, keys in BY_HAND.items():
        for key in keys:
            assert nodes[name]["input"]["optional"][key][0] not in given, f"{name}.{key}"


def test_it_accepts_its_original_type(nodes):
    """Checked by the host's own rule, so that links of saved workflows stay."""
    from comfy_execution.validation import validate_node_input

    for name, keys in BY_HAND.items():
        for key, kind in keys.items():
            wanted = nodes[name]["input"]["optional"][key][0]
            assert validate_node_input(kind, wanted) and not validate_node_input("LATENT", wanted), f"{name}.{key}"
