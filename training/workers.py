"""Worker processes that make samples of photos, on this machine or on a cluster; each loads its networks once."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from typing import Any

import torch

from ..errors import BadInput, CapFaceError
from .photo_files import Photo
from .ray_session import RaySession
from .samples import Batch, SampleMaker

WINDOW = 3
"""Largest number of batches per worker that are in progress or waiting to be written."""
MOST_DEATHS = 3
"""A batch during which this many workers of a cluster died ends the run."""
LOCAL = "local"
"""The address of a session of Ray on this machine."""
Task = list[tuple[int, Photo]]
"""A batch of photos, each with its number in the plan."""
Read = Callable[[list[Task]], Iterator[Batch]]


@contextmanager
def read_by(workers: int, settings: tuple[Any, ...], address: str = "") -> Iterator[Read]:
    """Provide a function that maps batches of photos to batches of samples, in order.

    Args:
        workers: Number of worker processes; 0 reads in this process.
        settings: Arguments of `SampleMaker`, the device last.
        address: HOST:PORT of a cluster of Ray, or `LOCAL`; "" uses processes of this machine without Ray.

    Raises:
        MissingPackage: Ray is not installed.
        BadInput: The cluster has too few GPUs, or a batch's workers died.
    """
    if address:
        cpu = torch.device(settings[-1]).type == "cpu"
        with RaySession(max(1, workers), "" if address == LOCAL else address, cpu) as session:
            yield lambda tasks: _read_on_ray(session, settings, tasks)
        return
    if not workers:
        maker = SampleMaker(*settings)
        yield lambda tasks: map(maker.read, tasks)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (settings,)) as pool:

        def read(tasks: list[Task]) -> Iterator[Batch]:
            waiting: deque[Future[Batch]] = deque()
            for task in tasks:
                waiting.append(pool.submit(_read, task))
                if len(waiting) >= WINDOW * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        try:
            yield read
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_maker: SampleMaker | None = None
"""The networks of a worker process."""


def _begin(settings: tuple[Any, ...]) -> None:
    """Load the networks of a worker process, which uses one core and ends when its parent process ends."""
    global _maker
    parent = parent_process()
    assert parent is not None, "this runs in a worker process"
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    torch.set_num_threads(1)
    _maker = SampleMaker(*settings)


def _end_with(sentinel: int) -> None:
    """Wait for a process to end, then end this one."""
    connection.wait([sentinel])
    os._exit(1)


def _read(task: Task) -> Batch:
    assert _maker is not None, "_begin was run first"
    return _maker.read(task)


class RemoteMaker:
    """A worker in a process of Ray."""

    def __init__(self, settings: tuple[Any, ...]):
        """Prepare the worker; its networks are loaded with the first batch."""
        self.settings = settings
        self.maker: SampleMaker | None = None

    def read(self, task: Task) -> Batch | CapFaceError:
        """Read a batch of photos. Errors are data: Ray wraps those that are raised."""
        try:
            if self.maker is None:
                torch.set_num_threads(1)
                self.maker = SampleMaker(*self.settings)
            return self.maker.read(task)
        except CapFaceError as error:
            return error


def _read_on_ray(session: RaySession, settings: tuple[Any, ...], tasks: list[Task]) -> Iterator[Batch]:
    """Yield the tasks' batches in order. The batch of a worker that died is read by another one."""
    free = [session.actor(RemoteMaker, settings) for _ in range(min(session.workers, len(tasks)))]
    waiting = deque(range(len(tasks)))
    held: dict[Any, tuple[Any, int]] = {}  # by Ray's reference: the worker, and the number of its task
    read: dict[int, Batch] = {}
    deaths = [0] * len(tasks)
    for number in range(len(tasks)):
        while number not in read:
            while free and waiting and waiting[0] < number + WINDOW * session.workers:
                worker, task = free.pop(), waiting.popleft()
                held[worker.read.remote(tasks[task])] = worker, task
            for reference in session.ray.wait(list(held), num_returns=1)[0]:
                worker, task = held.pop(reference)
                try:
                    answer = session.ray.get(reference)
                except session.ray.exceptions.RayActorError as error:
                    deaths[task] += 1
                    if deaths[task] == MOST_DEATHS:
                        first = tasks[task][0][1].source
                        raise BadInput(f"{MOST_DEATHS} workers died in the batch that begins with {first}: {error}") from None
                    waiting.appendleft(task)
                    free.append(session.actor(RemoteMaker, settings))
                    continue
                if isinstance(answer, CapFaceError):
                    raise answer
                read[task] = answer
                free.append(worker)
        yield read.pop(number)
