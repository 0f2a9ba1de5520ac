"""Edit Head's live preview over HTTP: pictures for valid requests, error messages for all others."""

import asyncio
import contextlib
import gzip
import io
import json
import os
import socket
import struct
import subprocess
import sys
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
from capface.flame.editing.placement import eye_centres, head_centre
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

    def post(body=None, *, content_type="application/json", headers=None, **fields):
        if body is None:
            body = json.dumps({"view": "test", **fields}).encode()
        headers = {"Content-Type": content_type, **(headers or {})}
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


def test_a_frame_has_its_shape_and_head_and_eyes_their_places(ask):
    status, headers, body = ask(side=512, frame=[768, 1152], values={"size": 0.5, "position_x": 0.3})
    assert pixels((status, headers, body)).shape == (512, 341, 4)
    model = builtin_head()
    head = edit_head(model, HeadParams.neutral(), size=0.5, position_x=0.3)
    expected = [*head_centre(model, head)[0].tolist(), 0.5, *eye_centres(model, head).flatten().tolist()]
    places = [float(number) for number in headers["X-CapFace-Places"].split()]
    assert places[:7] == pytest.approx(expected, abs=1e-4) and places[7] == pytest.approx(0.03, abs=1e-4)
    assert [abs(float(number)) for number in headers["X-CapFace-Base"].split()] == [0] * 8


def test_a_photo_of_the_input_folder_is_under_the_head(process, ask):
    Image.new("RGB", (100, 200), (10, 200, 30)).save(process.base / "input" / "tall.png")
    (process.base / "secret.png").write_bytes((process.base / "input" / "tall.png").read_bytes())
    shown = {opacity: pixels(ask(photo="tall.png", over=True, opacity=opacity)) for opacity in (0, 0.5, 1)}
    assert shown[0].shape[:2] == (256, 128)
    middle = {opacity: picture[128, 64].astype(int) for opacity, picture in shown.items()}
    assert np.abs(middle[0] - [10, 200, 30]).max() < 5 and np.abs(middle[0] + middle[1] - 2 * middle[0.5]).max() < 12
    assert ask(photo="tall.png [input]")[1]["X-CapFace-Head"] == "before-photo"
    # Whatever else is named, the head is shown without a photo.
    for name in (
        "../secret.png",
        "nothing.png",
        "tall.png [output]",
        "tall.png [temp]",
        "tall.txt",
        "\0.png",
        "/etc/passwd",
        "",
    ):
        status, headers, body = ask(photo=name, over=True)
        assert headers["X-CapFace-Head"] == "before" and pixels((status, headers, body)).shape == (256, 256, 4), name


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
        {"client": ""},
        {"client": "/foreign"},
        {"client": 1},
        {"given": "a b"},
        {"given": 7},
        {"model": "../../etc/passwd"},
        {"model": 1},
        {"file": ["a"]},
        {"file": "a" * 201},
        {"path": "/etc/passwd"},
        {"photo": ["a.png"]},
        {"photo": "a" * 201},
        {"opacity": 1.1},
        {"opacity": True},
        {"frame": [512]},
        {"frame": [512, 0]},
        {"frame": [512.5, 512]},
        {"frame": [16385, 16385]},
        {"frame": [900, 100]},
        {"frame": "512x512"},
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


@pytest.mark.parametrize("coding", ["gzip", "deflate", "nonsense"])
def test_compressed_bodies_are_refused_unread(process, ask, coding):
    before = len(process.log_text())
    for body in (json.dumps({"view": "test"}).encode(), gzip.compress(json.dumps({"view": "test"}).encode()), b"\0" * 8000):
        with contextlib.suppress(ConnectionError, urllib.error.URLError):  # closed before the whole body was sent
            assert ask(body, headers={"Content-Encoding": coding})[0] == 415
    assert ask()[0] == 200 and "Traceback" not in process.log_text()[before:]


def test_names_that_no_file_can_have_give_the_neutral_head(ask):
    plain = ask()[2]
    for name in ("\U0001f44d" * 200, "n" * 200, "\ud800" * 100, "\0"):
        status, _, body = ask(file=f"{name[:195]}.json")
        assert (status, body) == (200, plain)
        assert ask(model=name)[0] == 400


