"""Keyframes: a person's strength and tau over the steps of the schedule and over the frames of a sequence, read from text.

    0%..40%: strength 1..0.5
    60%: tau 300
    frames 0..8: strength 0..1

A place is a part of the schedule in percent, or a frame from 0. A range of places with a range of values is a straight line
between them. A value holds until the next line for it; before the first one, the node's own value holds.
"""

import re
from dataclasses import dataclass

from ...errors import BadInput

MOST_LINES = 10_000
MOST = {"strength": 10.0, "tau": 1000.0}
"""The values that can be set, each with its largest value. The smallest is 0."""
LAST_TIMESTEP = 999.0
"""The timestep at 0% of the schedule, as in ComfyUI's percentages."""

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_PLACE = re.compile(
    rf"(?:(frames?)\s*(\d+)(?:\s*\.\.\s*(\d+))?|({_NUMBER})\s*%(?:\s*\.\.\s*({_NUMBER})\s*%)?)\s*:\s*(.+)", re.I
)
_VALUE = re.compile(rf"(strength|tau)\s*=?\s*({_NUMBER})(?:\s*\.\.\s*({_NUMBER}))?", re.I)


@dataclass(frozen=True)
class Curve:
    """Values over places: each holds until the next piece, and moves in a straight line within its own."""

    pieces: tuple[tuple[float, float, float, float], ...] = ()
    """(start, end, value at the start, value at the end), by their starts."""

    def at(self, place: float, otherwise: float) -> float:
        """Return the value at a place, or `otherwise` before the first piece."""
        value = otherwise
        for start, end, first, last in self.pieces:
            if place < start:
                break
            value = last if place >= end else first + (last - first) * (place - start) / (end - start)
        return value


@dataclass(frozen=True)
class Keyframes:
    """A person's strength and tau over steps and frames."""

    strength_over_steps: Curve = Curve()
    strength_over_frames: Curve = Curve()
    tau_over_steps: Curve = Curve()
    tau_over_frames: Curve = Curve()

    def strength(self, timestep: float, frame: int) -> float:
        """Return the factor of the strength: the product of those of the step and the frame.

        Args:
            timestep: The model's own, in 0..999.
            frame: Number of the frame, from 0.
        """
        return self.strength_over_steps.at(_percent(timestep), 1.0) * self.strength_over_frames.at(frame, 1.0)

    def tau(self, timestep: float, frame: int, otherwise: float) -> float:
        """Return tau at a timestep and a frame: the keyframes' own, or `otherwise` where they give none."""
        if self.tau_over_frames.pieces:
            return self.tau_over_frames.at(frame, otherwise)
        return self.tau_over_steps.at(_percent(timestep), otherwise)


def _percent(timestep: float) -> float:
    return 100.0 * (1.0 - timestep / LAST_TIMESTEP)


def read_keyframes(text: str) -> Keyframes | None:
    """Read keyframes.

    Args:
        text: Lines such as "40%: strength 0.5, tau 300" and "frames 0..8: strength 0..1". Semicolons separate lines, too, and
            text after # is ignored.

    Returns:
        The keyframes, or None if the text has none.

    Raises:
        BadInput: A line cannot be read, a value is out of range, or tau has keyframes over steps and over frames.
    """
    lines = [line for raw in text.splitlines() for part in raw.partition("#")[0].split(";") if (line := part.strip())]
    if len(lines) > MOST_LINES:
        raise BadInput(f"Keyframes: expected at most {MOST_LINES} lines, got {len(lines)}. Leave some out.")
    pieces: dict[tuple[str, bool], list[tuple[float, float, float, float]]] = {}
    for line in lines:
        for name, in_frames, piece in _read_line(line):
            pieces.setdefault((name, in_frames), []).append(piece)
    if not pieces:
        return None
    if ("tau", False) in pieces and ("tau", True) in pieces:
        raise BadInput("Keyframes: expected tau over steps or over frames, got both. Remove one of them.")
    curves = {key: Curve(tuple(sorted(found, key=lambda piece: piece[0]))) for key, found in pieces.items()}
    none = Curve()
    return Keyframes(
        *(curves.get(key, none) for key in (("strength", False), ("strength", True), ("tau", False), ("tau", True)))
    )


def _read_line(line: str) -> list[tuple[str, bool, tuple[float, float, float, float]]]:
    """Return the name, whether the places are frames, and the piece of each value of a line."""
    place = _PLACE.fullmatch(line)
    if place is None:
        raise _unreadable(line)
    in_frames = place[1] is not None
    start, end = (place[2], place[3]) if in_frames else (place[4], place[5])
    start, end = float(start), float(start if end is None else end)
    if end < start or (not in_frames and end > 100):
        raise _unreadable(line)
    read = []
    for part in place[6].split(","):
        value = _VALUE.fullmatch(part.strip())
        if value is None:
            raise _unreadable(line)
        name = value[1].lower()
        first, last = float(value[2]), float(value[2] if value[3] is None else value[3])
        if max(first, last) > MOST[name]:
            raise BadInput(f"Keyframes: expected {name} in 0..{MOST[name]:g}, got {line!r}. Choose a smaller value.")
        read.append((name, in_frames, (start, end, first, last)))
    return read


def _unreadable(line: str) -> BadInput:
    return BadInput(
        f"Keyframes: expected lines such as '40%: strength 0.5, tau 300' or 'frames 0..8: strength 0..1', got {line[:80]!r}. "
        "Correct this line."
    )
