"""The HTTP routes behind Edit Head's preview. The first one takes widget values and returns a picture of a head.

    POST /capface/edit   {"view": id, "client": id, "values": {widget: value}, "side": 256, "over": false, "close": false,
                          "raw": false, "head": 0, "given": token, "model": name, "file": name, "photo": name,
                          "opacity": 0.8, "frame": [width, height]}

    POST /capface/photo  {"view": id, "client": id, "photo": name, "section": "Pose", "model": name}

The second one takes a photo in the input or temporary folder, fits a head to it as Fit Head does, and returns the widget values
of one of Edit Head's sections as JSON.

Responses:

- 200: a picture, as a file or as raw RGBA with its width and height in a header
- 204: a newer request of the same view has replaced this one, or it made room for another client
- 400, 413, 415: the request is malformed, too long or compressed
- 422: the values do not describe a head
- 429: too many requests at once

Pictures are rendered one at a time, in a separate thread and on one core. This leaves the event loop and the other cores free.
The clients (browser tabs) take turns, and each has a rate of its own, so that none keeps the others waiting.
"""

import asyncio
import json
import logging
import re
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeVar

import torch
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from comfy_api.latest import io

from ...errors import BadInput, CapFaceError
from .. import head_models
from . import from_photo, preview

PATH, PHOTO_PATH = "/capface/edit", "/capface/photo"
MAX_BODY_BYTES = 8192
"""Longest body of a request. A request with all fields needs a quarter of that."""
BODY_SECONDS = 5.0
"""Time that a client has to send the body."""
MAX_WAITING, MAX_OF_ONE_CLIENT = 16, 4
"""Number of pictures that may wait to be rendered, in all and of one client."""
MAX_PHOTOS = 4
"""Number of photos that may wait to be read."""
PHOTO_RATE, PHOTO_BURST = 2.0, 8.0
"""As RATE and BURST, for photos of clients that give no name."""
MAX_READING = 64
"""Number of requests whose bodies are read at once."""
RATE, BURST = 60.0, 120.0
"""Requests per second on average, and requests at once, of one client."""
MAX_CLIENTS = 64
"""Number of clients whose rates are remembered."""
ALL_CLIENTS = 4
"""Clients that may use their whole rate at the same time."""
MAX_TEXT = 16
"""Longest value of a text widget, in characters. The only text widget is a colour."""
MAX_NAME = 200
"""Longest name of a file, in characters."""
MAX_FRAME, MAX_ASPECT = 16384, 8
"""Longest side of a frame, and the most that it may exceed the shorter one."""

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

log = logging.getLogger("capface")

T = TypeVar("T")

FOREIGN = "/foreign"
"""All pages of other sites together, as a client; no client can have this name."""
_VIEW = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FIELDS = {
    "view", "client", "values", "side", "over", "close", "raw", "head", "given", "model", "file", "photo", "opacity", "frame",
}  # fmt: skip


class Asked(Protocol):
    """A parsed request."""

    @property
    def view(self) -> str:
        """The view that the answer belongs to."""
        ...

    @property
    def client(self) -> str | None:
        """The browser tab or program that asks."""
        ...


R = TypeVar("R", bound=Asked)


class BadRequest(Exception):
    """A malformed request; the message says what is wrong with it."""


@dataclass(frozen=True)
class Request:
    """A request with validated fields."""

    view: str
    client: str | None
    """The browser tab or program that asks."""
    values: dict[str, Any]
    side: int
    over: bool
    close: bool
    raw: bool
    head: int
    token: str | None
    """The field "given"."""
    model: str
    file: str | None
    photo: str | None
    """A picture in the input folder, for a head without a photo."""
    opacity: float
    frame: tuple[int, int]


