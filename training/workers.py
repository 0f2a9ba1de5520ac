"""Worker processes that make samples of photos; each loads its networks once."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from typing import Any

import torch

from .photo_files import Photo
from .samples import Batch, SampleMaker

WINDOW = 3
"""Largest number of batches per worker that are in progress or waiting to be written."""
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
