"""A server on the loopback that serves files, well or badly, as a test tells it."""

import hashlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = 1 << 14


@dataclass
class Goods:
    """A file, and how it is served. What is in a list holds for one request each, from the first on."""

    data: bytes = b""
    etag: str | None = '"one"'
    changing: Callable[[], str] | None = None
    """Returns the ETag of the next answer, for a file that keeps changing."""
    ranges: bool = True
    headers: dict = field(default_factory=dict)
    """Headers of every answer, which replace the usual ones; None leaves one out."""
    statuses: list = field(default_factory=list)
    """`(status, headers)` of the next answers."""
    breaks: list = field(default_factory=list)
    """Bytes after which the next bodies break off; None lets one through."""
    always_breaks: int | None = None
    stalls: list = field(default_factory=list)
    """Bytes after which the next bodies stop coming."""
    redirect: str | None = None
    chunked: bool = False
    shift: int = 0
    """How many bytes too late a part begins."""
    pause: float = 0.0
    """Seconds between two blocks."""
    later: "tuple[int, Goods] | None" = None
    """After so many requests, what is served instead."""


class Shop(ThreadingHTTPServer):
    """The server; `with Shop() as shop:`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.goods, self.asked, self.sent = {}, [], 0
        self.closing, self.lock = threading.Event(), threading.Lock()
        self.busy = self.most = 0

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def offer(self, path, data, **how):
        self.goods[path] = Goods(data, **how)
        return self.address + path

    def ranges(self, path):
        return [headers.get("Range") for asked, headers in self.asked if asked == path]

    def handle_error(self, request, client_address):
        """Clients that hang up are no error here."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def shop(self) -> Shop:
        assert isinstance(self.server, Shop)
        return self.server

    def log_message(self, format, *args):
        """Say nothing."""

    def do_GET(self):
        shop = self.shop
        with shop.lock:
            shop.asked.append((self.path, dict(self.headers)))
            shop.busy += 1
            shop.most = max(shop.most, shop.busy)
        try:
            self.close_connection = True
            self.serve(shop)
        finally:
            with shop.lock:
                shop.busy -= 1

    def serve(self, shop):
        goods = shop.goods.get(self.path)
        if goods is None:
            return self.head(404, {"Content-Length": "0"})
        with shop.lock:
            if goods.later and sum(path == self.path for path, _ in shop.asked) > goods.later[0]:
                goods = goods.later[1]
            status, extra = goods.statuses.pop(0) if goods.statuses else (200, {})
            stop = stall = None
            first_question = self.headers.get("Range") == "bytes=0-0" and goods.ranges
            if not first_question:  # it takes no part in what a test sets up
                stop = goods.breaks.pop(0) if goods.breaks else goods.always_breaks
                stall = goods.stalls.pop(0) if goods.stalls else None
        if goods.redirect is not None:
            return self.head(302, {"Location": goods.redirect, "Content-Length": "0", **goods.headers})
        if status != 200:
            return self.head(status, {"Content-Length": "0", **extra})
        etag = goods.changing() if goods.changing else goods.etag
        body, headers = goods.data, {"ETag": etag, "Content-Type": "application/octet-stream"}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if found and goods.ranges and self.headers.get("If-Range", etag) == etag:
            first, last = int(found[1]), min(int(found[2] or len(body) - 1), len(body) - 1)
            if first >= len(body):
                return self.head(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"})
            first += goods.shift
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            status, body = 206, body[first : last + 1]
        headers["Content-Length"] = None if goods.chunked else str(len(body))
        headers["Transfer-Encoding"] = "chunked" if goods.chunked else None
        self.head(status, {**headers, **goods.headers})
        for start in range(0, len(body), BLOCK):
            block = body[start : start + BLOCK]
            if stop is not None and start + len(block) > stop:
                return self.put(goods, block[: stop - start])
            if stall is not None and start + len(block) > stall:
                return shop.closing.wait(20)
            self.put(goods, block)
            time.sleep(goods.pause)
        if goods.chunked:
            self.wfile.write(b"0\r\n\r\n")
        return None

    def head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def put(self, goods, block):
        with self.shop.lock:  # before the client has it, and a test looks
            self.shop.sent += len(block)
        self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if goods.chunked else block)


def noise(size, seed=0):
    """Bytes that do not compress and do not repeat."""
    blocks = (hashlib.sha256(b"%d %d" % (seed, i)).digest() for i in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def sha256(data):
    return hashlib.sha256(data).hexdigest()