def parse_request(body: bytes, widgets: Sequence[io.Input]) -> Request:
    """Parse and validate a request's body.

    Args:
        body: JSON.
        widgets: Edit Head's inputs, which define the allowed values.

    Raises:
        BadRequest: The body is not JSON, or a field is unknown or has an invalid value.
    """
    fields = _parse_object(body, _FIELDS)
    side, values = fields.get("side", preview.SIDES[0]), fields.get("values", {})
    over, close, raw = (fields.get(name, False) for name in ("over", "close", "raw"))
    head = fields.get("head", 0)
    if type(side) is not int or side not in preview.SIDES:
        raise BadRequest(f"side: expected one of {', '.join(map(str, preview.SIDES))}.")
    if not all(isinstance(flag, bool) for flag in (over, close, raw)):
        raise BadRequest("over, close, raw: expected true or false.")
    if type(head) is not int or not 0 <= head < preview.MAX_HEADS:
        raise BadRequest(f"head: expected a whole number from 0 to {preview.MAX_HEADS - 1}.")
    if not isinstance(values, dict):
        raise BadRequest("values: expected an object.")
    known = {widget.id: widget for widget in widgets}
    for name, value in values.items():
        if name not in known or not _fits(known[name], value):
            raise BadRequest(f"values: {name[:MAX_TEXT]!r} is not a widget of Edit Head, or its value is invalid.")
    view, client = _parse_asking(fields)
    token, model, file, photo = (fields.get(name) for name in ("given", "model", "file", "photo"))
    if token is not None and not (isinstance(token, str) and _VIEW.fullmatch(token)):
        raise BadRequest("given: expected a token.")
    for name in (model, file, photo):
        if name is not None and not (isinstance(name, str) and len(name) <= MAX_NAME):
            raise BadRequest(f"model, file, photo: expected names of up to {MAX_NAME} characters.")
    opacity, frame = fields.get("opacity", preview.OPACITY), fields.get("frame", [1, 1])
    if isinstance(opacity, bool) or not isinstance(opacity, int | float) or not 0 <= opacity <= 1:
        raise BadRequest("opacity: expected a number from 0 to 1.")
    if not (isinstance(frame, list) and len(frame) == 2 and all(type(part) is int for part in frame)):
        raise BadRequest("frame: expected width and height.")
    if not (min(frame) >= 1 and max(frame) <= min(MAX_FRAME, MAX_ASPECT * min(frame))):
        raise BadRequest(f"frame: expected sides of 1 to {MAX_FRAME}, one at most {MAX_ASPECT} times the other.")
    model = model or head_models.BUILT_IN_HEAD
    size = (frame[0], frame[1])
    return Request(view, client, values, side, over, close, raw, head, token, model, file, photo, float(opacity), size)


@dataclass(frozen=True)
class PhotoRequest:
    """A request to read a section's values from a photo, with validated fields."""

    view: str
    client: str | None
    photo: str
    """A picture in the input folder, or in the temporary one."""
    section: str
    model: str


def parse_photo_request(body: bytes) -> PhotoRequest:
    """Parse and validate the body of a request to read a photo.

    Raises:
        BadRequest: The body is not JSON, or a field is unknown or has an invalid value.
    """
    fields = _parse_object(body, {"view", "client", "photo", "section", "model"})
    view, client = _parse_asking(fields)
    photo, section, model = fields.get("photo"), fields.get("section"), fields.get("model") or head_models.BUILT_IN_HEAD
    if not (isinstance(photo, str) and isinstance(model, str) and max(len(photo), len(model)) <= MAX_NAME):
        raise BadRequest(f"photo, model: expected names of up to {MAX_NAME} characters.")
    if section not in from_photo.SECTIONS:
        raise BadRequest(f"section: expected one of {', '.join(from_photo.SECTIONS)}.")
    return PhotoRequest(view, client, photo, section, model)


