"""Edit Head's live preview over HTTP: pictures for valid requests, error messages for all others."""

import asyncio
import io
import json
import socket
import struct
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from capface.flame import HeadParams, render_head
from capface.flame.builtin import builtin_head
from capface.flame.editing.edits import edit_head
from capface.flame.editing.expressions import SLIDERS
from capface.tools.comfy import ComfyProcess

PATH = "api/capface/edit"


@pytest.fixture(scope="module")
def process(comfyui):
    """A running ComfyUI without any model files."""
    with ComfyProcess(comfyui) as process:
        yield process


@pytest.fixture
def ask(process):
    """Post a body (JSON or bytes) and return status, headers and body. A pause before it keeps within the rate limit."""
    time.sleep(0.1)

    def post(body=None, *, content_type="application/json", **fields):
        if body is None:
            body = json.dumps({"view": "test", **fields}).encode()
        headers = {"Content-Type": content_type}
        request = urllib.request.Request(f"{process.url}/{PATH}", body, headers)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    return post


def pixels(answer):
    """Decode a picture to pixels `[H, W, C]`."""
    status, _, body = answer
    assert status == 200, body
    return np.asarray(Image.open(io.BytesIO(body)))


def test_the_picture_is_what_the_pack_draws(ask):
    values = {"yaw": 25.0, "pitch": -10.0, "size": 0.8, "smile_left": 1.0, "light": "custom", "key_azimuth": -60.0}
    status, headers, body = ask(values=values)
    assert (status, headers["Content-Type"], headers["X-CapFace-Head"]) == (200, "image/png", "before")
    assert headers["Cache-Control"] == "no-store"
    model = builtin_head()
    maps = render_head(model, edit_head(model, HeadParams.neutral(), **values), 256, 256)
    expected = torch.cat([maps.lambertian.clamp(0, 1), maps.alpha], dim=1)[0].movedim(0, -1) * 255
    assert np.abs(pixels((status, headers, body)) - expected.round().numpy()).max() <= 1


def test_both_sizes_and_a_close_up(ask):
    assert pixels(ask(side=512, values={"size": 0.3})).shape == (512, 512, 4)
    near, far = (pixels(ask(close=close, values={"size": 0.3, "position_x": 0.7}))[..., 3] for close in (True, False))
    assert near.mean() > 5 * far.mean()


def test_every_widget_may_be_sent(ask):
    ends = {"yaw": (-90, 90), "position_x": (-2, 2), "size": (0.1, 4), "jaw_open": (-40, 40), "key_softness": (0, 1)}
    ends |= {name: (slider.least, slider.most) for name, slider in SLIDERS.items()}
    for end in (0, 1):
        assert ask(values={name: both[end] for name, both in ends.items()})[0] == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"values": {"yaw": 90.5}},
        {"values": {"yaw": "1"}},
        {"values": {"yaw": True}},
        {"values": {"yaw": None}},
        {"values": {"yaw": 10**400}},
        {"values": {"light": "disco"}},
        {"values": {"light": 1}},
        {"values": {"key_color": "#" * 17}},
        {"values": {"head": 1}},
        {"values": {"photo": "photo.png"}},
        {"values": {"nothing": 0}},
        {"values": [1]},
        {"side": 4096},
        {"side": 256.5},
        {"side": True},
        {"side": [256]},
        {"over": 1},
        {"close": "yes"},
        {"raw": 1},
        {"head": -1},
        {"head": 256},
        {"head": 10**30},
        {"head": 0.0},
        {"head": True},
        {"head": "0"},
        {"side": 256.0},
        {"values": {"yaw": [1]}},
        {"values": {"": 0}},
        {"values": {"editor": "x"}},
        {"values": {"__class__": 1}},
        {"view": ""},
        {"view": "a\n"},
        {"given": ""},
        {"given": "../shelf"},
        {"given": "a" * 65},
        {"view": "a" * 65},
        {"view": "../.."},
        {"view": None},
        {"given": "a b"},
        {"given": 7},
        {"model": "../../etc/passwd"},
        {"model": 1},
        {"file": ["a"]},
        {"file": "a" * 201},
        {"path": "/etc/passwd"},
    ],
    ids=json.dumps,
)
def test_invalid_fields_are_refused(ask, fields):
    status, headers, body = ask(**fields)
    assert status == 400
    assert headers["Content-Type"].startswith("application/json")
    assert set(json.loads(body)) == {"error"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"nonsense",
        b"[" * 8000,
        b"\xff\xfe",
        b"9" * 5000,
        b'{"values": {"yaw": NaN}}',
        b'{"values": {"yaw": 1e999}}',
        b'{"values": {"yaw": -Infinity}}',
        b'{"view": "test", "view": 1}',
    ],
)
def test_malformed_bodies_are_refused(ask, body):
    assert ask(body)[0] == 400


def test_other_content_types_are_refused(ask):
    assert ask(b'{"view": "test"}', content_type="text/plain")[0] == 400


