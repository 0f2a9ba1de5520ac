"""Saved states of a training run, for a bit-exact resume; written atomically."""

from pathlib import Path
from typing import Any

import torch

from ..errors import BadInput, quote
from ..files.atomic import write_atomically
from ..files.boundary import reading
from ..files.checkpoint import read_tree

KEPT = 2
"""Number of states that are kept; the older one is a backup of the newer one."""


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write a state, and remove states that are no longer kept.

    Args:
        folder: Folder of the run.
        state: The state; its entry `step` is the number of steps that are done.
    """
    write_atomically(folder / f"state-{state['step']:08d}.pt", lambda part: torch.save(state, part))
    for old in _states(folder)[:-KEPT]:
        old.unlink()


def steps_done(folder: Path) -> int:
    """Return the number of steps of the newest state in a folder; 0 if there is no state."""
    return max((int(path.stem.removeprefix("state-")) for path in _states(folder)), default=0)


def _states(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("state-*.pt") if path.stem.removeprefix("state-").isdecimal())


def load_state(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Load the newest state in a folder.

    Args:
        folder: Folder of the run.
        settings: Settings that decide the results of the run; those in the state must be equal.

    Returns:
        The state, on the CPU; None if there is no state.

    Raises:
        BadFile: The state is broken.
        BadInput: The run was started with other settings.
    """
    states = _states(folder)
    if not states:
        return None
    with reading(states[-1], "a state of a training run", "Delete it: the run then resumes from the one before."):
        state = read_tree(states[-1])
        before = state["settings"]
        if not isinstance(before, dict) or not all(isinstance(k, str) for k in before) or type(state["step"]) is not int:
            raise TypeError
    different = [k for k in sorted({*before, *settings}) if before.get(k) != settings.get(k)]
    if different:
        details = "; ".join(f"{quote(k)} was {_shown(before.get(k))}, is {_shown(settings.get(k))}" for k in different[:4])
        raise BadInput(
            f"{folder} holds a run with other settings ({details}). Use the same settings to resume, or choose a new folder."
        )
    return state


def _shown(value: object) -> str:
    return repr(quote(value)) if isinstance(value, str) else quote(value)