def _parse_object(body: bytes, names: set[str]) -> dict[str, Any]:
    try:
        fields = json.loads(body, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        raise BadRequest("Expected a body in JSON.") from None
    if not isinstance(fields, dict) or not set(fields) <= names:
        raise BadRequest(f"Expected an object with the fields {', '.join(sorted(names))}.")
    return fields


def _parse_asking(fields: dict[str, Any]) -> tuple[str, str | None]:
    """Return the view and the client of a request."""
    view, client = fields.get("view"), fields.get("client")
    if not isinstance(view, str) or not _VIEW.fullmatch(view):
        raise BadRequest("view: expected up to 64 letters and digits.")
    if client is not None and not (isinstance(client, str) and _VIEW.fullmatch(client)):
        raise BadRequest("client: expected up to 64 letters and digits.")
    return view, client


def _fits(widget: io.Input, value: object) -> bool:
    """Return whether a widget accepts a value."""
    if isinstance(widget, io.Float.Input):
        return isinstance(value, int | float) and not isinstance(value, bool) and widget.min <= value <= widget.max
    if isinstance(widget, io.Combo.Input):
        return isinstance(value, str) and value in widget.options
    return isinstance(widget, io.String.Input) and isinstance(value, str) and len(value) <= MAX_TEXT


def _reject_constant(name: str) -> NoReturn:
    """Reject NaN and infinities, which are not JSON."""
    raise ValueError(name)


class RateLimit:
    """A token bucket that fills at a steady rate."""

    def __init__(self, rate: float = RATE, burst: float = BURST, clock: Callable[[], float] = time.monotonic):
        self._rate, self._burst, self._clock = rate, burst, clock
        self._tokens, self._updated = burst, clock()

    def take(self) -> bool:
        """Take a token, and return whether there was one."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class ClientLimits:
    """A rate for each client, one for all that give no name, and a larger one for all named clients together."""

    def __init__(self, unnamed: RateLimit, clock: Callable[[], float] = time.monotonic):
        self._unnamed, self._clock = unnamed, clock
        self._all = RateLimit(ALL_CLIENTS * RATE, ALL_CLIENTS * BURST, clock)
        self._named: OrderedDict[str, RateLimit] = OrderedDict()

    def take(self, client: str | None) -> bool:
        """Take a token of a client, and return whether there was one."""
        if client is None:
            return self._unnamed.take()
        own = self._named.pop(client, None) or RateLimit(clock=self._clock)
        self._named[client] = own
        while len(self._named) > MAX_CLIENTS:
            self._named.popitem(last=False)
        return own.take() and self._all.take()


class TooManyPictures(Exception):
    """As many pictures wait as may wait."""


@dataclass(eq=False)
class _Waiting:
    """A picture that waits to be rendered."""

    view: str
    client: str
    job: Callable[[], Any]
    wanted: Callable[[], bool]
    result: "asyncio.Future[Any]"
    counted: bool = True


class PreviewWorker:
    """Renders one picture at a time: of each view the latest, and in turn for the clients.

    All methods are called in the event loop's thread. A picture is counted before anything is awaited, so the limit holds
    whenever requests arrive.
    """

    def __init__(self, max_waiting: int = MAX_WAITING, max_of_one_client: int = MAX_OF_ONE_CLIENT):
        self._max_waiting, self._max_of_one_client = max_waiting, max_of_one_client
        self._waiting = 0
        self._newest: dict[str, _Waiting] = {}
        self._queues: OrderedDict[str, deque[_Waiting]] = OrderedDict()  # by client, the next in turn first
        self._rendering = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="capface-preview", initializer=use_one_core)

    @property
    def busy(self) -> bool:
        """Whether the maximum number of pictures is waiting, with the one that is rendered."""
        return self._waiting >= self._max_waiting

    async def run(
        self, view: str, job: Callable[[], T], client: str | None = None, wanted: Callable[[], bool] = lambda: True
    ) -> T | None:
        """Run a job in the worker's thread.

        Args:
            view: The view that shows the picture.
            job: Renders it.
            client: The browser tab or program that asks; by default, each view is a client of its own.
            wanted: Whether anybody still waits for the picture. It is asked when the job would start.

        Returns:
            The job's result. None if, before the job started, the same view requested another picture, nobody waited any
            more, or its client had to make room.

        Raises:
            TooManyPictures: The maximum number of pictures is waiting, and this client is not the one with the fewest.
        """
        client = client or view
        self._make_room(client)
        waiting = _Waiting(view, client, job, wanted, asyncio.get_running_loop().create_future())
        self._waiting += 1
        self._newest[view] = waiting
        self._queues.setdefault(client, deque()).append(waiting)
        self._start()
        try:
            return await waiting.result
        finally:
            self._leave(waiting)  # also if the request was cancelled

    def _make_room(self, client: str) -> None:
        """Drop a picture of this client if it has many waiting, or else, if all places are taken, of the one with the most."""
        own = self._queues.get(client, deque())
        if len(own) >= self._max_of_one_client:
            self._drop(own[0])
        elif self.busy:
            most = max(self._queues.values(), key=len, default=own)
            if len(most) <= len(own) + 1:
                raise TooManyPictures
            self._drop(most[0])

    def _start(self) -> None:
        """Render the next picture, unless one is being rendered. Pictures that nobody wants are dropped."""
        while not self._rendering and self._queues:
            client, queue = self._queues.popitem(last=False)
            waiting = queue.popleft()
            if queue:
                self._queues[client] = queue  # at the end: the other clients come first
            if self._newest.get(waiting.view) is not waiting or not waiting.wanted():
                self._drop(waiting)
                continue
            self._rendering = True
            work = asyncio.get_running_loop().run_in_executor(self._thread, _without_gradients, waiting.job)
            work.add_done_callback(lambda work, waiting=waiting: self._finish(waiting, work))

    def _finish(self, waiting: _Waiting, work: "asyncio.Future[Any]") -> None:
        self._rendering = False
        error = None if work.cancelled() else work.exception()
        self._leave(waiting)
        if not waiting.result.done():
            if error is not None:
                waiting.result.set_exception(error)
            else:
                waiting.result.set_result(None if work.cancelled() else work.result())
        self._start()

    def _drop(self, waiting: _Waiting) -> None:
        self._leave(waiting)
        if not waiting.result.done():
            waiting.result.set_result(None)

    def _leave(self, waiting: _Waiting) -> None:
        """Stop counting a picture, and forget it."""
        if not waiting.counted:
            return
        waiting.counted = False
        self._waiting -= 1
        if self._newest.get(waiting.view) is waiting:
            del self._newest[waiting.view]
        queue = self._queues.get(waiting.client)
        if queue is not None and waiting in queue:
            queue.remove(waiting)
            if not queue:
                del self._queues[waiting.client]


def _without_gradients(job: Callable[[], T]) -> T:
    with torch.no_grad():
        return job()


def use_one_core() -> None:
    """Limit torch to one core in this thread. More cores do not speed up a small picture, and waiting for busy ones is slow.

    Setting torch's number of threads in one thread also sets the default of new threads. Another thread restores that default.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    other = threading.Thread(target=torch.set_num_threads, args=(before,))
    other.start()
    other.join()


@dataclass(frozen=True)
class Rendered:
    """The content of an answer."""

    body: bytes
    headers: dict[str, str]


Handler = Callable[[web.Request], Awaitable[web.Response]]


def make_handler(widgets: Sequence[io.Input], worker: PreviewWorker, limit: RateLimit) -> Handler:
    """Make the handler of pictures.

    Args:
        widgets: Edit Head's inputs.
        worker: Renders the pictures.
        limit: Limits the requests of clients that give no name.
    """
    return _make_handler(lambda body: parse_request(body, widgets), render, worker, limit)


def make_photo_handler(worker: PreviewWorker, limit: RateLimit) -> Handler:
    """Make the handler of photos. The arguments are as for `make_handler`."""
    return _make_handler(parse_photo_request, read_photo, worker, limit)


def _make_handler(
    parse: Callable[[bytes], R], work: Callable[[R], Rendered], worker: PreviewWorker, limit: RateLimit
) -> Handler:
    """Make a handler, with all limits.

    Args:
        parse: Validates a request's body.
        work: Computes the content of the answer in the worker's thread.
        worker: As for `make_handler`.
        limit: As for `make_handler`.
    """
    clients = ClientLimits(limit)
    reading = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal reading
        # A page of another site can send no JSON without ComfyUI's permission; what it can send takes nothing from the rate.
        if request.content_type != "application/json":
            return _refusal(400, "Expected application/json.")
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            return await _refuse_unread(request, _refusal(415, "Expected a body that is not compressed."))
        if (request.content_length or 0) > MAX_BODY_BYTES:
            return _refusal(413, f"Expected at most {MAX_BODY_BYTES} bytes.")
        if reading >= MAX_READING:
            return _too_many()
        reading += 1
        try:
            body = await _read(request)
        finally:
            reading -= 1
        if body is None:
            return _refusal(413, f"Expected at most {MAX_BODY_BYTES} bytes within {BODY_SECONDS:.0f} seconds.")
        try:
            parsed = parse(body)
            client = FOREIGN if _is_foreign(request) else parsed.client
            if not clients.take(client):
                return _too_many()
            rendered = await worker.run(parsed.view, lambda: work(parsed), client, lambda: _is_connected(request))
        except TooManyPictures:
            return _too_many()
        except BadRequest as error:
            return web.json_response({"error": str(error)}, status=400)
        except CapFaceError as error:
            return web.json_response({"error": str(error)}, status=422)
        except Exception:
            log.exception("Edit Head's preview")
            return web.json_response({"error": "The head cannot be drawn: ComfyUI's log has the reason."}, status=422)
        if rendered is None:
            return web.Response(status=204)
        return web.Response(body=rendered.body, headers={**HEADERS, **rendered.headers})

    return answer


def _too_many() -> web.Response:
    return web.json_response({"error": "Too many pictures at once."}, status=429, headers={"Retry-After": "1"})


def _refusal(status: int, error: str) -> web.Response:
    """Refuse a request whose body is not read, and close the connection after it."""
    response = web.json_response({"error": error}, status=status)
    response.force_close()
    return response


async def _refuse_unread(request: web.Request, response: web.Response) -> web.Response:
    """Send a response and close the connection at once. Otherwise aiohttp would unpack the body to get rid of it."""
    await response.prepare(request)
    await response.write_eof()
    request.protocol.force_close()
    return response


def _is_connected(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _is_foreign(request: web.Request) -> bool:
    """Return whether a page of another site sent the request."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in ("cross-site", "same-site")
    origin = request.headers.get("Origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("Host")


async def _read(request: web.Request) -> bytes | None:
    """Read the body.

    Returns:
        The body. None if it is too long or arrives too slowly. Empty if it is malformed, or if the client has disconnected,
        which then gets no answer.
    """

    async def read() -> bytes | None:
        body = bytearray()
        async for chunk in request.content.iter_chunked(MAX_BODY_BYTES):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return None
        return bytes(body)

    try:
        return await asyncio.wait_for(read(), BODY_SECONDS)
    except asyncio.TimeoutError:  # not the built-in TimeoutError before Python 3.11
        return None
    except (ConnectionError, web.RequestPayloadError, HttpProcessingError):
        return b""


def render(request: Request) -> Rendered:
    """Render the picture. A header names the source of the head: "before" or "given" by a run, with "-photo" if it has one.

    Raises:
        BadRequest: The head model is not one of Load Head Model's.
        BadInput: The values do not describe a head.
    """
    start = time.perf_counter()
    cached = preview.preview_cache.get(request.token) if request.token else None
    source = "before" if cached is None else "given"
    if cached is None and request.model not in head_models.list_head_models():
        raise BadRequest("model: expected a choice of Load Head Model.")
    heads = cached or preview.inputs_before_run(request.model, request.file)
    inputs = heads[min(request.head, len(heads) - 1)]
    if request.photo is not None:
        inputs = preview.with_photo(inputs, request.photo)
    if inputs.backdrop is not None:
        source += "-photo"
    picture = preview.render_preview(
        inputs, request.values, request.side, request.over, request.close, request.opacity, request.frame
    )
    pixels = picture.pixels
    rendered = time.perf_counter()
    headers = {"X-CapFace-Head": source, "X-CapFace-Heads": str(len(heads))}
    for name, numbers in (("Places", picture.places), ("Base", picture.base)):
        headers[f"X-CapFace-{name}"] = " ".join(f"{number:.4f}" for number in numbers)
    if request.raw:
        body, media_type = preview.deflate(pixels), "application/octet-stream"
        headers |= {"Content-Encoding": "deflate", "X-CapFace-Size": f"{pixels.shape[1]} {pixels.shape[0]}"}
    else:
        body, media_type = preview.encode_image(pixels)
    times = {"draw": rendered - start, "pack": time.perf_counter() - rendered}
    headers["Server-Timing"] = ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in times.items())
    return Rendered(body, {"Content-Type": media_type, **headers})


def read_photo(request: PhotoRequest) -> Rendered:
    """Read the widget values of a section from a photo, as JSON: {"values": {widget: value}, "text": Fit Head's summary}.

    Raises:
        BadRequest: The head model is not one of Load Head Model's, or the photo's name is not one in its folders.
        CapFaceError: As Fit Head.
    """
    if request.model not in head_models.list_head_models():
        raise BadRequest("model: expected a choice of Load Head Model.")
    if running_server().prompt_queue.get_tasks_remaining():
        raise BadInput("ComfyUI is running a workflow. Take values from a photo when it has finished.")
    values, summary = from_photo.read_values(request.photo, request.section, request.model)
    body = json.dumps({"values": values, "text": summary}).encode()
    return Rendered(body, {"Content-Type": "application/json"})


def register(widgets: Sequence[io.Input]) -> bool:
    """Add the routes to ComfyUI's server, unless they were added before or no server is running.

    Args:
        widgets: Edit Head's inputs.

    Returns:
        Whether this call added the routes.
    """
    server = running_server()
    if server is None or any(route.path == PATH for route in server.routes if isinstance(route, web.RouteDef)):
        return False
    server.routes.post(PATH)(make_handler(widgets, PreviewWorker(), RateLimit()))
    server.routes.post(PHOTO_PATH)(make_photo_handler(PreviewWorker(MAX_PHOTOS, 1), RateLimit(PHOTO_RATE, PHOTO_BURST)))
    log.debug("Edit Head's preview answers at %s", PATH)
    return True


def current_client_id() -> str | None:
    """Return the id of the client (a browser page or a program) whose prompt is running."""
    return getattr(running_server(), "client_id", None)


def running_server() -> Any:  # server.PromptServer
    """Return ComfyUI's server, or None if the nodes are used without it. This does not import the server's module."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
