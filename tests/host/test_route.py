"""Edit Head's live preview over HTTP: pictures for what an editor sends, and words for everything else."""

import asyncio
import io
import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from capface.flame import HeadParams, render_head
from capface.flame.builtin import builtin_head
from capface.flame.edits import edit_head
from capface.flame.expressions import SLIDERS
from capface.tools.comfy import ComfyProcess

PATH = "api/capface/edit"


@pytest.fixture(scope="module")
def process(comfyui):
    """A running ComfyUI without any model files."""
    with ComfyProcess(comfyui) as process:
        yield process


@pytest.fixture
def ask(process):
    """Post a body (JSON or bytes); returns status, headers and body. Waits first until the rate allows it."""
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
    """A picture's pixels `[H, W, C]`."""
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
def test_what_no_editor_sends_is_refused(ask, fields):
    status, headers, body = ask(**fields)
    assert status == 400
    assert headers["Content-Type"].startswith("application/json")
    assert set(json.loads(body)) == {"error"}


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'{"values": {"yaw": NaN}}', b"[" * 8000, b"\xff\xfe", b"9" * 5000])
def test_what_is_no_request_is_refused(ask, body):
    assert ask(body)[0] == 400


def test_only_json_is_read(ask):
    assert ask(b'{"view": "test"}', content_type="text/plain")[0] == 400


def test_an_oversized_body_is_refused(ask):
    assert ask(json.dumps({"view": "test", "file": "a" * 9000}).encode())[0] == 413


def test_what_makes_no_head_is_said_in_words(ask):
    status, _, body = ask(values={"light": "custom", "key_color": "blue"})
    assert status == 422 and "colour" in json.loads(body)["error"]


def test_files_that_are_not_there_leave_the_neutral_head(ask):
    plain = ask()[2]
    for file in ("nobody.json", "../../etc/passwd", "../models/x.json", "\0.json", "\ud800.json"):
        assert ask(file=file)[2] == plain
    assert ask(given="forgotten")[2] == plain


def test_a_saved_head_is_shown_before_any_run(process, ask):
    from capface.flame.storage import heads_to_json

    head = HeadParams.neutral().replace(rotation=torch.tensor([[0.0, 0.6, 0.0]]))
    (process.base / "input" / "turned.json").write_text(heads_to_json(head), encoding="utf-8")
    expected = render_head(builtin_head(), head, 256, 256).alpha[0, 0] * 255
    assert np.abs(pixels(ask(file="turned.json"))[..., 3] - expected.numpy()).mean() < 0.1


def test_a_flood_is_turned_away_and_leaves_the_server_alone(process, ask):
    with ThreadPoolExecutor(24) as crowd:
        answers = list(crowd.map(lambda i: ask(view=f"v{i}")[0], range(300)))
        assert set(answers) <= {200, 204, 429} and answers.count(429) > 50 and answers.count(200) > 10
    start = time.monotonic()
    with urllib.request.urlopen(f"{process.url}/api/system_stats", timeout=10) as answer:
        assert answer.status == 200
    assert time.monotonic() - start < 2
    time.sleep(1)
    assert ask()[0] == 200


def test_the_rate_recovers(in_host):
    from capface.host.route import Rate

    now = [0.0]
    rate = Rate(10, 5, lambda: now[0])
    assert [rate.take() for _ in range(6)] == [True] * 5 + [False]
    now[0] = 0.31
    assert [rate.take() for _ in range(4)] == [True] * 3 + [False]
    now[0] = 100
    assert sum(rate.take() for _ in range(50)) == 5


def test_the_newest_of_each_view_is_drawn(in_host):
    from capface.host.route import Painter

    drawn = []

    async def everything():
        painter = Painter(most_waiting=4)
        first = asyncio.create_task(painter.paint("a", lambda: time.sleep(0.3) or drawn.append("a0")))
        await asyncio.sleep(0.05)
        others = [("a", "a1"), ("b", "b0"), ("a", "a2")]
        tasks = [asyncio.create_task(painter.paint(view, lambda n=name: drawn.append(n) or (n,))) for view, name in others]
        await asyncio.sleep(0.05)
        assert painter.busy
        await first
        results = [await task for task in tasks]
        assert not painter.busy
        return results

    assert asyncio.run(everything()) == [None, ("b0",), ("a2",)]
    assert drawn == ["a0", "b0", "a2"]


def test_the_route_is_added_once_and_only_to_a_server(in_host, monkeypatch):
    import sys

    from aiohttp import web

    from capface.host import route
    from capface.nodes.edit import EditHead

    widgets = EditHead.define_schema().inputs
    instance = SimpleNamespace(routes=web.RouteTableDef())
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=instance)))
    assert [route.register(widgets) for _ in range(3)] == [True, False, False]
    assert [(r.method, r.path) for r in instance.routes] == [("POST", route.PATH)]
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace()))
    assert route.register(widgets) is False
    monkeypatch.delitem(sys.modules, "server")
    assert route.register(widgets) is False


def test_the_shelf_keeps_one_place_a_slot_and_few_slots(in_host):
    from capface.host.preview import Given, Shelf

    shelf = Shelf(most=3)
    head = Given.of(builtin_head(), HeadParams.neutral(2), torch.rand(1, 3, 1000, 700))
    assert head.head.batch == 1
    assert head.photo.shape == (1, 3, 366, 256) and head.backdrop.shape == (3, 512, 358)
    old, new = shelf.put(("tab", "wf", "1"), head), shelf.put(("tab", "wf", "1"), head)
    assert shelf.get(old) is None and shelf.get(new) is head and len(shelf) == 1
    tokens = [shelf.put(("tab", "wf", str(node)), head) for node in range(2, 6)]
    assert [shelf.get(token) is head for token in (new, *tokens)] == [False, False, True, True, True]


def test_a_photo_and_its_light_are_those_of_a_run(in_host):
    from capface.host.preview import Given, picture
    from capface.nodes.edit import EditHead

    model, head = builtin_head(), HeadParams.neutral()
    lit = edit_head(model, head, light="Rembrandt")
    photo = render_head(model, lit, 600, 800).lambertian.clamp(0, 1)
    node = EditHead.PREPARE_CLASS_CLONE(None)
    edited = node.execute(head=head, head_model=model, photo=photo.movedim(1, -1), light="from photo", yaw=30.0).args[0]
    given = Given.of(model, head, photo)
    assert (given.photo_light - edited.light).abs().max() < 1e-5

    file, kind = picture(given, {"light": "from photo", "yaw": 30.0}, 256)
    alone = np.asarray(Image.open(io.BytesIO(file))).astype(float)
    maps = render_head(model, edited, 192, 256)
    assert kind == "image/png" and alone.shape == (192, 256, 4)
    assert np.abs(alone[..., :3] - maps.lambertian[0].movedim(0, -1).clamp(0, 1).numpy() * 255).max() <= 1.5

    file, kind = picture(given, {"yaw": 30.0}, 256, over_photo=True)
    over = np.asarray(Image.open(io.BytesIO(file))).astype(float)
    assert kind == "image/jpeg" and over.shape == (192, 256, 3)
    small = np.asarray(Image.fromarray((photo[0].movedim(0, -1).numpy() * 255).round().astype(np.uint8)).resize((256, 192)))
    free = maps.alpha[0, 0].numpy() == 0
    assert np.abs(over - small)[free].mean() < 12
