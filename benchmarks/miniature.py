"""The paper's tables in miniature: metrics of portraits that the packaged miniature makes of people held out from training.

    python tasks.py bench miniature [--people 32]

Prints how fast people are drawn, how fast drawn people are rendered again with other lights, shirts and backgrounds, and the
table rows that the packaged network can produce. Rows of separately trained networks come from `tasks.py miniature --tables N
--ablations`.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from capface.experiments.miniature_tables.tables import print_tables
from capface.miniature.networks import HELD_OUT, load_miniature
from capface.training.miniature.scenes import Appearances, SceneSet, render_scenes

VIEWS = 8
BATCH, ROUNDS = 64, 32


def a_second(work: Callable[[], int]) -> float:
    """Return the amount of work per second on one core, as counted by `work`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    count = work()
    seconds = time.perf_counter() - begun
    torch.set_num_threads(threads)
    return count / seconds


def print_rates(people: range) -> None:
    """Print how many pictures of 128 × 128 a core draws a second, with their head maps, and relights in other appearances."""
    numbers, views = np.repeat(np.array(people), VIEWS), np.tile(np.arange(VIEWS), len(people))
    render_scenes(numbers[:VIEWS], views[:VIEWS])  # made once
    drawn = a_second(lambda: len(render_scenes(numbers[VIEWS:], views[VIEWS:])[0]))

    with TemporaryDirectory() as folder:
        scenes, appearances, generator = SceneSet(Path(folder), people[:2], VIEWS), Appearances(64, 64, 0), torch.Generator()

        def relight() -> int:
            for _ in range(ROUNDS):
                rows = torch.randint(len(scenes), (BATCH,), generator=generator)
                scenes.relight(rows, appearances, *appearances.choose(BATCH, generator))
            return ROUNDS * BATCH

        relit = a_second(relight)
    print(f"One core draws {drawn:.0f} pictures with their head maps a second,")
    print(f"and renders {relit:.0f} a second of drawn ones in other lights, shirts and places.\n")


parser = argparse.ArgumentParser()
parser.add_argument("--people", type=int, default=32, help="portraits of each row")
options = parser.parse_args()
print_rates(range(HELD_OUT, HELD_OUT + 17))
print_tables(load_miniature(), {}, range(HELD_OUT, HELD_OUT + options.people))
