"""The same prompt gives the same image: again, in another process, and however its batch is divided. And a short soak."""

import copy
import io
import json

import numpy as np
import pytest
from PIL import Image

from capface.tools.comfy import PACK, ComfyClient, ComfyProcess
from capface.tools.soak import id_of, inputs_of, soak

PEOPLE = 3
SETTINGS = {
    "as shipped": {},
    "a tau within the run": {"tau": 500.0, "mask_edge": "soft"},
    "kept residuals": {"evaluate_every": 2, "likeness": 1.0},
}
TOLERANCE = 2.0
"""Largest difference of a pixel, of 255, between a batch and its parts: the same sums in another order."""


@pytest.fixture
def start(comfyui):
    """Start a ComfyUI without model files."""
    return lambda: ComfyProcess(comfyui)


def prompt(seed=5, people=PEOPLE, **settings):
    """The shipped miniature workflow for several people, small and short; each has a head and a latent of its own."""
    made = json.loads((PACK / "workflows" / "api" / "miniature.json").read_text(encoding="utf-8"))
    person, drawn = id_of(made, "CapFaceSyntheticPerson"), id_of(made, "CapFaceEncodeIdentity")
    inputs_of(made, "EmptyLatentImage").update(width=96, height=128, batch_size=people)
    inputs_of(made, "KSampler").update(seed=seed, steps=4, sampler_name="euler")
    inputs_of(made, "CapFaceApply").update(settings)
    images = [person, 0]
    for number in range(1, people):
        other = copy.deepcopy(made[person])
        other["inputs"]["person"] += number
        made[f"person {number}"] = other
        batch = {"class_type": "ImageBatch", "inputs": {"image1": images, "image2": [f"person {number}", 0]}}
        made[f"batch {number}"] = batch
        images = [f"batch {number}", 0]
    made[drawn]["inputs"].update(image=images, combine="each")
    edit = id_of(made, "CapFaceEditHead")
    heads = {"head": [edit, 0], "head_model": made[edit]["inputs"]["head_model"], "frames": people, "loop": False}
    heads |= {"motion": "turntable", "easing": "linear", "yaw_from": -20.0, "yaw_to": 20.0, "relative": True}
    made["heads"] = {"class_type": "CapFaceAnimateHead", "inputs": heads}
    inputs_of(made, "CapFaceRenderHead")["head"] = ["heads", 0]
    return made


def part_of(made, index):
    """The prompt for one latent of the batch. ComfyUI gives it the noise that it has in the batch."""
    part = copy.deepcopy(made)
    latent = id_of(part, "EmptyLatentImage")
    part["part"] = {"class_type": "LatentFromBatch", "inputs": {"samples": [latent, 0], "batch_index": index, "length": 1}}
    inputs_of(part, "KSampler")["latent_image"] = ["part", 0]
    return part


def images(client, made):
    run, files = client.make(made)
    return run, np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])


def test_the_same_prompt_gives_the_same_image_again_in_another_process_and_in_parts(start):
    whole = {}
    with start() as process, ComfyClient(process) as client:
        for name, settings in SETTINGS.items():
            made = prompt(**settings)
            _, whole[name] = images(client, made)
            assert whole[name].shape == (PEOPLE, 128, 96, 3) and whole[name].std() > 4
            assert np.abs(images(client, prompt(seed=6, **settings))[1].astype(float) - whole[name]).mean() > 1
            again, image = images(client, made)
            assert id_of(made, "KSampler") not in again.cached
            assert np.array_equal(image, whole[name]), name
            for index in range(PEOPLE):
                _, (one,) = images(client, part_of(made, index))
                assert np.abs(one.astype(float) - whole[name][index]).max() <= TOLERANCE, (name, index)
    with start() as process, ComfyClient(process) as client:
        for name, settings in reversed(SETTINGS.items()):
            assert np.array_equal(images(client, prompt(**settings))[1], whole[name]), name


def test_a_short_soak_leaves_nothing_behind(comfyui):
    lines = []
    result = soak(comfyui, 6, 5, lines.append, every=1)
    assert not [problem for problem in result.problems() if "grew" not in problem], "\n".join(lines)
    assert len(result.probes) == 6 and sum(result.outcomes.values()) == 6
    assert result.same_image and not result.queued and result.probes[-1][1]["patches"] == 0
