"""Workflows in ComfyUI's API format. Their nodes' titles say what the benchmark sets: `@photo`, `@prompt`, `@seed` ..."""

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

POSE = ("yaw", "pitch", "roll", "neck_yaw", "neck_pitch", "neck_roll")
POSITION = ("position_x", "position_y", "size")
JAW_AND_EYES = ("jaw_open", "jaw_side", "gaze_yaw", "gaze_pitch")
LIGHT = ("light", "light_strength", "ambient", "key_azimuth", "key_elevation", "key_intensity", "key_softness", "key_color")
SAMPLING = ("steps", "cfg", "sampler_name", "scheduler")

MARKS: dict[str, dict[str, tuple[str, ...]]] = {
    "@photo": {"LoadImage": ("image",), "CapFaceSyntheticPerson": ("person",)},
    "@prompt": {"CLIPTextEncode": ("text",)},
    "@negative": {"CLIPTextEncode": ("text",)},
    "@head": {"CapFaceEditHead": ()},
    "@seed": {"KSampler": ("seed",), "KSamplerAdvanced": ("noise_seed",), "RandomNoise": ("noise_seed",)},
    "@sampling": {"KSampler": SAMPLING, "KSamplerAdvanced": SAMPLING},
    "@size": {"EmptyLatentImage": ("width", "height"), "CapFaceRenderHead": ("width", "height")},
    "@checkpoint": {"CheckpointLoaderSimple": ("ckpt_name",)},
    "@lora": {"LoraLoader": ("lora_name",), "LoraLoaderModelOnly": ("lora_name",)},
    "@output": {"SaveImage": (), "PreviewImage": ()},
}
"""The marks, the classes of nodes that may carry each, and the inputs that are set there; any of several if none is named."""
NEEDED = ("@photo", "@prompt", "@seed", "@output")
REPEATED = ("@size",)
"""Marks that several nodes may carry."""

Workflow = dict[str, dict[str, Any]]


def title_of(node: Mapping[str, Any]) -> str:
    """Return a node's title."""
    title = node.get("_meta", {}).get("title", "") if isinstance(node.get("_meta"), dict) else ""
    return title if isinstance(title, str) else ""


def marks_of(node: Mapping[str, Any]) -> list[str]:
    """Return the marks in a node's title: its words that begin with `@`."""
    return [word for word in title_of(node).split() if word.startswith("@")]


def plain_title(node: Mapping[str, Any]) -> str:
    """Return a node's title without its marks, or its class if nothing is left."""
    return " ".join(word for word in title_of(node).split() if not word.startswith("@")) or str(node.get("class_type", ""))


def marked(workflow: Workflow, mark: str) -> list[str]:
    """Return the ids of the nodes that carry a mark."""
    return [key for key, node in workflow.items() if mark in marks_of(node)]


def mistakes(workflow: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is wrong with a workflow: paths in it and texts."""
    if not isinstance(workflow, dict) or not workflow:
        yield (), "expected a workflow in ComfyUI's API format: an object of nodes"
        return
    carriers: dict[str, list[str]] = {}
    for key, node in workflow.items():
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict) or "class_type" not in node:
            yield (key,), "expected a node with class_type and inputs. Export the workflow with 'Export (API)'"
            continue
        for mark in marks_of(node):
            if mark not in MARKS:
                yield (key, "_meta", "title"), f"there is no mark {mark}. There are: {', '.join(MARKS)}"
            elif node["class_type"] not in MARKS[mark]:
                classes = " or ".join(MARKS[mark])
                yield (key, "class_type"), f"{mark} belongs to a node of class {classes}, not {node['class_type']}"
            carriers.setdefault(mark, []).append(key)
    for mark in NEEDED:
        if mark not in carriers:
            yield (), f"no node's title has the mark {mark}"
    for mark, keys in carriers.items():
        if mark in MARKS and mark not in REPEATED and len(keys) > 1:
            yield (keys[1], "_meta", "title"), f"{mark} is the mark of one node, but the nodes {', '.join(keys)} have it"


def find_input(workflow: Workflow, name: str) -> tuple[str, str]:
    """Find the input that a `set` of a manifest names.

    Args:
        workflow: The workflow.
        name: `TITLE.input`, with the title as `plain_title` returns it.

    Returns:
        The node's id and the input's name.

    Raises:
        KeyError: With a message, if the workflow has no such input or several.
    """
    title, _, field = name.rpartition(".")
    found = [key for key, node in workflow.items() if plain_title(node) == title and field in node["inputs"]]
    if len(found) != 1:
        titles = ", ".join(sorted({plain_title(node) for node in workflow.values()}))
        raise KeyError(f"{len(found)} nodes titled '{title}' have an input '{field}'; expected one. Titles: {titles}")
    return found[0], field


def head_inputs(condition: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of Edit Head for a head condition.

    A condition replaces the pose, the position and the expression of the person's head if it names one of their values, and
    leaves them as they are otherwise.
    """
    expression = condition.keys() - {*POSE, *POSITION, *LIGHT}
    named = {"pose_mode": condition.keys() & POSE, "position_mode": condition.keys() & POSITION, "expression_mode": expression}
    return {mode: "absolute" if names else "add" for mode, names in named.items()} | dict(condition)


def shapes_face(condition: Mapping[str, Any]) -> bool:
    """Return whether a head condition has expressions that only a head model defines, not only the jaw and the eyes."""
    return bool(condition.keys() - {*POSE, *POSITION, *LIGHT, *JAW_AND_EYES})


@cache
def head_choices() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what a head condition may set, the inputs of Edit Head, and the values of its input `light`."""
    from ..flame.editing import FROM_PHOTO, LIGHTS, SLIDERS  # takes seconds, and workers do not need it

    return (*POSE, *POSITION, *JAW_AND_EYES, *SLIDERS, *LIGHT), tuple(light for light in LIGHTS if light != FROM_PHOTO)


def head_mistakes(condition: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is wrong with a head condition: paths in it and texts."""
    if not isinstance(condition, dict):
        yield (), 'expected an object of Edit Head\'s inputs, such as {"yaw": 30}'
        return
    if not condition:
        return
    inputs, lights = head_choices()
    for name, value in condition.items():
        if name not in inputs:
            yield (name,), f"Edit Head has no such input to set. There are: {', '.join(inputs)}"
        elif name == "light" and value not in lights:
            yield (name,), f"expected one of {', '.join(lights)}, got {value!r}"
        elif name not in ("light", "key_color") and (isinstance(value, bool) or not isinstance(value, int | float)):
            yield (name,), f"expected a number, got {value!r}"
        elif name == "size" and value <= 0:
            yield (name,), f"expected a size above 0, got {value!r}"


def bound(workflow: Workflow, values: Mapping[str, Any]) -> Workflow:
    """Return a copy of a workflow with values set.

    Args:
        workflow: The workflow.
        values: By mark: a value for marks with one input, an object of inputs for the others. Marks that no node carries
            are left out.
    """
    workflow = copy.deepcopy(workflow)
    for mark, value in values.items():
        for key in marked(workflow, mark):
            names = MARKS[mark][workflow[key]["class_type"]]
            workflow[key]["inputs"].update({names[0]: value} if len(names) == 1 else value)
    return workflow
