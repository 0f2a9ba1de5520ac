"""Marks for workflows without any: what can be told from the links of a workflow in ComfyUI's API format."""

import copy
from collections.abc import Callable, Sequence

from ..errors import BadInput
from .workflow import MARKS, Workflow, marks_of, title_of

EDIT_HEAD, FIT_HEAD, RENDER_HEAD = "CapFaceEditHead", "CapFaceFitHead", "CapFaceRenderHead"


def with_marks(workflow: Workflow, name: str, heads: bool = False) -> Workflow:
    """Return a workflow with marks in its nodes' titles; one that has any mark is returned as it is.

    The photo is the only LoadImage, the result that of the only SaveImage or PreviewImage, and the prompt leads to the only
    sampler's `positive`. If there are head conditions and no Edit Head, one is put between Fit Head and Render Head.

    Args:
        workflow: The workflow.
        name: Its name, for messages.
        heads: Whether there are head conditions.

    Raises:
        BadInput: The nodes cannot be told.
    """
    if any(mark in MARKS for node in workflow.values() for mark in marks_of(node)):
        return workflow
    workflow = copy.deepcopy(workflow)

    def only(mark: str, classes: Sequence[str]) -> str:
        found = [key for key, node in workflow.items() if node["class_type"] in classes]
        if len(found) != 1:
            raise BadInput(
                f"{name} has {len(found)} nodes of class {' or '.join(classes)}; expected one. Write {mark} into the title of "
                "the right one, and the other marks of iphc/README.md into those of the others."
            )
        return found[0]

    sampler = only("@seed", list(MARKS["@seed"]))
    marks = {
        "@photo": only("@photo", ["LoadImage"]),
        "@seed": sampler,
        "@output": only("@output", list(MARKS["@output"])),
        "@prompt": _prompt(workflow, sampler, name),
    }
    if heads and not any(node["class_type"] == EDIT_HEAD for node in workflow.values()):
        marks["@head"] = _insert_edit_head(workflow, only)
    elif heads:
        marks["@head"] = only("@head", [EDIT_HEAD])
    for mark, key in marks.items():
        node = workflow[key]
        node["_meta"] = {"title": f"{mark} {title_of(node) or node['class_type']}"}
    return workflow


def _prompt(workflow: Workflow, sampler: str, name: str) -> str:
    """Follow the sampler's positive conditioning to the node with the prompt."""
    link = workflow[sampler]["inputs"].get("positive")
    for _ in workflow:
        if not isinstance(link, list) or link[0] not in workflow:
            break
        node = workflow[link[0]]
        if node["class_type"] in MARKS["@prompt"]:
            return link[0]
        inputs = node["inputs"]
        link = inputs.get("conditioning") or inputs.get("negative" if link[1] == 1 else "positive")
    raise BadInput(
        f"{name}: no CLIPTextEncode was found above the sampler's positive input. Write @prompt into the title of the right "
        "node, and the other marks of iphc/README.md into those of the others."
    )


def _insert_edit_head(workflow: Workflow, only: Callable[[str, Sequence[str]], str]) -> str:
    """Put an Edit Head between Fit Head and Render Head, and return its id."""
    fit, render = only("@head", [FIT_HEAD]), only("@head", [RENDER_HEAD])
    key = next(str(number) for number in range(1, len(workflow) + 2) if str(number) not in workflow)
    inputs = {"head": [fit, 0], "head_model": workflow[render]["inputs"]["head_model"]}
    workflow[key] = {"class_type": EDIT_HEAD, "inputs": inputs, "_meta": {"title": "Edit Head"}}
    workflow[render]["inputs"]["head"] = [key, 0]
    return key
