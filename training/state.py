"""What a run must remember to go on as if it had never stopped: files that are whole or not there."""

from pathlib import Path

import torch

from ..errors import BadInput
from ..files.atomic import write_atomically

KEPT = 2
"""States that are kept; the older one serves if the newer one's disk fails."""


def save_state(folder: Path, state: dict) -> None:
    """Write `state`, which has its `step`, and remove states that are no longer kept."""
    write_atomically(folder / f"state-{state['step']:08d}.pt", lambda part: torch.save(state, part))
    for old in sorted(folder.glob("state-*.pt"))[:-KEPT]:
        old.unlink()


def steps_done(folder: Path) -> int:
    """Steps of the newest state in a folder; 0 where there is none."""
    return max((int(path.stem.removeprefix("state-")) for path in folder.glob("state-*.pt")), default=0)


def load_state(folder: Path, settings: dict) -> dict | None:
    """The newest state of a folder, on the CPU, or None where there is none.

    Args:
        folder: The run's folder.
        settings: What decides the run's numbers; the state's own must equal them.

    Raises:
        BadInput: if the run was started with other settings.
    """
    states = sorted(folder.glob("state-*.pt"))
    if not states:
        return None
    state = torch.load(states[-1], map_location="cpu", weights_only=True)
    theirs = state["settings"]
    differ = [k for k in sorted({*theirs, *settings}) if theirs.get(k) != settings.get(k)]
    if differ:
        words = "; ".join(f"{k} was {theirs.get(k)!r}, is {settings.get(k)!r}" for k in differ)
        raise BadInput(f"{folder} holds a run with other settings ({words}). Take the same settings to go on, or a new folder.")
    return state
