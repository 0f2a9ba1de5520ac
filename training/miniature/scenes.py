"""The miniature's training pictures: people, poses, lights and settings, rendered once into files that training memory-maps.

The files also hold G-buffers, so that training can relight the pictures and change their settings (`SceneSet.relight`).
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import BadInput
from ...files.atomic import write_atomically
from ...flame.builtin import EXPRESSION_NAMES, builtin_head
from ...flame.editing import rotation_of
from ...flame.model import HeadParams, directional_light
from ...flame.render import render_head
from ...miniature.people import PERSON_LIGHTS, SHIRTS, Person, Setting, Surfaces, backdrop, draw_surfaces, light_named
from ..progress import Progress

SIZE = 128
"""Side of the pictures and the head maps, in pixels."""
CHUNK = 64
_VERSION = 3


@dataclass(frozen=True, eq=False)
class Scene:
    """The content of one picture, before it is rendered."""

    person: Person
    setting: Setting
    head: HeadParams
    """One head with the person's shape and the average skin, as a fit would give it."""
    light: str
    """The word for the light, or "" if it has none."""

    def words(self) -> list[str]:
        """Return all phrases that a prompt for the picture could contain."""
        return self.person.words() + self.setting.words() + ([f"lit from {self.light}"] if self.light else [])


def sample_scene(person: int, view: int) -> Scene:
    """Sample the content of a picture. The same arguments give the same content.

    Args:
        person: The person's number.
        view: Index of the picture of that person.
    """
    random = np.random.Generator(np.random.PCG64([person, view, 0x5CE]))
    who = Person.sample(person)
    yaw, pitch, roll = (np.clip(random.normal(0, s), -2.4 * s, 2.4 * s) for s in (22, 8, 6))
    rotation = rotation_of(torch.tensor([[yaw, pitch, roll]], dtype=torch.float32))
    camera = torch.tensor([[random.uniform(5.6, 7.4), random.uniform(-0.18, 0.18), 0.08 + random.uniform(-0.14, 0.14)]])
    expression = torch.zeros(1, 50)
    for _ in range(random.integers(0, 3)):
        expression[0, random.integers(len(EXPRESSION_NAMES))] = random.uniform(-0.6, 1.6)
    jaw = torch.tensor([[max(0.0, random.normal(0.0, 0.12)), 0.0, 0.0]])
    name, light = sample_light(random)
    head = HeadParams.neutral().replace(
        shape=who.shape_row(),
        expression=expression,
        jaw=jaw,
        rotation=rotation.float(),
        camera=camera.float(),
        light=light[None],
    )
    return Scene(who, Setting.sample(int(random.integers(2**31))), head, name)


def sample_light(random: np.random.Generator) -> tuple[str, Tensor]:
    """Sample a light `[9, 3]`, and return it with its word, or with "" if it has none."""
    if random.random() < 0.65:
        name = list(PERSON_LIGHTS)[random.integers(len(PERSON_LIGHTS))]
        return name, light_named(name, random.uniform(0.6, 1.0))
    direction = random.normal((0, 0.4, 0.9))
    fraction = random.uniform(0.2, 1.0)
    tint = np.array([1 + 0.12 * (t := random.normal() * 0.5), 1, 1 - 0.12 * t])
    return "", directional_light(tuple(direction), tuple(0.85 * fraction * tint), tuple((0.92 - 0.67 * fraction) * tint), 0.5)


def sample_scenes(people: np.ndarray, views: np.ndarray) -> list[Scene]:
    """Sample the contents of pictures by people's numbers `[N]` and views `[N]`."""
    return [sample_scene(person, view) for person, view in zip(people.tolist(), views.tolist(), strict=True)]


