"""A ComfyUI that runs elsewhere, spoken to over HTTP alone: no websocket, no access to its disk."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..tools.comfy import HostLost, PromptRejected, multipart
from .comfy_host import ImageFailed, Made, failure_of, uploaded_name
from .workflow import Workflow, plain_title

PREFIX = "capface"
"""Subfolder of its output folder."""
_POLL = (0.1, 2.0)
"""Seconds between two questions, at first and at most."""
_FORGOTTEN = 5
"""A prompt that is neither queued nor done this many times in succession was lost, for example because ComfyUI started anew."""


class RemoteHost:
    """One ComfyUI at an address."""

    def __init__(self, address: str, patience: float = 600, sleep: Callable[[float], None] = time.sleep):
        """Ask it for its description.

        Args:
            address: `http://HOST:PORT`.
            patience: Seconds for which it may be out of reach.
            sleep: Waits some seconds.

        Raises:
            HostLost: It does not answer, or is no ComfyUI.
        """
        self.address, self.patience, self.sleep = address.rstrip("/"), patience, sleep
        here = urllib.parse.urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")
        self._opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else []))
        self._uploaded: dict[str, str] = {}
        try:
            self.stats = self._json("/system_stats")
        except ImageFailed as error:  # not the image's fault
            raise HostLost(str(error)) from None

    @property
    def environment(self) -> dict[str, Any]:
        """Its software and device."""
        system = self.stats.get("system", {})
        devices = [device.get("name", "").split(" : ")[0] for device in self.stats.get("devices", [])]
        return {"ComfyUI": system.get("comfyui_version", ""), "torch": system.get("pytorch_version", ""), "device": devices}

    def nodes(self) -> dict[str, Any]:
        """Return its description of its nodes, by class."""
        return self._json("/object_info")

    def photo(self, path: Path, content: str) -> str:
        """Upload a photo once, and return its name there.

        Raises:
            ImageFailed: The photo cannot be read, or is refused.
            HostLost: ComfyUI is out of reach.
        """
        if content not in self._uploaded:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise ImageFailed(f"The photo {path} cannot be read ({error.strerror or error})") from None
            body, kind = multipart(data, uploaded_name(path, content))
            answer = self._json("/upload/image", body, kind)
            self._uploaded[content] = "/".join(part for part in (answer.get("subfolder"), answer["name"]) if part)
        return self._uploaded[content]

    def make(self, workflow: Workflow, output: str) -> Made:
        """Make an image.

        Args:
            workflow: In API format.
            output: Id of the node with the image.

        Raises:
            ImageFailed: The prompt was refused, or a node failed.
            HostLost: ComfyUI is out of reach, or has forgotten the prompt.
        """
        start = time.monotonic()
        node = workflow[output]
        if node["class_type"] == "SaveImage":  # with the name of an earlier run, ComfyUI would run nothing and list no image
            node = {**node, "inputs": {**node["inputs"], "filename_prefix": f"{PREFIX}/{uuid.uuid4().hex}"}}
        answer = self._json("/prompt", json.dumps({"prompt": {**workflow, output: node}}).encode())
        if answer.get("node_errors"):  # it runs the other outputs nevertheless
            raise ImageFailed(f"ComfyUI refused the prompt: {_refusal(answer)}")
        record = self._wait(answer["prompt_id"])
        messages = dict(record.get("status", {}).get("messages", []))
        if "execution_success" not in messages:
            raise failure_of(messages.get("execution_error", {"exception_message": "interrupted"}), self.address)
        images = record.get("outputs", {}).get(output, {}).get("images", [])
        if len(images) != 1:
            raise ImageFailed(f"Expected one image of the node with the mark @output, got {len(images)}")
        cached = set(messages.get("execution_cached", {}).get("nodes", []))
        file = self._ask(f"/view?{urllib.parse.urlencode(images[0])}")
        ran = [plain_title(node) for key, node in workflow.items() if key not in cached]
        return Made(file, time.monotonic() - start, ran)

    def place(self, file: Path, folder: str) -> None:
        """Refuse a model file.

        Raises:
            ImageFailed: Always; the folders of a ComfyUI elsewhere cannot be reached.
        """
        raise ImageFailed(f"{file.name} cannot be put into {folder} of the ComfyUI at {self.address}")

    def close(self) -> None:
        """Do nothing: others may use it."""

    def _wait(self, prompt: str) -> dict[str, Any]:
        """Return the record of a prompt as soon as it is done."""
        pause, forgotten = _POLL[0], 0
        while not (record := self._json(f"/history/{prompt}").get(prompt)):
            queue = self._json("/queue")
            waiting = any(prompt in entry for entries in queue.values() for entry in entries)
            forgotten = 0 if waiting else forgotten + 1
            if forgotten >= _FORGOTTEN:
                raise HostLost(f"{self.address} has lost the prompt; it may have started anew.")
            self.sleep(pause)
            pause = min(1.3 * pause, _POLL[1])
        return record

    def _json(self, path: str, body: bytes | None = None, kind: str = "application/json") -> dict[str, Any]:
        answer = self._ask(path, body, kind)
        try:
            return json.loads(answer)
        except ValueError:
            raise ImageFailed(f"{self.address}{path} does not answer as ComfyUI does: {answer[:100]!r}") from None

    def _ask(self, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        """Return an answer; while ComfyUI is out of reach, ask again."""
        start, pause = time.monotonic(), 1.0
        while True:
            try:
                request = urllib.request.Request(self.address + path, body, {"Content-Type": kind} if body else {})
                with self._opener.open(request, timeout=60) as answer:
                    return answer.read()
            except urllib.error.HTTPError as error:
                with error:
                    text = error.read().decode(errors="replace")
                if error.code == 400 and path == "/prompt":
                    raise ImageFailed(f"ComfyUI refused the prompt: {_refusal(json.loads(text))}") from None
                if error.code not in (502, 503, 504):  # a gateway whose ComfyUI is out of reach
                    raise ImageFailed(f"{self.address}{path.partition('?')[0]} answered {error.code}: {text[:500]}") from None
                reason = str(error)
            except (OSError, ValueError) as error:
                reason = str(error)
            if path == "/prompt" or time.monotonic() - start > self.patience:  # a prompt might be queued twice
                raise HostLost(f"{self.address} is out of reach: {reason}")
            self.sleep(pause)
            pause = min(2 * pause, 30.0)


def _refusal(answer: dict[str, Any]) -> str:
    return str(PromptRejected(answer))
