"""A ComfyUI to test against: finding one, running it as a process with this pack, and a client of its HTTP interface.

The module's top level needs only the standard library, because `tasks.py` looks for a ComfyUI before an environment exists.
"""

import contextlib
import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

PACK = Path(__file__).resolve().parent.parent
FOLDER = "my capface-1.0 (copy)"
"""The pack's folder name inside the process, with spaces, dots and brackets, like a user's second download."""
NOT_COPIED = (".git", ".venvs", "output", "__pycache__", ".pytest_cache", ".ruff_cache")
START_SECONDS = 180
TETHER = PACK / "tools" / "tether.py"
_DEATH_SECONDS = 10
"""How long a process whose connection broke may take to end. The system closes its sockets before it can be waited for."""
_LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ComfyError(Exception):
    """The host did not start, died, or refused something for a reason other than an invalid prompt."""


class HostLost(ComfyError):
    """The host's process has ended, or no longer answers."""


class PromptRejected(ComfyError):
    """The host refused a prompt before running it.

    `node_errors` is the host's own dictionary: node id -> {"errors": [{"message", "details", ...}], ...}.
    """

    def __init__(self, answer):
        self.answer = answer
        self.error, self.node_errors = answer.get("error", {}), answer.get("node_errors", {})
        lines = [self.error.get("message", "some outputs are invalid") if isinstance(self.error, dict) else str(self.error)]
        for node, found in self.node_errors.items():
            for e in found["errors"]:
                lines.append(f"  node {node} ({found['class_type']}): {e['message']}: {e['details']}")
        super().__init__("\n".join(lines))

    def __reduce__(self):
        return type(self), (self.answer,)


def is_host(folder):
    """Return whether `folder` holds ComfyUI's sources."""
    return all((Path(folder) / name).is_file() for name in ("main.py", "folder_paths.py", "comfyui_version.py"))


def find_host(asked=None, *, pack=PACK):
    """Find a ComfyUI.

    Looks at `asked` (the command line's --comfyui), at COMFYUI_PATH, around the pack (…/ComfyUI/custom_nodes/<pack>), and
    where comfy-cli puts it (~/comfy/ComfyUI), in this order.

    Returns:
        The folder with `main.py`, or None if no ComfyUI is found.

    Raises:
        ComfyError: An explicitly named folder does not hold a ComfyUI.
    """
    for folder, where in ((asked, "--comfyui"), (os.environ.get("COMFYUI_PATH"), "COMFYUI_PATH")):
        if folder:
            path = Path(folder).expanduser().resolve()
            if not is_host(path):
                raise ComfyError(f"{where} names {path}, but there is no ComfyUI in it (expected its main.py there)")
            return path
    # Also try the shell's own path: the pack in custom_nodes may be a link to a checkout elsewhere.
    for place in (Path(pack).resolve(), Path(os.environ.get("PWD", pack))):
        if place.parent.name == "custom_nodes" and is_host(place.parent.parent):
            return place.parent.parent
    default = Path.home() / "comfy" / "ComfyUI"
    return default if is_host(default) else None


def host_version(comfyui):
    """Return the version that a ComfyUI folder states, such as "0.8.0"."""
    text = (Path(comfyui) / "comfyui_version.py").read_text(encoding="utf-8")
    return text.partition("__version__ =")[2].strip().strip("\"'") or "of unknown version"


def find_frontend(asked=None):
    """Find the frontend to serve instead of the installed one: `asked`, or the folder named by CAPFACE_FRONTEND.

    Returns:
        The folder with its `index.html`, or None for the installed one.

    Raises:
        ComfyError: The folder does not hold a frontend.
    """
    asked = asked or os.environ.get("CAPFACE_FRONTEND")
    if not asked:
        return None
    path = Path(asked).expanduser().resolve()
    if not (path / "index.html").is_file():
        raise ComfyError(f"the frontend's folder is {path}, but there is no index.html in it")
    return path


def frontend_version(folder=None):
    """Return the version of the frontend package that `folder` (its `static`) belongs to, or of the installed one.

    Returns:
        Such as "1.35.9"; None if no frontend is installed or its version is unknown.
    """
    # An installed package, and one unpacked with `pip install --target`, both keep their metadata beside the package's folder.
    places = [str(Path(folder).parent.parent)] if folder else sys.path
    found = importlib.metadata.distributions(name="comfyui_frontend_package", path=places)
    return next((one.version for one in found), None)


