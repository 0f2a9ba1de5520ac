"""Requests over HTTP: redirects, proxies, tokens, mirrors, and what a server's refusal means.

The requests are the standard library's. Proxies come from `http_proxy`, `https_proxy` and `no_proxy`, as everywhere. Redirects
are followed here, not by urllib, because urllib sends a token on to the host that it is redirected to.
"""

import contextlib
import email.utils
import http.client
import importlib
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

from ...errors import DownloadFailed

HUGGING_FACE = "https://huggingface.co"
AGENT = "CapFace-weights (urllib)"
MOST_REDIRECTS = 10
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as stalled."""
LONGEST_WAIT = 300.0
"""Seconds. A server that asks for more (Retry-After) ends the run."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_REDIRECTS = (301, 302, 303, 307, 308)
_BUSY = (429, 503)


class Interruption(Exception):
    """A failure that may pass: a broken or stalled connection, or a busy server."""

    def __init__(self, text: str, wait: float | None = None):
        super().__init__(text)
        self.wait = wait
        """Seconds for which the server asks to wait, if it does."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leave redirects to `Web.open`."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """Follow none."""
        return


@dataclass(frozen=True)
class Answer:
    """A server's answer: its body is still to be read, and must be closed."""

    status: int
    headers: Message
    body: Any
    """A file-like object with `read1` and `close`."""
    address: str
    """The address that answered, after all redirects."""
    sha256: str | None = None
    """The file's SHA-256, if Hugging Face states it."""
    size: int | None = None
    """The file's size in bytes, if Hugging Face states it."""

    def close(self) -> None:
        """Close the connection."""
        self.body.close()

    def read(self, limit: int) -> bytes:
        """Read what has arrived of the body.

        Args:
            limit: Most bytes to read.

        Returns:
            At least one byte; nothing at the end, or where the connection broke off.

        Raises:
            Interruption: The connection stalled or broke.
        """
        try:
            return self.body.read1(limit)
        except TimeoutError as error:
            raise Interruption("no data arrived for a while") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Interruption(f"the connection broke ({_reason(error)})") from error

    @property
    def length(self) -> int | None:
        """Bytes of the body, as the server states them."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isdigit() else None

    @property
    def content_range(self) -> tuple[int, int, int] | None:
        """First byte, last byte and the whole file's size, of an answer with a part of the file."""
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", self.headers.get("Content-Range", "").strip())
        return (int(found[1]), int(found[2]), int(found[3])) if found else None

    @property
    def tag(self) -> str | None:
        """What identifies this version of the file: its ETag, or else its date."""
        return self.headers.get("ETag") or self.headers.get("Last-Modified")


