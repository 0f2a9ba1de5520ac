"""What the commands that train have in common: where they compute, and what they say at the end."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ..errors import CapFaceError

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Types of the frozen networks by mixed precision."""


def add_computing_options(parser: "argparse._ArgumentGroup") -> None:
    """Add --precision, --recompute and --cpu."""
    parser.add_argument("--precision", choices=("no", *HALVES), help="mixed precision (default: bf16 if the GPU has it)")
    parser.add_argument("--recompute", action="store_true", help="compute activations twice to save memory")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU")


def computing(options: argparse.Namespace) -> tuple[bool, str]:
    """Return whether a GPU computes, and the mixed precision.

    Args:
        options: The command line, with `add_computing_options`.
    """
    gpu = torch.cuda.is_available() and not options.cpu
    return gpu, options.precision or ("bf16" if gpu and torch.cuda.is_bf16_supported() else "no")


def halve(frozen: nn.Module, precision: str) -> None:
    """Convert a network that is not trained to the type of a mixed precision; "no" leaves it."""
    if precision in HALVES:
        frozen.to(HALVES[precision])


def attempt(run: Callable[[argparse.Namespace], Path], options: argparse.Namespace) -> Path | int:
    """Run a command, and say why it ended early.

    Returns:
        The path of its file. The exit status if it failed or was interrupted.
    """
    try:
        return run(options)
    except (CapFaceError, FloatingPointError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. Run the same command to resume from the last saved state.", file=sys.stderr)
        return 130