def import_host(comfyui, base, *, cpu=True):
    """Make ComfyUI's modules importable in this process (`import comfy.sd`, …).

    Args:
        comfyui: ComfyUI's folder.
        base: Folder for the host's own files, whose `models` the host searches; nothing is written to it here.
        cpu: Run on the CPU even if there is a GPU.

    Returns:
        The host's modules `nodes` and `folder_paths`.
    """
    argv, sys.argv = sys.argv, ["main.py", *(["--cpu"] if cpu else []), "--base-directory", str(base), "--disable-api-nodes"]
    sys.path.insert(0, str(comfyui))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings from the host's own imports are not ours to fix
            import comfy.options

            comfy.options.enable_args_parsing()
            import folder_paths
            import utils.extra_config  # noqa: F401  before nodes, which puts a folder with another `utils` on sys.path

            import nodes
    finally:
        sys.argv = argv
    return nodes, folder_paths


def place_pack(pack, destination):
    """Place the pack at `destination`, as a link if the system allows it, else as a copy."""
    try:
        destination.symlink_to(pack, target_is_directory=True)
    except OSError:  # Windows without the privilege to create links
        shutil.copytree(pack, destination, ignore=shutil.ignore_patterns(*NOT_COPIED))


def model_folders(*roots):
    """Return the subfolders of folders laid out like ComfyUI's `models`, as `ComfyProcess` takes them; earlier roots win."""
    found = {}
    for root in roots:
        for folder in sorted(p for p in Path(root).iterdir() if p.is_dir()):
            found.setdefault(folder.name, []).append(folder)
    return found