class Appearances:
    """Lights and settings for relighting.

    Attributes:
        lights: `[L, 9, 3]`.
        settings: The settings, S in number.
        shirts: RGB `[S, 3]` in 0..1.
        backgrounds: uint8 `[S, 3, 128, 128]`.
    """

    def __init__(self, lights: int, settings: int, seed: int):
        """Sample lights and settings.

        Args:
            lights: How many lights.
            settings: How many settings.
            seed: The same seed gives the same ones.
        """
        random = np.random.Generator(np.random.PCG64([seed, 0x100C]))
        self.lights = torch.stack([sample_light(random)[1] for _ in range(lights)])
        self.settings = [Setting.sample(int(random.integers(2**31))) for _ in range(settings)]
        self.shirts = torch.tensor([SHIRTS[s.shirt] for s in self.settings])
        backgrounds = torch.stack([backdrop(s.background, SIZE, s.seed) for s in self.settings])
        self.backgrounds = (backgrounds * 255).round().to(torch.uint8)

    def choose(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sample indices of lights and of settings, each `[count]`, independently of each other."""
        lights = torch.randint(len(self.lights), (count,), generator=generator)
        return lights, torch.randint(len(self.settings), (count,), generator=generator)


class SceneSet:
    """Rendered pictures in a folder. Missing ones are rendered when the set is opened.

    Attributes:
        picture: uint8 `[N, 128, 128, 3]`.
        normal: int8 `[N, 128, 128, 3]`, 127 times the normal map.
        albedo: uint8 `[N, 128, 128, 3]`, 255 times the albedo map.
        light: float32 `[N, 9, 3]`.
        paint: uint8 `[N, 5, 128, 128]`, of `Surfaces`.
        facing: int8 `[N, 3, 128, 128]`, the normal of `Surfaces`.
        people: int64 `[N]`, the people's numbers.
        views: int64 `[N]`.
    """

    def __init__(self, folder: Path, people: range, views: int, workers: int = 1):
        """Open a set and render what is missing: interrupted work continues where it stopped.

        Args:
            folder: A new folder, an empty one, or one that this class wrote; a set of other people or views is replaced.
            people: Numbers of the people.
            views: Pictures of each person.
            workers: Processes that render.

        Raises:
            BadInput: The folder holds files that do not belong to a set. Nothing is changed.
        """
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        count = len(people) * views
        about = {"version": _VERSION, "people": [people.start, people.stop], "views": views, "size": SIZE}
        self.views = np.tile(np.arange(views), len(people))
        self.people = np.repeat(np.array(people), views)
        picture = (SIZE, SIZE, 3)
        shapes = {
            "picture": ("uint8", picture), "normal": ("int8", picture), "albedo": ("uint8", picture),
            "light": ("float32", (9, 3)), "paint": ("uint8", (5, SIZE, SIZE)), "facing": ("int8", (3, SIZE, SIZE)),
        }  # fmt: skip
        note = self.folder / "set.json"
        found = _read_note(note)
        if found != about:
            self._empty(found is not None, {note.name, "drawn.txt", *(f"{name}.npy" for name in shapes)})
            write_atomically(
                note, lambda part: part.write_text('{"unfinished": true}')
            )  # marks the folder as a set before it holds anything else
            for name, (kind, shape) in shapes.items():
                np.lib.format.open_memmap(self.folder / f"{name}.npy", "w+", kind, (count, *shape))
            write_atomically(note, lambda part: part.write_text(json.dumps(about)))
        self._arrays = [np.lib.format.open_memmap(self.folder / f"{name}.npy", "r+") for name in shapes]
        self.picture, self.normal, self.albedo, self.light, self.paint, self.facing = self._arrays
        done = self.folder / "drawn.txt"
        start = int(done.read_text()) if done.exists() else 0
        if start < count:
            self._render(start, count, done, workers)

    def _empty(self, marked: bool, own: set[str]) -> None:
        """Remove an older set, and refuse a folder that holds anything else.

        Args:
            marked: Whether the folder has the note of a set.
            own: File names of a set.

        Raises:
            BadInput: The folder holds other files, or files of these names without the note. Nothing is deleted.
        """
        found = {path.name for path in self.folder.iterdir()}
        foreign = sorted(found - own) or ([] if marked else sorted(found))
        if foreign:
            raise BadInput(
                f"{self.folder} is not a folder of the miniature's pictures: expected an empty folder, or set.json and the "
                f"files of a set alone, found {', '.join(foreign[:3])}. Choose another with --folder; nothing was deleted."
            )
        for name in found:
            (self.folder / name).unlink()

    def _render(self, start: int, count: int, done: Path, workers: int):
        progress = Progress("pictures", count, start)
        jobs = [(self.people[i : i + CHUNK], self.views[i : i + CHUNK]) for i in range(start, count, CHUNK)]
        with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            at = start
            for parts in pool.map(render_scenes, *zip(*jobs, strict=True)):
                end = at + len(parts[0])
                for array, part in zip(self._arrays, parts, strict=True):
                    array[at:end] = part
                at = end
                write_atomically(done, lambda part, at=at: part.write_text(str(at)))
                progress.at(at)

    def __len__(self):
        return len(self.people)

    @cached_property
    def heads(self) -> HeadParams:
        """The heads of all pictures, at full precision."""
        return HeadParams.cat([scene.head for scene in sample_scenes(self.people, self.views)])

    def relight(self, rows: Tensor, appearances: Appearances, lights: Tensor, settings: Tensor) -> Tensor:
        """Render pictures of the set with other lights and settings.

        Args:
            rows: Indices of the pictures, `[B]`.
            appearances: The lights and settings to choose from.
            lights: Indices of lights, `[B]`.
            settings: Indices of settings, `[B]`.

        Returns:
            `[B, 3, 128, 128]` in 0..1.
        """
        surfaces = Surfaces(torch.from_numpy(self.paint[rows.numpy()]), torch.from_numpy(self.facing[rows.numpy()]))
        return surfaces.lit(appearances.lights[lights], appearances.shirts[settings], appearances.backgrounds[settings])


def _read_note(path: Path) -> dict | None:
    """Return what `set.json` says of its set, or None if it is missing or another program's."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and note.keys() & {"unfinished", "views"} else None


def render_scenes(people: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, ...]:
    """Render pictures, head maps and G-buffers: the arrays of a SceneSet for people's numbers `[N]` and views `[N]`."""
    scenes = sample_scenes(people, views)
    heads = HeadParams.cat([scene.head for scene in scenes])
    pictures, surfaces = draw_surfaces([s.person for s in scenes], heads, [s.setting for s in scenes], SIZE)
    maps = render_head(builtin_head(), heads, SIZE, SIZE)

    def pixels(x: Tensor, scale: float, kind) -> np.ndarray:
        return (x * scale).round().permute(0, 2, 3, 1).numpy().astype(kind)

    return (
        pixels(pictures, 255, np.uint8), pixels(maps.normal, 127, np.int8), pixels(maps.albedo.clamp(0, 1), 255, np.uint8),
        heads.light.numpy(), surfaces.paint.numpy(), surfaces.normal.numpy(),
    )  # fmt: skip


def processes() -> int:
    """Return how many processes this machine can run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
