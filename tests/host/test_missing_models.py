"""The missing files of a prompt: found before anything runs, with the same message for the browser and for programs."""

import json
import time
import urllib.error
import uuid
from typing import Any

import pytest

from capface.tests.conftest import ROOT
from capface.tools.comfy import ComfyClient, ComfyProcess, request
from capface.tools.standins import write_inputs

PORTRAIT = json.loads((ROOT / "workflows" / "api" / "portrait.json").read_text(encoding="utf-8"))
FILES = ["realisticVisionV60B1_v51VAE.safetensors", "clip-vit-large-patch14.safetensors", "caphuman.ckpt"]
CHECK = {"class_type": "CapFaceCheck", "inputs": {"checksums": False}}
FACENET = "20180402-114759-vggface2.pt"


@pytest.fixture(scope="module")
def process(comfyui):
    """A running ComfyUI without any model files, and without the photo, whose example picture the pack has placed."""
    with ComfyProcess(comfyui) as process:
        (process.base / "input" / "photo.png").unlink()
        yield process


@pytest.fixture
def hear(process):
    """Queue a prompt as the browser does; return the status, and the event about missing files or None."""
    websocket = pytest.importorskip("websocket")
    client = uuid.uuid4().hex
    address = f"{process.url.replace('http', 'ws', 1)}/ws?clientId={client}"
    socket = websocket.create_connection(address, timeout=0.2, http_no_proxy=["127.0.0.1"])

    def post(prompt, **fields):
        status, _ = queue(process, prompt, client_id=client, **fields)
        heard, end = [], time.monotonic() + 2
        while time.monotonic() < end and not heard:
            try:
                message = json.loads(socket.recv())
            except websocket.WebSocketTimeoutException:
                continue
            heard += [message["data"]] if message["type"] == "capface.missing" else []
        return status, heard[0] if heard else None

    yield post
    socket.close()


def queue(process, prompt, **fields) -> tuple[int, Any]:
    """Queue a prompt; return the status and the host's response."""
    try:
        return 200, json.loads(request(f"{process.url}/prompt", json.dumps({"prompt": prompt, **fields}).encode()))
    except urllib.error.HTTPError as error:
        with error:
            answer = error.read()
            return error.code, json.loads(answer) if error.code == 400 else answer


def test_every_file_is_found_with_folder_and_source(hear, process):
    status, heard = hear(PORTRAIT)
    assert status == 400 and heard["runs"] == []
    found = heard["missing"]
    assert [lost["file"] for lost in found] == ["photo.png", *FILES, FACENET]
    for lost in found:
        assert lost["file"] in lost["text"] and lost["folders"][0] in lost["text"] and lost["purpose"]
        assert lost["folders"][0].startswith(str(process.base))
        assert PORTRAIT[lost["node"]]["inputs"][lost["input"]] == lost["file"]
    (ours,) = (lost for lost in found if lost["file"] == "caphuman.ckpt")
    assert (ours["source"], ours["md5"]) == ("the page of github.com/VamosC/CapHuman", "6f0086112db9abc6ce4518a458d4d4b8")


def test_node_errors_contain_it_for_programs(process):
    status, answer = queue(process, PORTRAIT)
    assert status == 400
    said = {node: " ".join(error["details"] for error in found["errors"]) for node, found in answer["node_errors"].items()}
    assert set(said) == {"1", "2", "3", "4", "5"}
    for node, words in {
        "4": ("caphuman.ckpt is not in", "models/capface", "github.com/VamosC/CapHuman", "6f0086112db9abc6ce4518a458d4d4b8"),
        "5": (f"{FACENET} is not in", "facenet", "github.com/timesler/facenet-pytorch"),
    }.items():
        assert all(part in said[node] for part in words), said[node]


def test_a_head_is_fitted_without_facenet_and_an_identity_is_not(process, hear):
    write_inputs(process.base / "input")
    status, heard = hear({**PORTRAIT, "99": CHECK})
    assert status == 200 and [lost["file"] for lost in heard["missing"]] == [*FILES, FACENET]
    assert heard["runs"] == ["99"]
    assert hear(PORTRAIT, partial_execution_targets=["8"]) == (200, None)
    # Twice, because the needs of one prompt must not affect the next.
    with ComfyClient(process) as client:
        for _ in range(2):
            status, answer = queue(process, PORTRAIT, partial_execution_targets=["8"], client_id=client.id)
            assert (status, answer["node_errors"]) == (200, {})
            client.wait(answer["prompt_id"])
            assert set(queue(process, PORTRAIT, partial_execution_targets=["7"])[1]["node_errors"]) == {"3", "5"}


def test_prompts_without_our_nodes_and_invalid_prompts(hear, process):
    others = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "none.ckpt"}},
        "2": {"class_type": "VAEDecode", "inputs": {"vae": ["1", 2], "samples": ["3", 0]}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    assert hear(others) == (400, None)
    for prompt, fields in (
        (1, {}),
        ({"1": 2}, {}),
        ({"1": {}}, {}),
        ({"1": {"class_type": "CapFaceLoad", "inputs": None}}, {}),
        ({"1": {"class_type": "CapFaceLoad", "inputs": {"checkpoint": ["1", 0]}}}, {}),
        ({"1": CHECK}, {"partial_execution_targets": [["1"]]}),
        ({"1": CHECK, "2": {"class_type": "NoSuchNode", "inputs": {}}}, {}),
    ):
        status, heard = hear(prompt, **fields)
        assert status >= 400 and heard is None, prompt
    # Neither changes ComfyUI's own response.
    status, answer = queue(process, {"1": {"class_type": "NoSuchNode", "inputs": {}}})
    assert status == 400 and "NoSuchNode" in json.dumps(answer)
    assert "on_prompt_handler" not in process.log_text()


def test_a_client_without_a_websocket_gets_no_event(process):
    for client in ({}, {"client_id": ""}, {"client_id": 3}, {"client_id": "nobody"}):
        assert queue(process, PORTRAIT, partial_execution_targets=["7"], **client)[0] == 400
    assert "on_prompt_handler" not in process.log_text()
