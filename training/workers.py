"""Worker processes that make samples of photos, on this machine or on a Ray cluster; each loads its networks once."""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from typing import Any

import torch

from ..errors import BadInput, MissingPackage
from .photo_files import Photo
from .samples import Batch, SampleMaker

WINDOW = 3
"""Largest number of batches per worker that are in progress or waiting to be written."""
MOST_DEATHS = 2
"""A batch during which this many workers of a cluster died is not tried again."""
Task = list[tuple[int, Photo]]
"""A batch of photos, each with its number in the plan."""


@contextmanager
def read_by(workers: int, settings: tuple[Any, ...]) -> Iterator[Callable[[list[Task]], Iterator[Batch]]]:
    """Provide a function that maps batches of photos to batches of samples, in order.

    Args:
        workers: Number of worker processes; 0 reads in this process.
        settings: Arguments of `SampleMaker`.
    """
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


@contextmanager
def read_on_cluster(
    address: str, workers: int, settings: tuple[Any, ...], on_gpu: bool = False
) -> Iterator[Callable[[list[Task]], Iterator[Batch]]]:
    """Provide the function of `read_by`, with workers on a Ray cluster.

    Args:
        address: `HOST:PORT` of the cluster. Its machines need photos and files at the same paths, and this checkout.
        workers: Number of worker processes.
        settings: Arguments of `SampleMaker`.
        on_gpu: Whether each worker needs a GPU.

    Raises:
        MissingPackage: Ray is not installed.
        BadInput: A batch ended `MOST_DEATHS` workers.
    """
    with _connected(address) as ray:
        reader = ray.remote(_Reader).options(num_cpus=1, num_gpus=int(on_gpu), max_restarts=0, max_task_retries=0)
        actors = {reader.remote(settings) for _ in range(max(workers, 1))}

        def read(tasks: list[Task]) -> Iterator[Batch]:
            free, busy = list(actors), {}
            todo, done = deque(range(len(tasks))), {}
            deaths: Counter[int] = Counter()
            for wanted in range(len(tasks)):
                while wanted not in done:
                    while free and todo and todo[0] < wanted + WINDOW * len(actors):
                        actor, number = free.pop(), todo.popleft()
                        busy[actor.read.remote(tasks[number])] = actor, number
                    (ended,), _ = ray.wait(list(busy), num_returns=1)
                    actor, number = busy.pop(ended)
                    try:
                        done[number] = ray.get(ended)
                    except ray.exceptions.RayActorError as error:
                        deaths[number] += 1
                        if deaths[number] >= MOST_DEATHS:
                            photos = ", ".join(photo.source for _, photo in tasks[number])
                            raise BadInput(
                                f"{MOST_DEATHS} workers ended while they read {photos}. Memory may have run out: use a smaller "
                                f"--batch, or remove the photos. {error}"
                            ) from None
                        todo.appendleft(number)
                        actors.discard(actor)
                        actor = reader.remote(settings)
                        actors.add(actor)
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause from None
                    free.append(actor)
                yield done.pop(wanted)

        yield read


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Connect to a Ray cluster, and provide the module."""
    try:
        import ray
    except ImportError:
        raise MissingPackage("A cluster needs Ray. Run: pip install ray, or leave --address out.") from None
    ray.init(address=address, configure_logging=False, log_to_driver=False)
    try:
        yield ray
    finally:
        ray.shutdown()


class _Reader:
    """A worker of a cluster. What goes wrong at its start is raised by `read`, which says so in the error's own words."""

    def __init__(self, settings: tuple[Any, ...]):
        self.settings = settings
        self.maker: SampleMaker | None = None

    def read(self, task: Task) -> Batch:
        if self.maker is None:
            torch.set_num_threads(1)
            self.maker = SampleMaker(*self.settings)
        return self.maker.read(task)


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
