"""Bulk portraits with fake ComfyUIs at addresses: files, failures, lost hosts, and workflows without marks."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest

from capface.errors import BadInput
from capface.iphc.marking import with_marks
from capface.iphc.portraits import main
from capface.iphc.workflow import marked
from capface.tests.conftest import ROOT
from capface.tests.iphc.conftest import FAKE, SECONDS, until
from capface.tools.comfy import ComfyProcess

API = ROOT / "workflows" / "api"


@pytest.fixture
def address(fake):
    with ComfyProcess(FAKE, start_seconds=SECONDS) as process:
        yield process.url


@pytest.fixture
def run(bench, capsys):
    """Make portraits with a small workflow; return the status and what was printed."""

    def call(*more, prompts=("a person", "a person in a hat")):
        bench.write("heads.json", bench.content["heads"])
        command = [str(bench.folder / "photos"), str(bench.out), "--workflow", str(bench.folder / "workflow.json")]
        command += [word for prompt in prompts for word in ("--prompt", prompt)]
        status = main([*command, "--heads", str(bench.folder / "heads.json"), *map(str, more)])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return call


def files(bench):
    return sorted(str(path.relative_to(bench.out)) for path in bench.out.rglob("*.png"))


def lines(bench):
    return [json.loads(line) for line in (bench.out / "portraits.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_photo_prompt_and_head_gets_a_portrait_once(bench, run, address, fake_log):
    status, printed = run("--address", address, "--images", 2)
    assert status == 0 and "16 portraits made, 0 failed" in printed
    names = [f"{p}/0{i}-{h}-{n}.png" for p in ("ann", "bob") for i in (1, 2) for h in ("left", "right") for n in (1, 2)]
    assert files(bench) == names and len(fake_log("image")) == 16 and len(fake_log("upload")) == 2
    assert len({(bench.out / name).read_bytes() for name in names}) == 16
    assert {(one["status"], one["by"]) for one in lines(bench)} == {("made", address)}
    assert {one["prompt"] for one in lines(bench)} == {"a person", "a person in a hat"}
    before = fake_log()
    assert run("--address", "http://nowhere", "--images", 2)[0] == 0, "no ComfyUI is needed"
    assert fake_log() == before
    (bench.out / names[3]).unlink()
    assert run("--address", address, "--images", 2)[0] == 0 and len(fake_log("image")) == 17
    progress = json.loads((bench.out / "progress.json").read_text())
    assert (progress["state"], progress["done"]) == ("finished", 16)


def test_a_local_comfyui_makes_the_same_portraits(bench, run, address, fake):
    assert run("--address", address)[0] == 0
    first = {name: (bench.out / name).read_bytes() for name in files(bench)}
    bench.out = bench.folder / "local"
    assert run("--comfyui", FAKE, "--cpu", "--devices", "0,1")[0] == 0
    assert {name: (bench.out / name).read_bytes() for name in files(bench)} == first


def test_failures_have_the_hosts_words_and_are_tried_again_on_request(bench, run, address, fake_log):
    status, printed = run("--address", address, prompts=["fine", "a [raise]", "a [refuse]", "a [part]"])
    assert status == 3 and "4 portraits made, 12 failed" in printed
    assert Counter(one.get("reason", "") for one in lines(bench)) == {
        "": 4, "KSampler: raised on demand": 4, "ComfyUI refused the prompt: refused on demand": 4,
        "ComfyUI refused the prompt: some outputs are invalid\n  node 3 (EditHead): invalid on demand: yaw": 4,
    }  # fmt: skip
    assert "4  KSampler: raised on demand" in printed
    assert run("--address", "http://nowhere", prompts=["fine", "a [raise]", "a [refuse]", "a [part]"])[0] == 3
    assert len(lines(bench)) == 16
    assert run("--address", address, "--retry", prompts=["fine", "a [raise]", "a [refuse]", "a [part]"])[0] == 3
    assert len(lines(bench)) == 28 and len(fake_log("image")) == 4


def test_portraits_of_other_settings_are_not_mixed_in(bench, run, address, fake_log):
    assert run("--address", address)[0] == 0
    status, printed = run("--address", address, "--set", "Apply.tau=500")
    assert status == 2 and "8 portraits in" in printed and "made with other settings" in printed
    assert json.loads((bench.out / "workflow.json").read_text())["6"]["inputs"]["tau"] == 1000
    assert run("--address", address, "--set", "Apply.tau=500", "--remake")[0] == 0
    assert len(fake_log("image")) == 16 and json.loads((bench.out / "workflow.json").read_text())["6"]["inputs"]["tau"] == 500
    assert run("--address", address, "--set", "6.tau=500", prompts=["a person", "a person in a hat", "more"])[0] == 0
    assert len(fake_log("image")) == 20, "only the new prompt"


def test_another_comfyui_takes_over_from_one_that_dies(bench, run, address, fake_log):
    with ComfyProcess(FAKE, start_seconds=SECONDS) as second:
        more = ("--address", address, "--address", second.url, "--silence", 0)
        status, printed = run(*more, prompts=["a", "b [die once]", "c"])
    assert status == 0, printed
    assert len(files(bench)) == len(fake_log("image")) == 12 and len(fake_log("die")) == 1


def test_a_run_whose_comfyuis_are_all_gone_stops_and_the_same_command_continues(bench, run, address, fake_log):
    status, printed = run("--address", address, "--silence", 0, prompts=["a", "b [die once]"])
    assert status == 1 and "No ComfyUI is left" in printed and "is out of reach" in printed
    assert len(files(bench)) < 8
    with ComfyProcess(FAKE, start_seconds=SECONDS) as second:
        assert run("--address", second.url, prompts=["a", "b [die once]"])[0] == 0
    assert len(files(bench)) == len(fake_log("image")) == 8


def test_an_address_without_a_comfyui_is_named(bench, run):
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, format, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        status, printed = run("--address", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert status == 1 and "does not answer as ComfyUI does: b'<html>'" in printed and not files(bench)


def test_a_prompt_that_comfyui_has_lost_is_queued_again(bench, run, address, fake_log):
    assert run("--address", address, prompts=["a [forget once]"])[0] == 0
    assert len(fake_log("forget")) == 1 and len(fake_log("image")) == len(files(bench)) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal")
def test_a_terminated_run_keeps_what_is_made(bench, run, address, fake_log, tmp_path):
    prompts = ["a", "b [gate]"]
    command = [sys.executable, "-m", "capface.iphc.portraits", str(tmp_path / "photos"), str(bench.out), "--address", address]
    command += ["--workflow", str(tmp_path / "workflow.json"), "--heads", str(tmp_path / "heads.json")]
    bench.write("heads.json", bench.content["heads"])
    command += [word for prompt in prompts for word in ("--prompt", prompt)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=dict(os.environ, PYTHONSAFEPATH="1"))
    until(lambda: fake_log("gate"), "the portrait of the second prompt")
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None and process.stderr.readline() == b"stopping after the portraits in hand\n"
    (tmp_path / "fake" / "open").touch()
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1 and b"Interrupted. The same command continues." in errors
    assert len(files(bench)) == 3, "the portrait in hand is kept"
    assert run("--address", address, prompts=prompts)[0] == 0
    assert len(files(bench)) == 8 and len(fake_log("image")) == 8


def test_what_is_wrong_is_said_before_anything_starts(bench, run):
    for more, text in (
        (("--set", "Apply.taus=1"), "0 nodes titled 'Apply' have an input 'taus'"),
        (("--set", "6.model=1"), "node 6 has no input 'model' to set"),
        (("--set", "6.tau=high"), "expected a number, true or false"),
        (("--images", 0), "images: expected 1 or more"),
        (("--heads", "nowhere.json"), "nowhere.json:1: cannot be read"),
    ):
        status, printed = run("--address", "http://nowhere", *more)
        assert status == 2 and text in printed
    assert run()[1].startswith("0 portraits are made, 8 to make\nNo ComfyUI was found")
    bench.write("workflow.json", {"1": {"class_type": "LoadImage", "inputs": {}, "_meta": {"title": "@photo"}}})
    assert "no node's title has the mark @prompt" in run()[1]


def test_prompts_may_come_from_a_file_or_the_workflow(bench, run, address, tmp_path):
    (tmp_path / "prompts.txt").write_text("first\n\nsecond\n", encoding="utf-8")
    assert run("--address", address, "--prompts", tmp_path / "prompts.txt", prompts=["zeroth"])[0] == 0
    assert {one["prompt"] for one in lines(bench)} == {"zeroth", "first", "second"}
    bench.out = tmp_path / "more"
    graph = json.loads((tmp_path / "workflow.json").read_text())
    graph["2"]["inputs"]["text"] = "the workflow's own"
    bench.write("workflow.json", graph)
    assert run("--address", address, prompts=[])[0] == 0
    assert {one["prompt"] for one in lines(bench)} == {"the workflow's own"}


def read(name):
    return json.loads((API / f"{name}.json").read_text(encoding="utf-8"))


def test_marks_are_told_from_the_links():
    graph = with_marks(read("portrait"), "portrait", heads=True)
    found = {mark: [graph[key]["class_type"] for key in marked(graph, mark)] for mark in ("@photo", "@seed", "@output")}
    assert found == {"@photo": ["LoadImage"], "@seed": ["KSampler"], "@output": ["SaveImage"]}
    assert marked(graph, "@prompt") == ["10"], "not the negative prompt"
    (head,) = marked(graph, "@head")
    assert graph[head]["inputs"] == {"head": ["8", 0], "head_model": ["6", 0]} and graph["9"]["inputs"]["head"] == [head, 0]
    assert not marked(with_marks(read("portrait"), "portrait"), "@head")
    assert with_marks(graph, "portrait") is graph
    assert marked(with_marks(read("edit_head"), "edit_head", heads=True), "@head") == ["17"]


@pytest.mark.parametrize("name", sorted(path.stem for path in API.glob("*.json")))
def test_a_shipped_workflow_gets_marks_or_says_which_node_cannot_be_told(name):
    try:
        graph = with_marks(read(name), name)
    except BadInput as error:
        assert "into the title of the right" in str(error)
        assert name not in ("portrait", "edit_head", "expressions")
    else:
        assert all(len(marked(graph, mark)) == 1 for mark in ("@photo", "@seed", "@output", "@prompt"))
