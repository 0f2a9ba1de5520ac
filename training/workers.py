"""Processes that read photos, each with networks that it has loaded once."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process

import torch

from .photo_files import Photo
from .samples import Batch, SampleMaker

WINDOW = 3
"""Batches for each worker that are under way or waiting to be written."""
Task = list[tuple[int, Photo]]


@contextmanager
def read_by(workers: int, settings: tuple) -> Iterator[Callable[[list[Task]], Iterator[Batch]]]:
    """A function that reads batches of photos and yields what was made of each, in their order.

    Args:
        workers: How many processes; 0 for this one alone.
        settings: What `SampleMaker` takes.
    """
    if not workers:
        reader = SampleMaker(*settings)
        yield lambda tasks: map(reader.read, tasks)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (settings,)) as pool:

        def read(tasks):
            waiting = deque()
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


_reader: SampleMaker | None = None
"""Of a worker process."""


def _begin(settings: tuple) -> None:
    """Load the networks of a worker process, on one core, to live no longer than the process that started it."""
    global _reader
    parent = parent_process()
    assert parent is not None, "this runs in a worker process"
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    torch.set_num_threads(1)
    _reader = SampleMaker(*settings)


def _end_with(sentinel) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _read(task: Task) -> Batch:
    assert _reader is not None, "_begin was run first"
    return _reader.read(task)
