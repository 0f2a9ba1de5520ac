"""The pack in a real ComfyUI process, over HTTP and websocket, as a user of the API sees it."""

import copy
import io
import json

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import save_file

from capface.tools.comfy import FOLDER, PACK, ComfyClient, ComfyProcess, PromptRejected, model_folders

WIDTH, HEIGHT, STEPS = 128, 160, 3
CHAIN = {
    "CapFaceLoad",
    "CapFaceLoadFaceReader",
    "CapFaceLoadHeadModel",
    "CapFaceEncodeIdentity",
    "CapFaceFitHead",
    "CapFaceRenderHead",
    "CapFaceApply",
}


def png(pixels):
    """A PNG file's bytes from `[H, W, 3]` uint8."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def find(prompt, class_type):
    """Return the id of the only node of a class."""
    (found,) = (i for i, node in prompt.items() if node["class_type"] == class_type)
    return found


def inputs(prompt, class_type):
    """Return the inputs of the only node of a class."""
    return prompt[find(prompt, class_type)]["inputs"]


@pytest.fixture(scope="module")
def wrong_models(tmp_path_factory):
    """A models folder with a LoRA where CapFace belongs."""
    folder = tmp_path_factory.mktemp("models") / "capface"
    folder.mkdir()
    name = "lora_unet_down_blocks_0_attentions_0_proj_in."
    lora = {name + "lora_up.weight": torch.ones(8, 4), name + "lora_down.weight": torch.ones(4, 8)}
    save_file(lora, folder / "a-lora.safetensors")
    return folder.parent


@pytest.fixture(scope="module")
def client(comfyui, standins, wrong_models):
    """A running ComfyUI with the stand-ins, and the astronaut as photo.png in its input folder."""
    with ComfyProcess(comfyui, model_folders(standins, wrong_models)) as process, ComfyClient(process) as client:
        assert client.upload_image(png(skimage.data.astronaut()), "photo.png") == "photo.png"
        yield client


def shipped(name):
    """A shipped API workflow, small and short; its photo is photo.png."""
    prompt = json.loads((PACK / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    inputs(prompt, "EmptyLatentImage").update(width=WIDTH, height=HEIGHT)
    inputs(prompt, "KSampler").update(steps=STEPS, seed=1)
    return prompt


@pytest.fixture
def portrait():
    """The portrait workflow."""
    return shipped("portrait")


@pytest.fixture
def turntable():
    """The turntable workflow, smaller still."""
    prompt = shipped("turntable")
    inputs(prompt, "EmptyLatentImage").update(width=64, height=64)
    inputs(prompt, "KSampler").update(steps=2)
    return prompt


def render_all(client, prompt, class_type="SaveImage", **options):
    """Run a prompt that must succeed; return the run and a node's images `[B, H, W, 3]` as floats."""
    run, files = client.make(prompt, class_type, **options)
    return run, np.stack([np.asarray(Image.open(io.BytesIO(file)), dtype=np.float32) for file in files])


def render(client, prompt, **options):
    """Run a prompt that must succeed; return the run and its only saved image `[H, W, 3]` as floats."""
    run, (image,) = render_all(client, prompt, **options)
    return run, image


def test_the_pack_loads_from_an_oddly_named_folder(client):
    nodes = client.object_info()
    assert {name for name, node in nodes.items() if node["python_module"] == f"custom_nodes.{FOLDER}"} >= CHAIN


def test_a_list_of_photos_makes_one_portrait(client, portrait):
    """The photos come as a list of images, as nodes that read a folder give them."""
    photo = inputs(portrait, "CapFaceEncodeIdentity")["image"]
    portrait["twice"] = {"class_type": "RepeatImageBatch", "inputs": {"image": photo, "amount": 2}}
    portrait["list"] = {"class_type": "RebatchImages", "inputs": {"images": ["twice", 0], "batch_size": 1}}
    inputs(portrait, "CapFaceEncodeIdentity").update(image=["list", 0], combine="mean")
    run, image = render(client, portrait)
    assert len(run.outputs[find(portrait, "CapFaceEncodeIdentity")]["images"]) == 2
    assert image.shape == (HEIGHT, WIDTH, 3)


