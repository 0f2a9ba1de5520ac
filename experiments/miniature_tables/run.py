"""Makes the miniature, trains the networks of the ablations, and prints the tables.

    python tasks.py miniature --tables 128 --ablations

The options of training/miniature/make.py hold here, too; finished stages are not trained again.
"""

import argparse
import sys

import torch

from ...miniature.networks import HELD_OUT, load_miniature
from ...training.miniature.make import SEEDS, command_line, make_miniature
from ...training.miniature.scenes import processes
from ...training.miniature.train_capface import train_capface
from .tables import ABLATIONS, print_pose_predicted, print_tables

DIVISOR = 4
"""Each network of an ablation continues the trained one for the steps of the stage `capface` divided by this."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line()
    parser.description = __doc__
    parser.add_argument("--tables", type=int, default=0, metavar="N", help="print the tables for N held-out people")
    parser.add_argument("--ablations", action="store_true", help="with --tables: train a network for each ablation as well")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run the study and return the exit status."""
    from accelerate import PartialState

    options = parse(arguments)
    trained = make_miniature(options)
    if not options.tables:
        return 0
    networks = {}
    steps = max(trained.steps["capface"] // DIVISOR, 1)
    for name, conditions in ABLATIONS.items() if options.ablations else ():
        networks[name] = train_capface(
            trained.people, trained.base, options.folder, f"capface-{name}", conditions,
            steps=steps, seed=SEEDS["capface"], rate=1e-3, start=trained.capface,
        )  # fmt: skip
    if PartialState().is_main_process:
        torch.set_num_threads(processes())  # the other processes have ended
        print_pose_predicted(trained.people)
        print_tables(load_miniature(options.out), networks, range(HELD_OUT, HELD_OUT + options.tables))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
