"""The paper's tables in miniature: portraits of people kept from training, by the miniature that comes with the pack, judged.

    python tasks.py bench miniature [--people 32]

Prints the rows that its one network can make; those of networks trained apart come from `tasks.py miniature --tables N
--ablations`.
"""

import argparse

from capface.models.miniature import HELD_OUT, load_miniature
from capface.training.miniature.tables import print_tables

parser = argparse.ArgumentParser()
parser.add_argument("--people", type=int, default=32, help="portraits of each row")
options = parser.parse_args()
print_tables(load_miniature(), {}, range(HELD_OUT, HELD_OUT + options.people))