def test_pages_of_other_sites_do_not_use_up_the_rate(ask):
    for headers in ({"Origin": "http://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}):
        for content_type in ("text/plain", "application/json"):
            answers = []
            for _ in range(150):
                try:
                    body = b"x" if content_type == "text/plain" else None
                    answers.append(ask(body, content_type=content_type, headers=headers, side=256)[0])
                except (ConnectionError, urllib.error.URLError):
                    answers.append(0)
            assert set(answers) <= {0, 200, 400, 403, 429}
            assert ask(client="tab")[0] == 200


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
    assert [(r.method, r.path) for r in instance.routes] == [("POST", route.PATH), ("POST", route.PHOTO_PATH)]
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

    alone = render_preview(given, {"light": "from photo", "yaw": 30.0}, 256).pixels.numpy().astype(float)
    maps = render_head(model, edited, 192, 256)
    assert alone.shape == (192, 256, 4)
    assert np.abs(alone[..., :3] - maps.lambertian[0].movedim(0, -1).clamp(0, 1).numpy() * 255).max() <= 1.5

    free = maps.alpha[0, 0].numpy() == 0
    over = None
    for side in SIDES:
        over = render_preview(given, {"yaw": 30.0}, side, over_photo=True).pixels
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


# The worker and the handler in this process


class Server:
    """The pack's handler in an aiohttp server of its own, whose pictures take a given time; counts those that are drawn."""

    def __init__(self, monkeypatch, seconds=0.05):
        from capface.host.editor import route
        from capface.nodes.edit_head import EditHead

        self.route, self.drawn, self.waiting, self.port = route, [], 0, 0
        self.worker, self.limit = route.PreviewWorker(), route.RateLimit(1e6, 1e6)
        self.widgets = EditHead.define_schema().inputs

        def render(request):
            self.drawn.append((request.client, request.view))
            time.sleep(seconds)
            return route.Rendered(b"picture", {"Content-Type": "image/png"})

        monkeypatch.setattr(route, "render", render)

    def run(self, work):
        from aiohttp import web

        async def main():
            app = web.Application()
            app.router.add_post(self.route.PATH, self.route.make_handler(self.widgets, self.worker, self.limit))
            runner = web.AppRunner(app)
            await runner.setup()
            with socket.socket() as listening:
                listening.bind(("127.0.0.1", 0))
                self.port = listening.getsockname()[1]
                await web.SockSite(runner, listening).start()
                watch = asyncio.create_task(self.watch())
                try:
                    return await work()
                finally:
                    watch.cancel()
                    await runner.cleanup()

        return asyncio.run(main())

    async def watch(self):
        while True:
            self.waiting = max(self.waiting, self.worker._waiting)
            await asyncio.sleep(0.001)

    async def open(self, held=0, **fields):
        """Send a request without its last `held` bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = json.dumps(fields).encode()
        head = f"POST {self.route.PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) - held])
        await writer.drain()
        return reader, writer, body[len(body) - held :]

    async def answer(self, reader, writer, rest=b""):
        """Send the rest, and return the status."""
        writer.write(rest)
        await writer.drain()
        line = (await asyncio.wait_for(reader.readline(), 60)).decode()
        writer.close()
        return int(line.split()[1])

    async def ask(self, **fields):
        return await self.answer(*await self.open(**fields))


def test_the_limit_on_waiting_holds_for_bodies_that_end_together(in_host, monkeypatch):
    server = Server(monkeypatch)

    async def work():
        slow = [await server.open(held=1, view=f"v{i}") for i in range(40)]
        return await asyncio.gather(*(server.answer(*one) for one in slow))

    statuses = server.run(work)
    assert server.waiting <= server.route.MAX_WAITING
    assert set(statuses) == {200, 429} and statuses.count(200) == len(server.drawn) <= server.route.MAX_WAITING + 2


def test_slow_bodies_do_not_keep_others_waiting(in_host, monkeypatch):
    server = Server(monkeypatch)
    monkeypatch.setattr(server.route, "BODY_SECONDS", 1.0)

    async def work():
        slow = [await server.open(held=1, view=f"v{i}") for i in range(server.route.MAX_WAITING + 4)]
        own = await server.ask(view="mine")
        return own, await asyncio.gather(*(server.answer(reader, writer) for reader, writer, _ in slow))

    own, statuses = server.run(work)
    assert own == 200 and set(statuses) == {413} and server.waiting <= 1


def test_pictures_of_clients_that_are_gone_are_not_drawn(in_host, monkeypatch):
    server = Server(monkeypatch, seconds=0.3)

    async def work():
        first = asyncio.create_task(server.ask(view="first"))
        await asyncio.sleep(0.1)
        gone = [await server.open(view=f"gone{i}") for i in range(8)]
        await asyncio.sleep(0.05)
        for _, writer, _ in gone:
            writer.transport.abort()
        last = await server.ask(view="last")
        return await first, last

    assert server.run(work) == (200, 200)
    assert [view for _, view in server.drawn] == ["first", "last"]
    assert server.worker._waiting == 0 and not server.worker._newest and not server.worker._queues


def test_clients_take_turns_and_none_takes_all_places(in_host, monkeypatch):
    server = Server(monkeypatch)

    async def work():
        greedy = [asyncio.create_task(server.ask(client="greedy", view=f"g{i}")) for i in range(60)]
        await asyncio.sleep(0.1)
        modest = [asyncio.create_task(server.ask(client=f"tab{i}", view=f"t{i}")) for i in range(12)]
        statuses = await asyncio.gather(*modest)
        return statuses, await asyncio.gather(*greedy)

    modest, greedy = server.run(work)
    assert set(modest) == {200} and server.waiting <= server.route.MAX_WAITING
    assert set(greedy) <= {200, 204, 429} and greedy[-1] == 200
    order = [client for client, _ in server.drawn]
    assert order[: order.index("tab11")].count("greedy") <= 3 + server.route.MAX_OF_ONE_CLIENT


def test_a_full_waiting_room_makes_room_for_a_new_client(in_host, monkeypatch):
    server = Server(monkeypatch, seconds=0.2)

    async def work():
        tasks = [asyncio.create_task(server.ask(client=f"c{i % 4}", view=f"v{i}")) for i in range(server.route.MAX_WAITING)]
        await asyncio.sleep(0.1)
        assert server.worker.busy
        new = await server.ask(client="new", view="new")
        statuses = await asyncio.gather(*tasks)
        return new, statuses

    new, statuses = server.run(work)
    assert new == 200 and statuses.count(204) == 1 and set(statuses) == {200, 204}


def test_each_client_has_a_rate_of_its_own(in_host):
    from capface.host.editor import route

    limits = route.ClientLimits(route.RateLimit(10, 5, lambda: 0.0), lambda: 0.0)
    assert [limits.take(None) for _ in range(6)] == [True] * 5 + [False]
    assert sum(limits.take("a") for _ in range(500)) == route.BURST
    assert limits.take("b") and not limits.take(None)
    for i in range(1000):
        limits.take(f"c{i}")
    assert len(limits._named) == route.MAX_CLIENTS
    assert sum(limits.take(f"d{i}") for i in range(1000)) < route.ALL_CLIENTS * route.BURST


def test_an_unexpected_error_is_no_status_500(in_host, monkeypatch, caplog):
    server = Server(monkeypatch)

    def fail(request):
        raise RecursionError("deep")

    monkeypatch.setattr(server.route, "render", fail)
    assert server.run(lambda: server.ask(view="x")) == 422
    assert "RecursionError: deep" in caplog.text and server.worker._waiting == 0


def test_a_broken_file_does_not_fail_the_preview_and_is_read_once(in_host, monkeypatch, tmp_path):
    from capface.host.editor import preview

    reads = []

    def broken(*_):
        reads.append(1)
        raise RecursionError

    (tmp_path / "broken.json").write_text("{}")
    monkeypatch.setattr(in_host.folder_paths, "input_directory", str(tmp_path))
    preview._load_model.cache_clear()
    monkeypatch.setattr(preview.head_models, "head_model_fingerprint", lambda name: name)
    monkeypatch.setattr(preview.head_models, "load_head_model", broken)
    monkeypatch.setattr(preview, "read_heads", broken)
    for _ in range(3):
        (given,) = preview.inputs_before_run("generic_model.pkl", "broken.json")
        assert given.model is builtin_head() and given.head.batch == 1
    assert len(reads) == 2  # the model and the head
    (tmp_path / "large.json").write_bytes(b" " * (preview.MAX_FILE_BYTES + 1))
    preview.inputs_before_run("generic_model.pkl", "large.json")
    assert len(reads) == 2
    monkeypatch.setattr(preview.user_files, "user_file_fingerprint", lambda *_: 1 / 0)
    assert len(preview.inputs_before_run("generic_model.pkl", "broken.json")) == 1
    preview._load_model.cache_clear()


def test_the_cache_is_bounded_in_bytes(in_host):
    from capface.host.editor.preview import EditorInputs, PreviewCache

    def inputs():
        return EditorInputs.split(builtin_head(), HeadParams.neutral(2), torch.rand(2, 3, 600, 600))

    cache = PreviewCache(memory=2**62)
    cache.put(1, inputs())
    one = cache.memory
    cache.put(2, inputs())
    each = cache.memory - one  # the head model is counted once
    assert 2 * 1_500_000 < each < 8_000_000 < one
    cache = PreviewCache(memory=one + 3 * each)
    tokens = [cache.put(i, inputs()) for i in range(8)]
    assert [cache.get(token) is not None for token in tokens] == [False] * 4 + [True] * 4
    assert cache.memory <= one + 3 * each
    tiny = PreviewCache(memory=1)
    assert tiny.get(tiny.put(1, inputs())) is not None


@pytest.mark.skipif(sys.platform != "linux", reason="children with limited memory need Linux")
def test_mutated_requests_are_answered(comfyui):
    shown = subprocess.run(
        [sys.executable, "-m", "capface.tools.fuzz", "preview", "--count", "300", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ, COMFYUI_PATH=str(comfyui), OMP_NUM_THREADS="1"),
    )
    assert shown.returncode == 0 and "| preview | 300 |" in shown.stdout, shown.stdout + shown.stderr[-2000:]