def test_the_workflow_uses_the_whole_chain(portrait):
    assert {node["class_type"] for node in portrait.values()} >= CHAIN


def test_a_portrait_comes_back_with_progress(client, portrait):
    run, image = render(client, portrait)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.std(axis=(0, 1)).min() > 4
    assert run.progress(find(portrait, "KSampler")) == [(i + 1, STEPS) for i in range(STEPS)]
    started = [d["node"] for kind, d in run.events if kind == "executing" and d.get("node")]
    assert started.index(find(portrait, "CapFaceApply")) < started.index(find(portrait, "KSampler"))
    assert client.history(run.prompt_id)["status"]["status_str"] == "success"


def test_capface_acts_on_the_image(client, portrait):
    _, image = render(client, portrait)
    plain = copy.deepcopy(portrait)
    for side in ("positive", "negative"):
        inputs(plain, "KSampler")[side] = inputs(portrait, "CapFaceApply")[side]
    _, without = render(client, plain)
    assert np.abs(image - without).mean() > 1


def test_the_same_prompt_is_cached_and_the_seed_decides_the_image(client, portrait):
    sampler = find(portrait, "KSampler")
    _, first = render(client, portrait)
    again, cached = render(client, portrait)
    assert sampler in again.cached
    assert np.array_equal(first, cached)

    inputs(portrait, "KSampler")["seed"] = 2
    other_run, other = render(client, portrait)
    assert sampler not in other_run.cached
    assert {find(portrait, "CapFaceLoad"), find(portrait, "CapFaceEncodeIdentity")} <= other_run.cached
    assert np.abs(other - first).mean() > 1

    inputs(portrait, "KSampler")["seed"] = 1
    same_run, same = render(client, portrait)
    assert sampler not in same_run.cached
    assert np.array_equal(same, first)


def test_a_run_after_an_interrupt_is_clean(client, portrait):
    _, before = render(client, portrait)
    interrupted = copy.deepcopy(portrait)
    inputs(interrupted, "KSampler").update(seed=3, steps=20)
    sampler = find(portrait, "KSampler")

    def stop(kind, data):
        if kind == "progress" and data["node"] == sampler and data["value"] == 2:
            client.interrupt()

    run = client.run(interrupted, on_event=stop)
    assert run.status == "interrupted"
    assert 2 <= len(run.progress(sampler)) < 20

    after_run, after = render(client, portrait)
    assert sampler not in after_run.cached
    assert np.array_equal(after, before)


def test_a_missing_photo_is_refused_with_its_name(client, portrait):
    inputs(portrait, "LoadImage")["image"] = "nobody.png"
    with pytest.raises(PromptRejected, match=r"nobody\.png") as refused:
        client.queue(portrait)
    assert list(refused.value.node_errors) == [find(portrait, "LoadImage")]


def test_the_message_says_what_a_wrong_file_is(client, portrait):
    inputs(portrait, "CapFaceLoad")["checkpoint"] = "a-lora.safetensors"
    run = client.run(portrait)
    assert (run.status, run.error["node_type"]) == ("error", "CapFaceLoad")
    assert "a-lora.safetensors" in run.error["exception_message"]
    assert "LoRA" in run.error["exception_message"]


def test_a_photo_without_a_face_says_so(client, portrait):
    inputs(portrait, "LoadImage")["image"] = client.upload_image(png(np.full((256, 256, 3), 128, np.uint8)), "grey.png")
    run = client.run(portrait)
    assert run.status == "error"
    assert run.error["node_type"] in ("CapFaceEncodeIdentity", "CapFaceFitHead")
    assert "no face" in run.error["exception_message"].lower()