def test_an_oversized_body_is_refused(ask):
    assert ask(json.dumps({"view": "test", "file": "a" * 9000}).encode())[0] == 413


def test_values_that_do_not_describe_a_head_give_a_message(ask):
    status, _, body = ask(values={"light": "custom", "key_color": "blue"})
    assert status == 422 and "colour" in json.loads(body)["error"]


def test_missing_files_give_the_neutral_head(ask):
    plain = ask()[2]
    for file in ("nobody.json", "../../etc/passwd", "../models/x.json", "\0.json", "\ud800.json"):
        assert ask(file=file)[2] == plain
    assert ask(given="forgotten")[2] == plain


def test_a_saved_head_is_shown_before_any_run(process, ask):
    from capface.flame.io.heads_json import heads_to_json

    head = HeadParams.neutral().replace(rotation=torch.tensor([[0.0, 0.6, 0.0]]))
    (process.base / "input" / "turned.json").write_text(heads_to_json(head), encoding="utf-8")
    expected = render_head(builtin_head(), head, 256, 256).alpha[0, 0] * 255
    assert np.abs(pixels(ask(file="turned.json"))[..., 3] - expected.numpy()).mean() < 0.1


def test_a_flood_of_requests_is_limited_and_the_server_stays_responsive(process, ask):
    with ThreadPoolExecutor(24) as crowd:
        answers = list(crowd.map(lambda i: ask(view=f"v{i}")[0], range(300)))
        assert set(answers) <= {200, 204, 429} and answers.count(429) > 50 and answers.count(200) > 10
    start = time.monotonic()
    with urllib.request.urlopen(f"{process.url}/api/system_stats", timeout=10) as answer:
        assert answer.status == 200
    assert time.monotonic() - start < 2
    time.sleep(1)
    assert ask()[0] == 200


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("sent", ["no body", "half a body", "all", "all, and a little later", "all, and the answer begun"])
def test_a_client_that_disconnects_leaves_no_traceback_in_the_log(process, sent, reset):
    before, body = len(process.log_text()), json.dumps({"view": "gone", "raw": True, "side": 512}).encode()
    head = f"POST /{PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    for wait in (0, 0.003, 0.01, 0.03):
        with socket.create_connection(("127.0.0.1", int(process.url.rpartition(":")[2]))) as connection:
            connection.sendall(head.encode() + body[: {"no body": 0, "half a body": 10}.get(sent)])
            if sent == "all, and the answer begun":
                connection.recv(10)
            elif sent != "all":
                time.sleep(wait)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.5)
    assert "Traceback" not in process.log_text()[before:]


def test_the_rate_recovers(in_host):
    from capface.host.editor.route import RateLimit

    now = [0.0]
    rate = RateLimit(10, 5, lambda: now[0])
    assert [rate.take() for _ in range(6)] == [True] * 5 + [False]
    now[0] = 0.31
    assert [rate.take() for _ in range(4)] == [True] * 3 + [False]
    now[0] = 100
    assert sum(rate.take() for _ in range(50)) == 5


def test_only_the_latest_picture_of_each_view_is_rendered(in_host):
    from capface.host.editor.route import PreviewWorker

    drawn = []

    async def everything():
        worker = PreviewWorker(max_waiting=4)
        first = asyncio.create_task(worker.run("a", lambda: time.sleep(0.3) or drawn.append("a0")))
        await asyncio.sleep(0.05)
        others = [("a", "a1"), ("b", "b0"), ("a", "a2")]
        tasks = [asyncio.create_task(worker.run(view, lambda n=name: drawn.append(n) or (n,))) for view, name in others]
        await asyncio.sleep(0.05)
        assert worker.busy
        await first
        results = [await task for task in tasks]
        assert not worker.busy
        return results

    assert asyncio.run(everything()) == [None, ("b0",), ("a2",)]
    assert drawn == ["a0", "b0", "a2"]


def test_the_route_is_added_once_and_only_to_a_server(in_host, monkeypatch):
    import sys

    from aiohttp import web

    from capface.host.editor import route
    from capface.nodes.edit_head import EditHead

    widgets = EditHead.define_schema().inputs
    instance = SimpleNamespace(routes=web.RouteTableDef())
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=instance)))
    assert [route.register(widgets) for _ in range(3)] == [True, False, False]
    assert [(r.method, r.path) for r in instance.routes] == [("POST", route.PATH)]
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace()))
    assert route.register(widgets) is False
    monkeypatch.delitem(sys.modules, "server")
    assert route.register(widgets) is False


def test_the_cache_has_one_entry_per_slot_and_a_limited_number_of_slots(in_host):
    from capface.host.editor.preview import EditorInputs, PreviewCache

    cache = PreviewCache(size=3)
    head = EditorInputs.split(builtin_head(), HeadParams.neutral(2), torch.rand(1, 3, 1000, 700))
    assert [given.head.batch for given in head] == [1, 1] and head[0].backdrop is head[1].backdrop
    assert head[0].photo is not None and head[0].backdrop is not None
    assert head[0].photo.shape == (1, 3, 366, 256) and head[0].backdrop.shape == (3, 512, 358)
    old, new = cache.put(("tab", "wf", "1"), head), cache.put(("tab", "wf", "1"), head)
    assert cache.get(old) is None and cache.get(new) is head and len(cache) == 1
    tokens = [cache.put(("tab", "wf", str(node)), head) for node in range(2, 6)]
    assert [cache.get(token) is head for token in (new, *tokens)] == [False, False, True, True, True]


