"""The HTTP route behind Edit Head's preview: widget values in, a picture of a head out, and nothing else.

    POST /capface/edit   {"view": id, "values": {widget: value}, "side": 256, "over": false, "close": false, "raw": false,
                          "head": 0, "given": token, "model": name, "file": name}

The answer is a picture (a file, or raw RGBA, with its width and height in a header), 204 where a newer request of the same
view has overtaken this one, 400 or 413 for what is no such request, 422 where the values make no head, and 429 where too much
is asked at once. Pictures are drawn one at a time in a thread of their own and on one core: the event loop stays free, and so
do the other cores.
"""

import asyncio
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from aiohttp import web
from comfy_api.latest import io

from ...errors import CapFaceError
from .. import head_models
from . import preview

PATH = "/capface/edit"
MOST_BYTES = 8192
"""Of a request; a full one has a quarter of that."""
BODY_SECONDS = 5.0
MOST_WAITING = 16
"""Pictures that may wait to be drawn."""
RATE, BURST = 60.0, 120.0
"""Requests a second on average, and at once."""
MOST_CHARACTERS = 16
"""Of a text widget; the only one is a colour."""
MOST_NAME = 200
"""Characters of a file's name."""

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

log = logging.getLogger("capface")

_VIEW = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FIELDS = {"view", "values", "side", "over", "close", "raw", "head", "given", "model", "file"}


class BadRequest(Exception):
    """A request that no editor sends; the message says what is wrong with it."""


@dataclass(frozen=True)
class Request:
    """A request whose every field was checked."""

    view: str
    values: dict
    side: int
    over: bool
    close: bool
    raw: bool
    head: int
    given: str | None
    model: str
    file: str | None


def parse(body: bytes, widgets: Sequence[io.Input]) -> Request:
    """Check a request's body.

    Args:
        body: JSON.
        widgets: Edit Head's inputs; they say what values may be.

    Raises:
        BadRequest: anything is not as an editor sends it.
    """
    try:
        fields = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadRequest("The body is no JSON.") from None
    if not isinstance(fields, dict) or not set(fields) <= _FIELDS:
        raise BadRequest(f"Expected an object with the fields {', '.join(sorted(_FIELDS))}.")
    side, values = fields.get("side", preview.SIDES[0]), fields.get("values", {})
    over, close, raw = (fields.get(name, False) for name in ("over", "close", "raw"))
    head = fields.get("head", 0)
    if type(side) is not int or side not in preview.SIDES:
        raise BadRequest(f"side: expected one of {', '.join(map(str, preview.SIDES))}.")
    if not all(isinstance(look, bool) for look in (over, close, raw)):
        raise BadRequest("over, close, raw: expected true or false.")
    if type(head) is not int or not 0 <= head < preview.MOST_HEADS:
        raise BadRequest(f"head: expected a whole number from 0 to {preview.MOST_HEADS - 1}.")
    if not isinstance(values, dict):
        raise BadRequest("values: expected an object.")
    known = {widget.id: widget for widget in widgets}
    for name, value in values.items():
        if name not in known or not _fits(known[name], value):
            raise BadRequest(f"values: {name[:MOST_CHARACTERS]!r} is no widget of Edit Head, or no value for it.")
    view, given, model, file = (fields.get(name) for name in ("view", "given", "model", "file"))
    if not isinstance(view, str) or not _VIEW.fullmatch(view):
        raise BadRequest("view: expected up to 64 letters and digits.")
    if given is not None and not (isinstance(given, str) and _VIEW.fullmatch(given)):
        raise BadRequest("given: expected a token.")
    for name in (model, file):
        if name is not None and not (isinstance(name, str) and len(name) <= MOST_NAME):
            raise BadRequest(f"model, file: expected names of up to {MOST_NAME} characters.")
    return Request(view, values, side, over, close, raw, head, given, model or head_models.BUILT_IN, file)


def _fits(widget: io.Input, value) -> bool:
    """Whether a value may stand in a widget."""
    if isinstance(widget, io.Float.Input):
        return isinstance(value, int | float) and not isinstance(value, bool) and widget.min <= value <= widget.max
    if isinstance(widget, io.Combo.Input):
        return isinstance(value, str) and value in widget.options
    return isinstance(widget, io.String.Input) and isinstance(value, str) and len(value) <= MOST_CHARACTERS


def _no_constant(name: str):
    raise ValueError(name)