def free_port():
    """Return a free loopback port."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class ComfyProcess:
    """A ComfyUI process with this pack, in a base directory of its own.

    Use it as a context manager; leaving it ends the process and removes the base directory.

    Args:
        comfyui: Folder with ComfyUI's `main.py`.
        models: Kind ("checkpoints", "capface", …) -> folders that the host searches for it, in order.
        pack: The pack's folder.
        python: Interpreter that has ComfyUI's requirements.
        cpu: Run on the CPU even if there is a GPU.
        folder: The pack's folder name in the process. The host serves a pack's web files only if the name needs no quoting in
            a URL.
        frontend: Folder with the frontend's `index.html` (the package's `static`) to use instead of the installed one; by
            default the folder named by CAPFACE_FRONTEND, if set.
        others: Folders of further packs to load.
        arguments: Further arguments of ComfyUI's command line.
        start_seconds: How long the start may take.
        place: Folder for the base directory; by default the system's for temporary files.
        tethered: Whether the process also ends when the thread that started it ends in any way, SIGKILL included (Linux only).

    Attributes:
        base: The base directory (`input`, `output`, `custom_nodes`, …).
        log: The log file, removed with the base directory.
        url: `http://127.0.0.1:<port>`.
    """

    def __init__(
        self, comfyui, models=None, *, pack=PACK, python=sys.executable, cpu=True, folder=FOLDER, frontend=None, others=(),
        arguments=(), start_seconds: float = START_SECONDS, place=None, tethered=False,
    ):  # fmt: skip
        self.frontend, self.others = find_frontend(frontend), [Path(other) for other in others]
        self.comfyui, self.pack, self.folder = Path(comfyui), Path(pack), folder
        self.models, self.python, self.cpu = models or {}, python, cpu
        self.arguments, self.start_seconds, self.place = list(arguments), start_seconds, place
        self.tethered = tethered and sys.platform == "linux"

    def __enter__(self):
        self._temp = tempfile.TemporaryDirectory(prefix="capface-host-", dir=self.place, ignore_cleanup_errors=True)
        try:
            self._start(Path(self._temp.name).resolve())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._temp.cleanup()

    def _start(self, base):
        self.base, self.log = base, base / "comfyui.log"
        for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
            (base / name).mkdir()
        place_pack(self.pack, base / "custom_nodes" / self.folder)
        for other in self.others:
            place_pack(other, base / "custom_nodes" / other.name)
        for folder in self.models.get("insightface", ())[:1]:  # other packs look for it only here
            place_pack(folder, base / "models" / "insightface")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [self.python, str(self.comfyui / "main.py"), "--listen", "127.0.0.1", "--port", str(port),
                   "--base-directory", str(base), "--temp-directory", str(base),
                   "--disable-all-custom-nodes", "--whitelist-custom-nodes", self.folder,
                   *(other.name for other in self.others), "--disable-api-nodes", "--disable-auto-launch",
                   "--database-url", "sqlite:///:memory:"]  # fmt: skip
        if self.cpu:
            command.append("--cpu")
        if self.frontend:
            command += ["--front-end-root", str(self.frontend)]
        if self.models:
            command += ["--extra-model-paths-config", str(self._model_paths())]
        command += self.arguments
        if self.tethered:
            command = [sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), *command]
        environment = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONIOENCODING="utf-8", HF_HUB_OFFLINE="1")
        environment.pop("PYTHONSAFEPATH", None)  # tasks.py sets it; ComfyUI imports the modules beside its main.py
        environment.setdefault(
            "OMP_WAIT_POLICY", "PASSIVE"
        )  # threads that spin while waiting make a busy machine ten times slower
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=base, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self._wait_until_ready()
        if f"(IMPORT FAILED): {base / 'custom_nodes' / self.folder}" in self.log_text():
            raise ComfyError(f"ComfyUI could not import the pack:\n{self.log_tail(60)}")

    def _model_paths(self):
        """Write the extra_model_paths file for `models`; JSON is valid YAML."""
        paths = {"capface_tools": {kind: "\n".join(map(str, folders)) for kind, folders in self.models.items()}}
        file = self.base / "model_paths.yaml"
        file.write_text(json.dumps(paths), encoding="utf-8")
        return file

    def _wait_until_ready(self):
        start = time.monotonic()
        while time.monotonic() - start < self.start_seconds:
            self.check_alive()
            with contextlib.suppress(OSError):
                request(f"{self.url}/system_stats", timeout=5)
                return
            time.sleep(0.2)
        raise ComfyError(f"ComfyUI did not answer within {self.start_seconds} s. Its log ends with:\n{self.log_tail()}")

    def check_alive(self):
        """Raise HostLost with the end of the log if the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise HostLost(f"ComfyUI ended by itself with status {code}. Its log ends with:\n{self.log_tail()}")

    def await_death(self) -> NoReturn:
        """Raise HostLost, once the process has ended or some seconds have passed; for use after a lost connection."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_DEATH_SECONDS)
        self.check_alive()
        raise HostLost(f"The connection to ComfyUI broke. Its log ends with:\n{self.log_tail()}")

    @property
    def pid(self):
        """The process's id."""
        return self._process.pid

    def log_text(self):
        """Return everything that the process has logged so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def log_tail(self, lines=30):
        """Return the last lines of the log."""
        return "\n".join(self.log_text().splitlines()[-lines:])


def request(url, body=None, *, content_type="application/json", timeout=60):
    """GET `url`, or POST `body` (bytes) to it, bypassing proxies. Returns the bytes of the response."""
    headers = {"Content-Type": content_type} if body is not None else {}
    with _LOOPBACK.open(urllib.request.Request(url, body, headers), timeout=timeout) as answer:
        return answer.read()


def multipart(data, name):
    """Return the body of a request that uploads an image file's bytes as `name`, replacing such a file, and its type."""
    edge = uuid.uuid4().hex
    parts = [
        f'--{edge}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'.encode(),
        f'--{edge}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        f"Content-Type: application/octet-stream\r\n\r\n".encode(),
        data,
        f"\r\n--{edge}--\r\n".encode(),
    ]
    return b"".join(parts), f"multipart/form-data; boundary={edge}"


@dataclass
class Run:
    """The events and results of one prompt, from the host's websocket."""

    prompt_id: str
    status: str = "running"
    """`success`, `error` or `interrupted` once the prompt has ended."""
    events: list = field(default_factory=list)
    """All messages about this prompt, `(type, data)`."""
    error: dict = field(default_factory=dict)
    """The host's `execution_error`: node_type, exception_type, exception_message, traceback."""
    outputs: dict = field(default_factory=dict)
    """Node id -> the node's UI output, such as {"images": [{"filename", "subfolder", "type"}]}."""

    def progress(self, node):
        """Return the progress events of one node as `(value, max)`."""
        return [(data["value"], data["max"]) for kind, data in self.events if kind == "progress" and data["node"] == node]

    @property
    def cached(self):
        """Return the ids of the nodes whose results came from the cache."""
        return {node for kind, data in self.events if kind == "execution_cached" for node in data["nodes"]}