def test_each_frame_of_a_turntable_drives_its_own_latent(client, turntable):
    latent, animate = inputs(turntable, "EmptyLatentImage"), inputs(turntable, "CapFaceAnimateHead")
    assert latent["batch_size"] == animate["frames"] == 8
    _, turning = render_all(client, turntable)
    assert turning.shape == (8, 64, 64, 3)

    # With only the middle of the turn, the frames differ only in their noise. The farther a frame of the turntable is from the
    # middle, the more it differs from the frame with only the middle.
    animate.update(yaw_from=0.0, yaw_to=0.0)
    _, still = render_all(client, turntable)
    change = np.abs(turning - still).mean((1, 2, 3))
    assert (change > 0.1).all() and min(change[0], change[-1]) > max(change[3], change[4])


def test_the_heads_of_a_turntable_turn_in_place(client, turntable):
    _, maps = render_all(client, turntable, "CapFaceRenderHead")
    covered = maps.max(-1) > 0
    columns = np.arange(covered.shape[2]) + 0.5
    middles = (covered.any(1) * columns).sum(1) / covered.any(1).sum(1)
    assert covered.shape[0] == 8 and np.ptp(middles) < 0.05 * covered.shape[2]
    assert np.abs(maps[0] - maps[-1]).mean() > 1


def test_a_head_is_saved_and_loaded_between_two_prompts(client, portrait):
    photo, reader, model, fit, draw = (
        find(portrait, name)
        for name in ("LoadImage", "CapFaceLoadFaceReader", "CapFaceLoadHeadModel", "CapFaceFitHead", "CapFaceRenderHead")
    )
    _, drawn = render_all(client, portrait, "CapFaceRenderHead")
    save = {i: portrait[i] for i in (photo, reader, model, fit)}
    save["100"] = {"class_type": "CapFaceSaveHead", "inputs": {"head": [fit, 0], "filename_prefix": "kept/astronaut"}}
    run = client.run(save)
    assert run.status == "success" and run.outputs["100"]["text"][0].endswith("astronaut_00001_.json")

    file = "kept/astronaut_00001_.json [output]"
    load = {model: portrait[model], draw: copy.deepcopy(portrait[draw])}
    load["100"] = {"class_type": "CapFaceLoadHead", "inputs": {"file": file, "head_model": [model, 0]}}
    load[draw]["inputs"]["head"] = ["100", 0]
    _, again = render_all(client, load, "CapFaceRenderHead")
    assert np.array_equal(drawn, again)

    load["100"]["inputs"]["file"] = "../../etc/passwd.json"
    with pytest.raises(PromptRejected, match="within the input or output folder"):
        client.queue(load)


def test_an_identity_is_saved_and_makes_the_same_portrait_without_the_photo(client, portrait):
    _, image = render(client, portrait)
    person = find(portrait, "CapFaceEncodeIdentity")
    inputs_of = {"identity": [person, 0], "filename_prefix": "kept/ada"}
    run = client.run({**portrait, "100": {"class_type": "CapFaceSaveIdentity", "inputs": inputs_of}})
    assert run.status == "success" and run.outputs["100"]["text"][0].endswith("ada_00001_.identity.safetensors")

    load = copy.deepcopy(portrait)
    del load[person]
    file = "kept/ada_00001_.identity.safetensors [output]"
    load["100"] = {"class_type": "CapFaceLoadIdentity", "inputs": {"file": file}}
    parts = {"identity": ["100", 0], "global_strength": 1.0, "local_strength": 1.0, "local_tokens": 257}
    load["101"] = {"class_type": "CapFaceIdentityParts", "inputs": parts}
    inputs(load, "CapFaceApply")["identity"] = ["101", 0]
    _, again = render(client, load)
    assert np.array_equal(image, again)
    parts["local_tokens"] = 0
    _, fewer = render(client, load)
    assert np.abs(fewer - image).mean() > 0.1

    outside = {"class_type": "CapFaceLoadIdentity", "inputs": {"file": "../../etc/passwd.identity.safetensors"}}
    with pytest.raises(PromptRejected, match="within the input or output folder"):
        client.queue(
            {"100": outside, "101": {"class_type": "CapFaceSaveIdentity", "inputs": {**inputs_of, "identity": ["100", 0]}}}
        )