class Rate:
    """A bucket of tokens that fills at a steady rate."""

    def __init__(self, rate: float = RATE, burst: float = BURST, clock: Callable[[], float] = time.monotonic):
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._seen = burst, clock()

    def take(self) -> bool:
        """Whether one more is allowed now."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._seen) * self._rate)
        self._seen = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Painter:
    """Draws one picture at a time; of each view the newest that was asked for."""

    def __init__(self, most_waiting: int = MOST_WAITING):
        self._most = most_waiting
        self._waiting = 0
        self._newest: dict[str, object] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="capface-preview", initializer=use_one_core)

    @property
    def busy(self) -> bool:
        """Whether no further picture may wait."""
        return self._waiting >= self._most

    async def paint(self, view: str, job: Callable[[], tuple]) -> tuple | None:
        """Run a job in the painter's thread.

        Returns:
            What the job returned, or None where the same view asked for another picture before this one's turn.
        """
        ticket = self._newest[view] = object()

        def work():
            if self._newest.get(view) is not ticket:
                return None
            with torch.no_grad():
                return job()

        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1
            if self._newest.get(view) is ticket:
                del self._newest[view]


def use_one_core() -> None:
    """Let torch use one core in this thread: a small picture gains nothing by more, and loses much where they are taken.

    Torch's number of threads is this thread's and the default of those that come; the default is put back from another.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    other = threading.Thread(target=torch.set_num_threads, args=(before,))
    other.start()
    other.join()


def make_handler(widgets: Sequence[io.Input], painter: Painter, rate: Rate) -> Callable:
    """Make the route's handler.

    Args:
        widgets: Edit Head's inputs.
        painter: What draws.
        rate: How much may be asked.
    """

    async def answer(request: web.Request) -> web.Response:
        if not rate.take() or painter.busy:
            return web.json_response({"error": "Too many pictures at once."}, status=429, headers={"Retry-After": "1"})
        if request.content_type != "application/json":
            return web.json_response({"error": "Expected application/json."}, status=400)
        body = await _read(request)
        if body is None:
            return web.json_response({"error": f"Expected at most {MOST_BYTES} bytes."}, status=413)
        try:
            asked = parse(body, widgets)
            drawn = await painter.paint(asked.view, lambda: _draw(asked))
        except BadRequest as error:
            return web.json_response({"error": str(error)}, status=400)
        except CapFaceError as error:
            return web.json_response({"error": str(error)}, status=422)
        if drawn is None:
            return web.Response(status=204)
        return web.Response(body=drawn.body, headers={**HEADERS, **drawn.headers})

    return answer


async def _read(request: web.Request) -> bytes | None:
    """The body; None where it is too long or too slow, nothing where whoever sends it has gone: nobody reads the answer."""
    if (request.content_length or 0) > MOST_BYTES:
        return None

    async def read() -> bytes | None:
        body = bytearray()
        async for chunk in request.content.iter_chunked(MOST_BYTES):
            body += chunk
            if len(body) > MOST_BYTES:
                return None
        return bytes(body)

    try:
        return await asyncio.wait_for(read(), BODY_SECONDS)
    except asyncio.TimeoutError:  # its own class before Python 3.11
        return None
    except ConnectionError:
        return b""


@dataclass(frozen=True)
class _Answer:
    body: bytes
    headers: dict[str, str]


def _draw(asked: Request) -> _Answer:
    """The picture that was asked for, and what it shows: the head that the node was "given", or one from "before" any run."""
    start = time.perf_counter()
    givens = preview.shelf.get(asked.given) if asked.given else None
    source = "before" if givens is None else "given"
    if givens is None and asked.model not in head_models.choices():
        raise BadRequest("model: expected one that Load Head Model offers.")
    givens = givens or preview.before_run(asked.model, asked.file)
    given = givens[min(asked.head, len(givens) - 1)]
    if given.backdrop is not None:
        source = "given-photo"
    pixels = preview.picture(given, asked.values, asked.side, asked.over, asked.close)
    drawn = time.perf_counter()
    headers = {"X-CapFace-Head": source, "X-CapFace-Heads": str(len(givens))}
    if asked.raw:
        body, media_type = preview.deflate(pixels), "application/octet-stream"
        headers |= {"Content-Encoding": "deflate", "X-CapFace-Size": f"{pixels.shape[1]} {pixels.shape[0]}"}
    else:
        body, media_type = preview.to_file(pixels)
    times = {"draw": drawn - start, "pack": time.perf_counter() - drawn}
    headers["Server-Timing"] = ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in times.items())
    return _Answer(body, {"Content-Type": media_type, **headers})


def register(widgets: Sequence[io.Input]) -> bool:
    """Add the route to ComfyUI's server, once, where there is one.

    Args:
        widgets: Edit Head's inputs.

    Returns:
        Whether it was added now.
    """
    host = server()
    if host is None or any(route.path == PATH for route in host.routes if isinstance(route, web.RouteDef)):
        return False
    host.routes.post(PATH)(make_handler(widgets, Painter(), Rate()))
    log.debug("Edit Head's preview answers at %s", PATH)
    return True


def client() -> str | None:
    """Return whose prompt runs now: the id of a browser's page, or of a program."""
    return getattr(server(), "client_id", None)


def server():
    """ComfyUI's server; None for whoever runs nodes without it, and has not imported it either."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
