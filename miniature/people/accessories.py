"""Hair, glasses and shoulders of synthetic people: procedural meshes that fit a given head.

Conventions: head space in metres, before the head is turned: x to the viewer's right, y up, z towards the viewer. Faces are
counter-clockwise from outside. All parts except the shoulders turn with the head. Colours are RGB in 0..1 without light.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...flame.builtin.curves import smoothstep
from ...flame.builtin.mesh import EYE, SKIN, head_mesh
from ...flame.builtin.texture import hairline


@dataclass(frozen=True, eq=False)
class Part:
    """A coloured mesh."""

    vertices: np.ndarray
    """`[V, 3]`"""
    faces: np.ndarray
    """`[F, 3]`"""
    colours: np.ndarray
    """`[V, 3]`"""
    sheet: bool = False
    """Whether it is an open surface, whose inner side may be visible."""
    turns: bool = True
    """Whether it turns with the head."""


def _waves(place: np.ndarray, length: float, seed: int) -> np.ndarray:
    """Smooth noise `[V]` of about unit variance at points `[V, 3]`. `length` is its wavelength in metres."""
    random = np.random.Generator(np.random.PCG64(seed))
    directions = random.standard_normal((8, 3))
    directions *= 2 * np.pi / length / np.linalg.norm(directions, axis=1, keepdims=True)
    return np.sin(place @ directions.T + random.uniform(0, 2 * np.pi, 8)).sum(1) / 2


def hair(rest: np.ndarray, average: np.ndarray, normals: np.ndarray, style: str, colour: np.ndarray, seed: int) -> list[Part]:
    """Build the hair of a head.

    Args:
        rest: Vertices `[V, 3]` of the person's head, unturned.
        average: Vertices `[V, 3]` of the average head. Hair grows on the same part of it for everyone.
        normals: Normals `[V, 3]` of `rest`.
        style: One of `person.HAIR_STYLES`.
        colour: RGB `[3]`.
        seed: Seed of locks and curls.

    Returns:
        The parts; an empty list for a bald head.
    """
    if style == "bald":
        return []
    thick, fringe = {"short": (0.007, 0.0), "curly": (0.026, 0.008), "swept": (0.012, -0.002),
                     "bob": (0.014, 0.034), "long": (0.012, 0.004)}[style]  # fmt: skip
    x, y, z = average.T
    line = hairline(z)
    side = 1.0 if seed % 2 else -1.0
    if style == "bob":
        line = line - fringe * smoothstep(z, 0.02, 0.045)
    elif style == "long":
        line = line - 0.024 * smoothstep(z, 0.0, 0.03) * smoothstep(side * x, -0.012, 0.045)
    else:
        line = line - fringe * smoothstep(z, 0.0, 0.03)
    if style in ("bob", "long"):  # hair hangs over the temples and the ears' upper half
        line = np.where((z < 0.012) & (z > -0.12), np.minimum(line, 0.012), line)
    over = y - line
    cover = smoothstep(over, -0.003, 0.022)
    thickness = thick * cover
    if style == "curly":
        thickness = thickness * (1 + 0.28 * _waves(average, 0.034, seed)) + 0.010 * cover * smoothstep(y, 0.06, 0.13)
    elif style == "swept":
        top = smoothstep(y, 0.075, 0.120) * smoothstep(z, -0.09, 0.02)
        thickness = thickness + 0.030 * top * cover * (1 + 0.35 * side * x / 0.06)
    # Hair lies close at the nape and in front of the ears. Folds of a thick shell would stick out there.
    thickness = np.maximum(thickness * (0.25 + 0.75 * smoothstep(y, 0.0, 0.05)), 0.0015)
    grows = (over > -0.003) & (head_mesh().kind[head_mesh().source] == SKIN)
    if style == "curly":
        grows &= (y > 0.018) | (z < -0.07)
    faces = head_mesh().faces
    kept = grows[faces].all(1)
    length = {"curly": 0.016}.get(style, 0.022)
    stretched = average * np.array([1.0, 0.35, 0.6] if style != "curly" else [1.0, 1.0, 1.0])
    strands = 1 + 0.13 * _waves(stretched, length, seed + 1) + 0.10 * smoothstep(y, 0.02, 0.13)
    shell = Part(rest + normals * thickness[:, None], faces[kept], np.clip(colour * strands[:, None], 0, 1))
    parts = [shell]
    if style in ("bob", "long"):
        parts.append(_curtain(rest, thick, -0.062 if style == "bob" else -0.200, colour, seed))
    return parts


def _curtain(rest: np.ndarray, thick: float, end: float, colour: np.ndarray, seed: int) -> Part:
    """Build the hair that hangs from the back half of the head down to a height `end`."""
    skull = rest[(rest[:, 1] > 0.03) & (rest[:, 1] < 0.10)]
    wide, back = np.abs(skull[:, 0]).max() + thick, -skull[:, 2].min() + thick
    centre = -0.045
    theta = np.radians(np.linspace(-118, 118, 41))[None]
    down = np.linspace(0, 1, 12)[:, None]
    y = 0.075 + (end - 0.075) * down + 0 * theta
    flare = 1 + 0.10 * np.sin(np.pi * down) - 0.10 * (1 - down) ** 2 + 0.03 * np.sin(9 * theta + seed) * down
    place = np.stack([wide * flare * np.sin(theta), y, centre - (back + centre) * flare * np.cos(theta)], axis=-1)
    strands = 1 + 0.12 * np.sin(31 * theta + 2 * np.sin(4 * theta + seed)) - 0.22 * down
    rows, cols = place.shape[:2]
    return Part(place.reshape(-1, 3), _grid(rows, cols), np.clip(colour * strands.reshape(-1, 1), 0, 1), sheet=True)


def glasses(rest: np.ndarray, colour: np.ndarray) -> Part:
    """Build glasses: round frames in front of the eyes, with a bridge and temples.

    Args:
        rest: Vertices `[V, 3]` of the person's head, unturned.
        colour: RGB `[3]`.
    """
    eyes = rest[(head_mesh().kind == EYE)[head_mesh().source]]
    eye_x, eye_y = np.abs(eyes[:, 0]).mean() + 0.001, eyes[:, 1].mean() - 0.001
    near = rest[(np.abs(rest[:, 1] - eye_y) < 0.02) & (np.abs(rest[:, 0]) < 0.045)]
    front = np.quantile(near[:, 2], 0.93) + 0.006
    turn = np.linspace(0, 2 * np.pi, 25)
    rim = np.stack([0.0215 * np.cos(turn), 0.0185 * np.sin(turn), np.zeros_like(turn)], axis=1)
    lines = [rim + np.array([side * eye_x, eye_y, front - 0.004]) for side in (-1, 1)]
    inner = eye_x - 0.0215
    lines.append(np.stack([np.linspace(-inner, inner, 5), [eye_y + h for h in (0.004, 0.007, 0.008, 0.007, 0.004)],
                           np.full(5, front - 0.002)], axis=1))  # fmt: skip
    wide = np.abs(rest[(np.abs(rest[:, 1] - eye_y) < 0.01) & (np.abs(rest[:, 2] + 0.03) < 0.015), 0]).max()
    for side in (-1, 1):
        hinge, ear = [side * (eye_x + 0.0215), eye_y + 0.004, front - 0.005], [side * (wide + 0.003), eye_y + 0.002, -0.035]
        lines.append(np.linspace(hinge, ear, 4))
    tubes = [_tube(line, 0.0021) for line in lines]
    offsets = np.cumsum([0, *(len(v) for v, _ in tubes)])
    vertices = np.concatenate([v for v, _ in tubes])
    faces = np.concatenate([f + o for (_, f), o in zip(tubes, offsets[:-1], strict=True)])
    return Part(vertices, faces, np.array(np.broadcast_to(colour, vertices.shape)))


def shoulders(neck: np.ndarray) -> Part:
    """Build a torso in a white shirt.

    Args:
        neck: `[3]` the centre of the lower end of the neck.
    """
    down = np.array([0.052, 0.034, 0.012, -0.015, -0.055, -0.120, -0.400])
    wide = np.array([0.064, 0.078, 0.120, 0.172, 0.205, 0.218, 0.215])
    deep = np.array([0.058, 0.068, 0.080, 0.092, 0.104, 0.118, 0.122])
    turn = np.linspace(0, 2 * np.pi, 33)[None]
    place = np.stack([wide[:, None] * np.sin(turn), down[:, None] + 0 * turn, deep[:, None] * np.cos(turn) - 0.012], axis=-1)
    shade = np.concatenate([[0.72, 0.86], np.ones(len(down) - 2)])[:, None, None]
    colours = np.broadcast_to(shade, place.shape)
    return Part((place + neck).reshape(-1, 3), _grid(*place.shape[:2]), colours.reshape(-1, 3), sheet=True, turns=False)


@lru_cache(maxsize=32)
def _grid(rows: int, cols: int) -> np.ndarray:
    """Triangulate a grid of points, rows downwards."""
    i = np.arange(rows * cols).reshape(rows, cols)
    a, b, c, d = i[:-1, :-1].ravel(), i[:-1, 1:].ravel(), i[1:, :-1].ravel(), i[1:, 1:].ravel()
    return np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])


def _tube(line: np.ndarray, radius: float, sides: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Build a tube around a line of points: vertices and faces."""
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    other = np.where(np.abs(along[:, 2:]) < 0.7, [[0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]])
    u = np.cross(along, other)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v = np.cross(along, u)
    turn = np.linspace(0, 2 * np.pi, sides + 1)
    ring = line[:, None] + radius * (u[:, None] * np.cos(turn)[None, :, None] + v[:, None] * np.sin(turn)[None, :, None])
    return ring.reshape(-1, 3), _grid(len(line), sides + 1)
