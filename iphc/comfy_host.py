"""A ComfyUI process that makes one image at a time for a worker, and the ways in which that fails."""

import errno
import http.client
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..tools.comfy import ComfyClient, ComfyError, ComfyProcess, HostLost, PromptRejected, host_version, model_folders
from .workflow import Workflow, plain_title

_FULL = ("No space left on device", "Errno 28", "Disk quota exceeded")


class ImageFailed(Exception):
    """An image cannot be made, and would fail again: its prompt was refused, or a node raised an error."""


class RunStopped(Exception):
    """The run cannot go on. Units that are written are kept."""


@dataclass(frozen=True)
class HostSettings:
    """How to start ComfyUI; sent to workers."""

    comfyui: str
    """Folder with ComfyUI's main.py."""
    models: tuple[str, ...] = ()
    """Folders laid out like ComfyUI's `models`."""
    packs: tuple[str, ...] = ()
    """Folders of further node packs."""
    cpu: bool = False
    device: str = ""
    """Number of the GPU, or "" for ComfyUI's choice."""
    start_seconds: float = 600
    silence: float = 600
    """Seconds without a message from ComfyUI after which it counts as hanging."""


@dataclass(frozen=True)
class Made:
    """One image from ComfyUI."""

    file: bytes
    seconds: float
    ran: list[str] = field(default_factory=list)
    """Titles of the nodes that ran."""


