"""What a prompt asks for and lacks: found before anything runs, in the same words for the browser and for programs."""

import json
import urllib.error

import pytest

from capface.tests.conftest import ROOT
from capface.tools.comfy import ComfyClient, ComfyProcess, request
from capface.tools.standins import write_inputs

PORTRAIT = json.loads((ROOT / "workflows" / "api" / "portrait.json").read_text(encoding="utf-8"))
FILES = ["realisticVisionV60B1_v51VAE.safetensors", "clip-vit-large-patch14.safetensors", "caphuman.ckpt"]
FACENET = "20180402-114759-vggface2.pt"


@pytest.fixture(scope="module")
def process(comfyui):
    """A running ComfyUI without any model files."""
    with ComfyProcess(comfyui) as process:
        yield process


@pytest.fixture
def ask(process):
    """Ask what a prompt lacks."""

    def post(prompt, **fields):
        body = json.dumps({"prompt": prompt, **fields}).encode()
        return json.loads(request(f"{process.url}/capface/missing", body))["missing"]

    return post


def queue(process, prompt, **fields):
    """Queue a prompt; gives the status and the host's answer."""
    try:
        return 200, json.loads(request(f"{process.url}/prompt", json.dumps({"prompt": prompt, **fields}).encode()))
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_every_file_is_found_with_folder_and_source(ask, process):
    found = ask(PORTRAIT)
    assert [lost["file"] for lost in found] == ["photo.png", *FILES, FACENET]
    for lost in found:
        assert lost["file"] in lost["text"] and lost["folders"][0] in lost["text"] and lost["purpose"]
        assert lost["folders"][0].startswith(str(process.base))
        assert PORTRAIT[lost["node"]]["inputs"][lost["input"]] == lost["file"]
    (ours,) = (lost for lost in found if lost["file"] == "caphuman.ckpt")
    assert (ours["source"], ours["md5"]) == ("the page of github.com/VamosC/CapHuman", "6f0086112db9abc6ce4518a458d4d4b8")


def test_node_errors_say_it_to_programs(process):
    status, answer = queue(process, PORTRAIT)
    assert status == 400
    said = {node: " ".join(error["details"] for error in found["errors"]) for node, found in answer["node_errors"].items()}
    assert set(said) == {"1", "2", "3", "4", "5"}
    for node, words in {
        "4": ("caphuman.ckpt is not in", "models/capface", "github.com/VamosC/CapHuman", "6f0086112db9abc6ce4518a458d4d4b8"),
        "5": (f"{FACENET} is not in", "facenet", "github.com/timesler/facenet-pytorch"),
    }.items():
        assert all(part in said[node] for part in words), said[node]


def test_a_head_is_fitted_without_facenet_and_an_identity_is_not(process, ask):
    write_inputs(process.base / "input")
    assert [lost["file"] for lost in ask(PORTRAIT)] == [*FILES, FACENET]
    assert ask(PORTRAIT, targets=["8"]) == []
    # Twice, since what one prompt asks for is nothing to the next.
    with ComfyClient(process) as client:
        for _ in range(2):
            status, answer = queue(process, PORTRAIT, partial_execution_targets=["8"], client_id=client.id)
            assert (status, answer["node_errors"]) == (200, {})
            client.wait(answer["prompt_id"])
            assert set(queue(process, PORTRAIT, partial_execution_targets=["7"])[1]["node_errors"]) == {"3", "5"}


def test_prompts_of_others_and_what_is_no_prompt(ask, process):
    assert ask({"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "none.ckpt"}}}) == []
    check = b'{"prompt": {"1": {"class_type": "CapFaceCheck"}}, "targets": 1}'
    for body in (b"", b"[]", b"{}", b'{"prompt": 1}', b'{"prompt": {"1": 2}}', check):
        with pytest.raises(urllib.error.HTTPError) as error:
            request(f"{process.url}/capface/missing", body)
        with error.value:
            assert error.value.code == 400, body
    # Neither disturbs what ComfyUI itself says of it.
    status, answer = queue(process, {"1": {"class_type": "NoSuchNode", "inputs": {}}})
    assert status == 400 and "NoSuchNode" in json.dumps(answer)
    assert "on_prompt_handler" not in process.log_text() and "Traceback" not in process.log_text()
