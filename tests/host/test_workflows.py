"""Every workflow in workflows/api, run in a real ComfyUI process with stand-ins.

`python tasks.py test tests/host/test_workflows.py -k runs --durations=0` lists the duration of each.
"""

import contextlib
import copy
import functools
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from capface.tools.comfy import FOLDER, PACK, ComfyClient, ComfyProcess, model_folders
from capface.tools.other_packs import NEEDS, NODES, OTHER_MODELS, copy_of, why_not
from capface.tools.standins import write_inputs

EVERY = sorted((PACK / "workflows" / "api").glob("*.json"))
WORKFLOWS = [path for path in EVERY if path.stem not in OTHER_MODELS]
SHRINK, STEPS = 8, 5
"""Factor by which larger sizes are reduced, and number of steps. With these steps, the schedule starts early enough for
controls of its first third to act."""
SAVED = {
    "expressions": (1, 1024, 1024),
    "face_detailer": (1, 512, 768),
    "face_detailer_impact": (1, 512, 768),
    "lights": (4, 512, 512),
    "measure": (4, 512, 512),
    "miniature": (1, 128, 128),
    "openpose_body": (1, 512, 768),
    "second_pass": (1, 1024, 1024),
    "turntable": (8, 512, 512),
    "two_people": (1, 768, 512),
}
"""Number, width and height of the pictures that a workflow saves; the default is one of 512 × 512."""


@pytest.fixture(scope="module")
def clients(comfyui, standins, tmp_path_factory):
    """Running ComfyUIs with stand-ins for everything that the workflows load.

    `clients(path)` returns the one for a workflow: with only this pack, or also with the pack that the workflow needs.
    """
    with contextlib.ExitStack() as stack:

        @functools.cache
        def start(beside):
            if beside and (reason := why_not(beside)):
                return reason
            others = [copy_of(beside, tmp_path_factory.mktemp("packs"))] if beside else []
            process = stack.enter_context(ComfyProcess(comfyui, model_folders(standins), others=others))
            write_inputs(process.base / "input")
            client = stack.enter_context(ComfyClient(process))
            lacks = NODES[beside] - client.object_info().keys() if beside else ()
            return f"{beside} does not load here: no {min(lacks)}" if lacks else client

        def of(path):
            found = start(NEEDS.get(path.stem))
            return pytest.skip(found) if isinstance(found, str) else found

        yield of


def read(path):
    """Read a shipped workflow."""
    return json.loads(path.read_text(encoding="utf-8"))


def small(side):
    """Reduce a width or height, so that a run takes seconds."""
    return side // SHRINK if side >= 256 else side


def shrunk(prompt):
    """Return the workflow with small pictures and few steps."""
    prompt = copy.deepcopy(prompt)
    for inputs in (node["inputs"] for node in prompt.values()):
        for side in ("width", "height", "size", "guide_size", "max_size"):
            if isinstance(inputs.get(side), int):  # a side may come from another node
                inputs[side] = small(inputs[side])
        if "steps" in inputs:
            inputs["steps"] = STEPS
    return prompt


def of(prompt, class_type):
    """Return the ids of the nodes of a class."""
    return [key for key, node in prompt.items() if node["class_type"] == class_type]


def run(client, prompt):
    """Run a prompt that must succeed; return its nodes' UI outputs, and the saved pictures as `[B, H, W, 3]` floats."""
    done, files = client.make(prompt)
    return done.outputs, pixels(files)


def pictures(client, output):
    """Return a node's pictures `[B, H, W, 3]` as floats."""
    return pixels([client.fetch(image) for image in output["images"]])


def pixels(files):
    """Decode image files to pixels `[B, H, W, 3]` as floats."""
    return np.stack([np.asarray(Image.open(io.BytesIO(file)), dtype=np.float32) for file in files])


@pytest.fixture(scope="module")
def whole(clients):
    """Runs each workflow once: `whole(path)` returns the reduced prompt and the result of `run`."""
    return functools.cache(lambda path: (prompt := shrunk(read(path)), *run(clients(path), prompt)))