class Web:
    """Opens addresses.

    Args:
        endpoint: Address that stands for huggingface.co. Default: the environment's HF_ENDPOINT.
        token: Token for that address. Default: HF_TOKEN, else the one that huggingface_hub keeps after a login.
        timeout: Seconds without a byte after which a connection counts as stalled.
    """

    def __init__(self, endpoint: str | None = None, token: str | None = None, timeout: float = TIMEOUT):
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/")
        self.token = token if token is not None else known_token()
        self.timeout = timeout
        self._opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=_certificates()))

    def mirrored(self, address: str) -> str:
        """Return the address at the mirror, if it is one of huggingface.co."""
        if address.startswith(f"{HUGGING_FACE}/"):
            return self.endpoint + address.removeprefix(HUGGING_FACE)
        return address

    def open(self, address: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Request an address, following redirects.

        Args:
            address: An address of http or https.
            headers: Headers of the request, such as Range.

        Returns:
            The answer, of status 200, 206 or 416.

        Raises:
            Interruption: The host cannot be reached at the moment, or is busy.
            DownloadFailed: The host refuses, or redirects in circles.
        """
        seen: list[str] = []
        here, sha256, size = self.mirrored(address), None, None
        while True:
            answer = self._request(here, {"User-Agent": AGENT, "Accept-Encoding": "identity", **(headers or {})})
            if _origin(here) == _origin(self.endpoint):
                stated = answer.headers.get("X-Linked-Etag", "").strip('"')
                sha256 = stated if re.fullmatch(r"[0-9a-f]{64}", stated) else sha256
                linked = answer.headers.get("X-Linked-Size", "")
                size = int(linked) if linked.isdigit() else size
            if answer.status not in _REDIRECTS:
                break
            answer.close()
            seen.append(here)
            here = _next(here, answer.headers.get("Location"))
            if here in seen or len(seen) > MOST_REDIRECTS:
                raise DownloadFailed(
                    f"{short(seen[0])} redirects in circles ({len(seen)} times, last to {short(here)}). "
                    "Try again later, or with another mirror (HF_ENDPOINT)."
                )
        if answer.status in (200, 206, 416):
            return Answer(answer.status, answer.headers, answer.body, here, sha256, size)
        answer.close()
        raise self._refusal(answer, address)

    def _request(self, address: str, headers: dict[str, str]) -> Answer:
        """Request one address; redirects and refusals are answers, too."""
        parts = urllib.parse.urlsplit(address)
        safe = parts.scheme == "https" or parts.hostname in LOOPBACK
        if self.token and safe and _origin(address) == _origin(self.endpoint):
            headers = {**headers, "Authorization": f"Bearer {self.token}"}
        try:
            body = self._opener.open(urllib.request.Request(address, headers=headers), timeout=self.timeout)
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error, address)
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise DownloadFailed(
                    f"The certificate of {short(address)} is not trusted ({error.reason.verify_message}). Behind a proxy of a "
                    "company, name its certificates in SSL_CERT_FILE."
                ) from error
            raise Interruption(f"{short(address)} cannot be reached ({_reason(error)})") from error
        except TimeoutError as error:
            raise Interruption(f"{short(address)} does not answer") from error
        except (OSError, http.client.HTTPException) as error:
            raise Interruption(f"{short(address)} broke the connection off ({_reason(error)})") from error
        return Answer(body.status, body.headers, body, address)

    def _refusal(self, answer: Answer, address: str) -> Exception:
        """Return the error that a status means."""
        status, host = answer.status, short(answer.address)
        if status in _BUSY:
            wait = _retry_after(answer.headers.get("Retry-After"))
            if wait is not None and wait > LONGEST_WAIT:
                return DownloadFailed(
                    f"{host} asks to wait for {wait:.0f} s (status {status}). Run the same command again then."
                )
            return Interruption(f"{host} is busy (status {status})", wait)
        if status == 408 or status >= 500:
            return Interruption(f"{host} has a fault (status {status})")
        if status in (401, 403):
            if address.startswith(HUGGING_FACE):
                way = "Agree to the terms on the model's page and set HF_TOKEN to a token of your account."
            else:
                way = "Log in and get the file in a browser; if its checksum is known, the next run finds it in your Downloads."
            return DownloadFailed(f"{host} refuses the file (status {status}). {way}")
        if status in (404, 410):
            return DownloadFailed(f"{host} does not have the file (status {status}). Get it from its page in a browser.")
        return DownloadFailed(f"Expected the file from {host}, got status {status}. Get it from its page in a browser.")


def known_token() -> str | None:
    """Return the token for Hugging Face: HF_TOKEN, else the one that huggingface_hub keeps, else None."""
    if token := os.environ.get("HF_TOKEN", "").strip():
        return token
    with contextlib.suppress(Exception):  # a token is optional, and without the package there is none
        return importlib.import_module("huggingface_hub").get_token()
    return None


def short(address: str) -> str:
    """Return an address without its query, which may hold a signature, for messages."""
    parts = urllib.parse.urlsplit(address)
    path = parts.path if len(parts.path) <= 80 else f"{parts.path[:30]}...{parts.path[-40:]}"
    return f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{path}"


def _origin(address: str) -> tuple[str, str | None, int | None]:
    parts = urllib.parse.urlsplit(address)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _next(here: str, location: str | None) -> str:
    """Return the address that a redirect leads to."""
    if not location:
        raise DownloadFailed(f"{short(here)} redirects to no address. Get the file from its page in a browser.")
    there = urllib.parse.urljoin(here, location)
    scheme = urllib.parse.urlsplit(there).scheme
    if scheme not in ("http", "https") or (here.startswith("https:") and scheme == "http"):
        raise DownloadFailed(
            f"{short(here)} redirects to {scheme}://{short(there)}; expected https. Get the file from its page in a browser."
        )
    return urllib.parse.quote(there, safe="%/:=&?~#+!$,;'@()*[]")


def _retry_after(text: str | None) -> float | None:
    """Read the header Retry-After: seconds, or a date."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _certificates() -> ssl.SSLContext:
    """Return the system's certificates, with certifi's where Python was installed without any."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and "SSL_CERT_FILE" not in os.environ:
        with contextlib.suppress(ImportError, OSError):
            context.load_verify_locations(importlib.import_module("certifi").where())
    return context


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason) or type(reason).__name__