class ComfyHost:
    """One ComfyUI process. It listens on 127.0.0.1 only, and ends with the thread that started it."""

    def __init__(self, settings: HostSettings):
        """Start ComfyUI.

        Raises:
            HostLost: It did not start.
        """
        self.settings, self._uploaded = settings, set()
        self._placed: tuple[Path, Path] | None = None
        arguments = ["--disable-metadata", *(["--cuda-device", settings.device] if settings.device else [])]
        self.process = ComfyProcess(
            settings.comfyui, model_folders(*settings.models), others=settings.packs, cpu=settings.cpu, arguments=arguments,
            start_seconds=settings.start_seconds, tethered=True, folder="capface",
        )  # fmt: skip
        try:
            self.process.__enter__()
        except ComfyError as error:
            raise HostLost(str(error)) from None
        except OSError as error:
            raise RunStopped(f"ComfyUI cannot be started: {error}") from None
        try:
            self.client = ComfyClient(self.process).__enter__()
            self.stats: dict[str, Any] = self._ask(lambda: self.client.system_stats())
        except BaseException as error:
            self.process.__exit__()
            if isinstance(error, OSError | http.client.HTTPException):
                raise HostLost(f"ComfyUI broke off while it started: {error}") from None
            raise

    def close(self) -> None:
        """End the process. It may be dead or hang."""
        try:
            self.client.__exit__()
        except Exception:  # the connection is being given up in any state
            pass
        finally:
            self.process.__exit__()

    @property
    def environment(self) -> dict[str, Any]:
        """The software and device that decide images beside the manifest."""
        system = self.stats.get("system", {})
        return {
            "ComfyUI": system.get("comfyui_version") or host_version(self.settings.comfyui),
            "Python": system.get("python_version", "").split(" ")[0],
            "torch": system.get("pytorch_version", ""),
            "device": [device.get("name", "").split(" : ")[0] for device in self.stats.get("devices", [])],
            "packs": sorted(Path(pack).name for pack in self.settings.packs),
        }

    def nodes(self) -> dict[str, Any]:
        """Return ComfyUI's description of its nodes, by class.

        Raises:
            HostLost: The process ended or hangs.
        """
        return self._ask(lambda: self.client.object_info())

    def photo(self, path: Path, content: str) -> str:
        """Return the name of a photo in the host's input folder, and upload it if it is not there.

        Args:
            path: The photo.
            content: Its SHA-256.

        Raises:
            ImageFailed: The photo cannot be read.
            HostLost: The process ended or hangs.
        """
        name = uploaded_name(path, content)
        if name not in self._uploaded:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise ImageFailed(f"The photo {path} cannot be read ({error.strerror or error})") from None
            self._ask(lambda: self.client.upload_image(data, name))
            self._uploaded.add(name)
        return name

    def place(self, file: Path, folder: str) -> None:
        """Copy a model file into the process's own folder of models, if it is not there, in place of the last one.

        Args:
            file: The file.
            folder: Kind of model, such as "loras".

        Raises:
            RunStopped: The disk is full, or cannot be written to.
        """
        kind = self.process.base / "models" / folder
        target = kind / file.name
        if self._placed == (target, file):
            return
        try:
            if self._placed is not None:
                self._placed[0].unlink(missing_ok=True)
            kind.mkdir(exist_ok=True)
            try:
                os.link(file, target)
            except OSError:  # on another disk, or one without links
                shutil.copyfile(file, target)
        except OSError as error:
            raise RunStopped(f"{target} cannot be written: {error.strerror or error}") from None
        self._placed = target, file

    def make(self, workflow: Workflow, output: str) -> Made:
        """Make an image.

        Args:
            workflow: In API format.
            output: Id of the node with the image.

        Returns:
            The image, whose file is removed from the host's output folder.

        Raises:
            ImageFailed: The prompt was refused, or a node failed.
            HostLost: The process ended or hangs.
            RunStopped: ComfyUI's disk is full.
        """
        start = time.monotonic()
        try:
            number = self._ask(lambda: self.client.queue(workflow, partly=False))
            run = self._ask(lambda: self.client.wait(number, timeout=None, silence=self.settings.silence))
        except PromptRejected as error:
            raise ImageFailed(f"ComfyUI refused the prompt: {error}") from None
        except HostLost:
            raise
        except ComfyError as error:
            raise ImageFailed(str(error)) from None
        if run.status != "success":
            raise failure_of({"exception_message": run.status, **run.error}, str(self.process.base))
        images = run.outputs.get(output, {}).get("images", [])
        if len(images) != 1:
            raise ImageFailed(f"Expected one image of the node with the mark @output, got {len(images)}")
        (image,) = images
        file = self.process.base / image["type"] / image["subfolder"] / image["filename"]
        content = file.read_bytes()
        file.unlink()
        began = {data["node"] for kind, data in run.events if kind == "executing" and data.get("node")} - run.cached
        ran = [plain_title(node) for key, node in workflow.items() if key in began]
        return Made(content, time.monotonic() - start, ran)

    def _ask(self, question: Any) -> Any:
        """Call the host; a broken connection is a lost host."""
        import websocket

        try:
            return question()
        except OSError as error:
            if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
                raise RunStopped(f"The disk of {self.process.base} is full") from None
            self.process.await_death()
        except (http.client.HTTPException, websocket.WebSocketException):
            self.process.await_death()


def uploaded_name(path: Path, content: str) -> str:
    """Return the name that a photo gets in ComfyUI's input folder, by its SHA-256."""
    return f"capface-{content}{path.suffix.lower()}"


def failure_of(error: dict[str, Any], place: str) -> Exception:
    """Return the exception for ComfyUI's `execution_error`.

    Args:
        error: ComfyUI's message.
        place: Where its disk is.
    """
    message = str(error.get("exception_message", "failed")).strip()
    if any(text in message for text in _FULL):
        return RunStopped(f"The disk of {place} is full: {message}")
    return ImageFailed(f"{error.get('node_type', 'ComfyUI')}: {message}")


def pack_content(pack: Path) -> str:
    """Return a hash of what of this pack decides images: its Python files and networks."""
    import hashlib

    content = hashlib.sha256()
    folders: Sequence[str] = ("nodes", "host", "photos", "miniature", "models", "flame", "files")
    files = [path for name in folders for ending in ("py", "npz", "safetensors") for path in (pack / name).rglob(f"*.{ending}")]
    for path in sorted([*files, *pack.glob("*.py")], key=os.fspath):
        if path.name != "tasks.py":
            content.update(path.relative_to(pack).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()[:16]