of_all = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


@of_all
def test_it_runs(clients, whole, path):
    """It saves the expected number of pictures of the expected size, and all heads of a batch differ."""
    prompt, outputs, saved = whole(path)
    count, width, height = SAVED.get(path.stem, (1, 512, 512))
    assert saved.shape == (count, small(height), small(width), 3)
    assert saved.std(axis=(1, 2, 3)).min() > 4
    for draw in of(prompt, "CapFaceRenderHead"):
        heads = pictures(clients(path), outputs[draw])
        assert all(np.abs(a - b).mean() > 0.1 for i, a in enumerate(heads) for b in heads[:i])


@of_all
def test_its_parts_have_an_effect(clients, whole, path):
    """The saved pictures change when any part with a strength is disabled."""
    prompt, _, saved = whole(path)
    assert of(prompt, "CapFaceApply")
    for key, node in prompt.items():
        strengths = [name for name in node["inputs"] if name.startswith("strength")]
        if strengths:
            weaker = copy.deepcopy(prompt)
            weaker[key]["inputs"].update(dict.fromkeys(strengths, 0.0))
            _, without = run(clients(path), weaker)
            assert np.abs(saved - without).mean((1, 2, 3)).min() > 0.1, f"{node['_meta']['title']} does nothing"


def test_portraits_are_measured(whole):
    prompt, outputs, portraits = whole(PACK / "workflows" / "api" / "measure.json")
    (measure,) = of(prompt, "CapFaceMeasure")
    (table,) = outputs[measure]["text"]
    assert re.findall(r"^ *(\d+)\b", table, re.MULTILINE) == [str(i + 1) for i in range(len(portraits))]
    assert len(outputs[measure]["images"]) == len(portraits)


@of_all
def test_it_uses_core_nodes_our_nodes_and_those_of_the_pack_it_needs(clients, path):
    modules = {name: node["python_module"] for name, node in clients(path).object_info().items()}
    needed, seen = NEEDS.get(path.stem), set()
    for key, node in read(path).items():
        where, kind = f"{path.stem}, node {key}", node["class_type"]
        assert key.replace(":", "").isdecimal() and node["_meta"]["title"], where
        if modules[kind] == f"custom_nodes.{needed}":
            seen.add(kind)
        else:
            assert re.match(rf"nodes$|comfy_extras\.|custom_nodes\.{re.escape(FOLDER)}$", modules[kind]), where
    assert seen == NODES.get(needed or "", set())


def test_expected_pictures_belong_to_existing_workflows():
    assert SAVED.keys() | NEEDS.keys() <= {path.stem for path in EVERY}


@pytest.mark.parametrize("name", OTHER_MODELS)
def test_other_models_get_the_heads_control_images(clients, name):
    """All that leads to the control images runs, and every link of core nodes joins sockets of one type."""
    client, prompt = clients(PACK / "miniature.json"), read(PACK / "workflows" / "api" / f"{name}.json")
    nodes = client.object_info()
    for node in prompt.values():
        inputs = nodes.get(node["class_type"], {"input": {}})["input"]
        kinds = {key: kind for group in inputs.values() for key, (kind, *_) in group.items()}
        for key, value in node["inputs"].items():
            source = nodes.get(prompt[value[0]]["class_type"]) if isinstance(value, list) else None
            if kinds and source:
                assert source["output"][value[1]] in kinds[key].split(","), f"{node['class_type']}.{key}"
    controls = of(prompt, "CapFaceControlImage")
    wanted, part = list(controls), {}
    while wanted:
        key = wanted.pop()
        part[key] = copy.deepcopy(prompt[key])
        wanted += [value[0] for value in part[key]["inputs"].values() if isinstance(value, list)]
    for key in controls:
        part[key]["inputs"].update(width=96, height=128)
    outputs = client.run(part).outputs
    for key in controls:
        assert pictures(client, outputs[key]).shape == (1, 128, 96, 3)
        assert pictures(client, outputs[key]).std() > 4
