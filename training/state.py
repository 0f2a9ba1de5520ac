"""Saved states of a training run, for a bit-exact resume; written atomically."""

from pathlib import Path
from typing import Any

import torch

from ..errors import BadInput
from ..files.atomic import write_atomically

KEPT = 2
"""Number of states that are kept; the older one is a backup of the newer one."""


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write a state, and remove states that are no longer kept.

    Args:
        folder: Folder of the run.
        state: The state; its entry `step` is the number of steps that are done.
    """
    write_atomically(folder / f"state-{state['step']:08d}.pt", lambda part: torch.save(state, part))
    for old in sorted(folder.glob("state-*.pt"))[:-KEPT]:
        old.unlink()


def steps_done(folder: Path) -> int:
    """Return the number of steps of the newest state in a folder; 0 if there is no state."""
    return max((int(path.stem.removeprefix("state-")) for path in folder.glob("state-*.pt")), default=0)


def load_state(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Load the newest state in a folder.

    Args:
        folder: Folder of the run.
        settings: Settings that decide the results of the run; those in the state must be equal.

    Returns:
        The state, on the CPU; None if there is no state.

    Raises:
        BadInput: The run was started with other settings.
    """
    states = sorted(folder.glob("state-*.pt"))
    if not states:
        return None
    state = torch.load(states[-1], map_location="cpu", weights_only=True)
    before = state["settings"]
    different = [k for k in sorted({*before, *settings}) if before.get(k) != settings.get(k)]
    if different:
        details = "; ".join(f"{k} was {before.get(k)!r}, is {settings.get(k)!r}" for k in different)
        raise BadInput(
            f"{folder} holds a run with other settings ({details}). Use the same settings to resume, or choose a new folder."
        )
    return state