def test_a_long_batch_is_cut(in_host):
    from capface.host.editor.preview import MAX_HEADS, MAX_PHOTOS, EditorInputs

    model, photos = builtin_head(), torch.rand(MAX_PHOTOS + 2, 3, 32, 24)
    given = EditorInputs.split(model, HeadParams.neutral(MAX_HEADS + 1), photos)
    assert len(given) == MAX_HEADS
    assert [head.backdrop is not None for head in given] == [i < MAX_PHOTOS for i in range(MAX_HEADS)]
    for i in (0, MAX_PHOTOS - 1):
        backdrop = given[i].backdrop
        assert backdrop is not None
        assert (backdrop - photos[i] * 255).abs().max() <= 0.51


def test_a_photo_and_its_light_are_those_of_a_run(in_host):
    from capface.host.editor.preview import SIDES, EditorInputs, encode_image, render_preview
    from capface.nodes.edit_head import EditHead

    model, head = builtin_head(), HeadParams.neutral()
    lit = edit_head(model, head, light="Rembrandt")
    photo = render_head(model, lit, 600, 800).lambertian.clamp(0, 1)
    node = EditHead.PREPARE_CLASS_CLONE(None)
    edited = node.execute(head=head, head_model=model, photo=photo.movedim(1, -1), light="from photo", yaw=30.0).args[0]
    (given,) = EditorInputs.split(model, head, photo)
    assert (given.photo_light - edited.light).abs().max() < 1e-5

    alone = render_preview(given, {"light": "from photo", "yaw": 30.0}, 256).numpy().astype(float)
    maps = render_head(model, edited, 192, 256)
    assert alone.shape == (192, 256, 4)
    assert np.abs(alone[..., :3] - maps.lambertian[0].movedim(0, -1).clamp(0, 1).numpy() * 255).max() <= 1.5

    free = maps.alpha[0, 0].numpy() == 0
    over = None
    for side in SIDES:
        over = render_preview(given, {"yaw": 30.0}, side, over_photo=True)
        height, width = over.shape[:2]
        assert (height, width) == (side * 3 // 4, side) and over[..., 3].min() == 255
        if side == 256:
            small = (photo[0].movedim(0, -1).numpy() * 255).round().astype(np.uint8)
            small = np.asarray(Image.fromarray(small).resize((256, 192))).astype(float)
            assert np.abs(over[..., :3].numpy() - small)[free].mean() < 2
    assert over is not None
    file, kind = encode_image(over)
    shown = np.asarray(Image.open(io.BytesIO(file))).astype(float)
    assert kind == "image/jpeg" and np.abs(shown - over[..., :3].numpy()).mean() < 3


def test_the_worker_uses_one_core_and_leaves_the_default_of_other_threads(in_host):
    from capface.host.editor.route import PreviewWorker

    def number_in_a_new_thread():
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: (torch.ones(1) + 1, torch.get_num_threads())[1]).result()

    before = torch.get_num_threads(), number_in_a_new_thread()
    try:
        torch.set_num_threads(3)
        assert asyncio.run(PreviewWorker().run("a", torch.get_num_threads)) == 1
        assert (torch.get_num_threads(), number_in_a_new_thread()) == (3, 3)
    finally:
        torch.set_num_threads(before[0])


def test_raw_pixels_are_those_of_the_file(ask):
    file = pixels(ask(values={"yaw": 25.0}))
    status, headers, body = ask(values={"yaw": 25.0}, raw=True)
    assert (status, headers["Content-Encoding"], headers["X-CapFace-Size"]) == (200, "deflate", "256 256")
    assert np.array_equal(np.frombuffer(zlib.decompress(body), np.uint8).reshape(256, 256, 4), file)


def test_each_head_of_a_file_can_be_shown(process, ask):
    from capface.flame.io.heads_json import heads_to_json

    turned = HeadParams.neutral(3).replace(rotation=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.6, 0.0], [0.6, 0.0, 0.0]]))
    (process.base / "input" / "three.json").write_text(heads_to_json(turned), encoding="utf-8")
    answers = [ask(file="three.json", head=head) for head in (0, 1, 2, 200)]
    assert {headers["X-CapFace-Heads"] for _, headers, _ in answers} == {"3"}
    for i in range(3):
        expected = render_head(builtin_head(), turned[i], 256, 256).alpha[0, 0].numpy() * 255
        assert np.abs(pixels(answers[i])[..., 3] - expected).mean() < 0.1
    # An index beyond the last head shows the last one.
    assert answers[3][2] == answers[2][2]
