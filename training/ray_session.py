"""A session of Ray: on this machine, or on a cluster. Ray gives processes by resource, and says which of them died."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from ..errors import BadInput, MissingPackage

STORE = 512 * 2**20
"""Bytes of shared memory for results on their way to the driver."""
_LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name, keeps all of Ray's ports on 127.0.0.1, on Linux as well
    "RAY_worker_niceness": "0",  # else workers and their ComfyUI run at nice 15
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Settings that Ray reads when it is imported."""
Session = TypeVar("Session", bound="RaySession")


def import_ray() -> Any:
    """Import Ray with the settings that it reads at that moment.

    Raises:
        MissingPackage: It is not installed.
    """
    for name, value in _LOCAL.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise MissingPackage(
            "Workers of Ray need it. Run: pip install ray, or use processes of this machine without it."
        ) from None
    return ray


class RaySession:
    """A session of Ray; a context manager.

    Attributes:
        ray: The module.
    """

    def __init__(self, workers: int, address: str, cpu: bool):
        """Choose where to run.

        Args:
            workers: How many workers.
            address: HOST:PORT of a running cluster; "" starts a session of its own on this machine.
            cpu: Whether workers need no GPU.
        """
        self.workers, self.address, self.cpu = workers, address, cpu
        self.ray = import_ray()

    def __enter__(self: Session) -> Session:
        common: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
        if self.address:
            self.ray.init(address=self.address, **common)
            gpus = int(self.ray.cluster_resources().get("GPU", 0))
            if not self.cpu and self.workers > gpus:
                self.ray.shutdown()
                raise BadInput(f"The cluster at {self.address} has {gpus} GPUs, fewer than {self.workers} workers need.")
            return self
        # sockets in this folder may have names of at most 107 characters
        self._temporary = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        self.ray.init(
            num_cpus=self.workers, num_gpus=0, include_dashboard=False, object_store_memory=STORE,
            _temp_dir=self._temporary.name, **common,
        )  # fmt: skip
        if found := sorted(open_ports(os.getpid())):
            self.__exit__()
            raise BadInput(
                f"Ray listens on {', '.join(found)}, which other machines can reach. This run was stopped. Use one worker, or "
                "the version of Ray in iphc/requirements.txt, and do not import it before."
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.ray.shutdown()
        if not self.address:
            self._temporary.cleanup()

    def actor(self, kind: type, *arguments: Any) -> Any:
        """Start an actor with one core, on a cluster also with one GPU unless workers need none; return Ray's handle of it."""
        options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0, "num_cpus": 1}
        if self.address and not self.cpu:
            options["num_gpus"] = 1
        return self.ray.remote(kind).options(**options).remote(*arguments)


def open_ports(pid: int) -> set[str]:
    """Return the addresses beyond loopback on which a process and its descendants listen, as `ADDRESS:PORT` (Linux only)."""
    if sys.platform != "linux":
        return set()
    inodes = {inode for one in family(pid) for inode in _sockets(one)}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state, inode = (line.split()[i] for i in (1, 3, 9))
            address, _, port = local.partition(":")
            loopback = address.endswith("7F") if table == "tcp" else address in (_V6, _V4_IN_V6)
            if state == "0A" and inode in inodes and not loopback:
                found.add(f"{address}:{int(port, 16)}")
    return found


_V6, _V4_IN_V6 = "0" * 24 + "01000000", "0" * 16 + "FFFF0000" + "0100007F"
"""::1 and ::ffff:127.0.0.1 as the kernel writes them."""


def family(pid: int) -> Iterator[int]:
    """Yield a process and all its descendants (Linux only)."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    yield from found


def _sockets(pid: int) -> Iterator[str]:
    """Yield the inodes of a process's sockets."""
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = str(link.readlink())
            if target.startswith("socket:["):
                yield target[8:-1]
    except OSError:
        return