class ComfyClient:
    """A small synchronous client of a `ComfyProcess`; a context manager."""

    def __init__(self, process):
        self.process = process
        self.id = uuid.uuid4().hex

    def __enter__(self):
        import websocket

        address = f"{self.process.url.replace('http', 'ws', 1)}/ws?clientId={self.id}"
        self._socket = websocket.create_connection(address, timeout=1, http_no_proxy=["127.0.0.1"])
        return self

    def __exit__(self, *_):
        self._socket.close()

    def _call(self, path, body=None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        answer = request(f"{self.process.url}/{path}", data)
        return json.loads(answer) if answer else None

    def system_stats(self):
        """Return the host's description of its versions and devices."""
        return self._call("system_stats")

    def object_info(self, node=None):
        """Return the host's description of one node, or of all."""
        return self._call(f"object_info/{node}" if node else "object_info")

    def history(self, prompt_id):
        """Return the host's record of one prompt, or {}."""
        return self._call(f"history/{prompt_id}").get(prompt_id, {})

    def upload_image(self, data, name):
        """Upload an image file's bytes to the host's input folder as `name`. Returns the name for LoadImage."""
        body, kind = multipart(data, name)
        return json.loads(request(f"{self.process.url}/upload/image", body, content_type=kind))["name"]

    def queue(self, prompt, *, partly=True):
        """Queue a prompt in API format, and return its id.

        Args:
            prompt: The prompt.
            partly: Whether it is enough that the host takes some of its outputs. It runs those in any case.

        Raises:
            PromptRejected: The host found the prompt invalid.
        """
        try:
            answer = self._call("prompt", {"prompt": prompt, "client_id": self.id})
            if answer.get("node_errors") and not partly:
                raise PromptRejected(answer)
            return answer["prompt_id"]
        except urllib.error.HTTPError as e:
            with e:
                answer = e.read().decode(errors="replace")
            if e.code != 400:
                raise ComfyError(f"ComfyUI answered {e.code} to the prompt:\n{answer}") from None
            raise PromptRejected(json.loads(answer)) from None

    def wait(self, prompt_id, *, on_event=None, timeout: float | None = 600, silence: float | None = None):
        """Wait until a prompt has ended.

        Args:
            prompt_id: From `queue`.
            on_event: Called with `(type, data)` for each message about this prompt while it runs.
            timeout: Seconds after which ComfyError is raised; None waits for ever.
            silence: Seconds without a message about this prompt after which HostLost is raised; None takes any silence.

        Returns:
            The finished `Run`. The error of a failed node is in its `error` and is not raised.

        Raises:
            HostLost: The process ended, its connection broke, or it was silent for too long.
        """
        import websocket

        run, start = Run(prompt_id), time.monotonic()
        heard = start
        while run.status == "running":
            if silence is not None and time.monotonic() - heard > silence:
                raise HostLost(f"ComfyUI was silent for {silence:g} s. Its log ends with:\n{self.process.log_tail()}")
            if timeout is not None and time.monotonic() - start > timeout:
                raise ComfyError(f"the prompt did not finish in {timeout} s; the log ends with\n{self.process.log_tail()}")
            try:
                message = self._socket.recv()
            except websocket.WebSocketTimeoutException:
                self.process.check_alive()
                continue
            except (websocket.WebSocketException, OSError):
                self.process.await_death()
                raise
            if not isinstance(message, str):  # preview images
                continue
            message = json.loads(message)
            kind, data = message["type"], message.get("data", {})
            if data.get("prompt_id") != prompt_id:
                continue
            heard = time.monotonic()
            run.events.append((kind, data))
            if kind == "executed":
                run.outputs[data["node"]] = data["output"] or {}
            elif kind == "execution_error":
                run.status, run.error = "error", data
            elif kind in ("execution_success", "execution_interrupted"):
                run.status = kind.removeprefix("execution_")
            if on_event is not None:
                on_event(kind, data)
        return run

    def run(self, prompt, **options):
        """Queue a prompt and `wait` for it."""
        return self.wait(self.queue(prompt), **options)

    def make(self, prompt, class_type="SaveImage", **options):
        """`run` a prompt, and raise if it fails.

        Returns:
            The `Run`, and the files (bytes) of all images that the prompt's only node of this class saved or showed.

        Raises:
            ComfyError: A node failed.
        """
        run = self.run(prompt, **options)
        if run.status != "success":
            raise ComfyError(f"{run.error.get('node_type')}: {run.error.get('exception_message')}")
        (node,) = (key for key, node in prompt.items() if node["class_type"] == class_type)
        return run, [self.fetch(image) for image in run.outputs[node]["images"]]

    def interrupt(self):
        """Interrupt the running prompt."""
        self._call("interrupt", {})

    def fetch(self, image):
        """Return the bytes of an image, a `{"filename", "subfolder", "type"}` of `Run.outputs`."""
        return request(f"{self.process.url}/view?{urllib.parse.urlencode(image)}")
