"""The paper's tables in miniature: portraits of people kept from training, by the miniature that comes with the pack, judged.

    python tasks.py bench miniature [--people 32]

Prints how fast its pictures are drawn, and the rows that its one network can make; those of networks trained apart come from
`tasks.py miniature --tables N --ablations`.
"""

import argparse
import time

import numpy as np
import torch

from capface.models.miniature import HELD_OUT, load_miniature
from capface.training.miniature.scenes import draw_scenes
from capface.training.miniature.tables import print_tables

VIEWS = 8


def pictures_a_second(people: range) -> float:
    """How many pictures of 128 × 128, with their head maps, one core draws a second."""
    numbers, views = np.repeat(np.array(people), VIEWS), np.tile(np.arange(VIEWS), len(people))
    draw_scenes(numbers[:VIEWS], views[:VIEWS])  # what is made once
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    draw_scenes(numbers[VIEWS:], views[VIEWS:])
    torch.set_num_threads(threads)
    return (len(numbers) - VIEWS) / (time.perf_counter() - begun)


parser = argparse.ArgumentParser()
parser.add_argument("--people", type=int, default=32, help="portraits of each row")
options = parser.parse_args()
print(f"One core draws {pictures_a_second(range(HELD_OUT, HELD_OUT + 17)):.0f} pictures with their head maps a second.\n")
print_tables(load_miniature(), {}, range(HELD_OUT, HELD_OUT + options.people))
