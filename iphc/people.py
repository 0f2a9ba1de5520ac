"""Who the benchmark makes portraits of: synthetic people, a folder of photos, or people of CelebA's test split."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

PHOTOS = (".jpg", ".jpeg", ".png", ".webp")
TEST_SPLIT = 2
"""The number of CelebA's test split in list_eval_partition.txt."""
_CELEBA_FOLDERS = ("img_celeba", "img_align_celeba")
"""Folders of CelebA's photos. The whole photos come first: the aligned ones cut off hair and neck."""

Bad = Callable[[tuple[str | int, ...], str], None]


@dataclass(frozen=True)
class Person:
    """One person with one reference photo."""

    name: str
    synthetic: int | None = None
    """The number of a synthetic person."""
    photo: Path | None = None

    @cached_property
    def content(self) -> str:
        """What the person's portraits depend on: the number, or the photo's SHA-256."""
        if self.photo is None:
            return f"synthetic {self.synthetic}"
        return hashlib.sha256(self.photo.read_bytes()).hexdigest()


def synthetic_photo(number: int, inputs: Mapping[str, Any], folder: Path) -> Path:
    """Write the picture that a node Synthetic Person gives.

    Args:
        number: The person's number.
        inputs: The node's other inputs.
        folder: Folder for the file.

    Returns:
        The file.
    """
    import torch
    from PIL import Image

    from ..miniature.people import Person as Who
    from ..miniature.people import Setting, draw_people

    who = Who.sample(number)
    head = who.head(float(inputs["yaw"]), float(inputs["pitch"]), float(inputs["roll"]), inputs["light"])
    picture = draw_people([who], head, [Setting(inputs["shirt"], inputs["background"])], inputs["size"])[0]
    path = folder / f"{number}.png"
    Image.fromarray((picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()).save(path)
    return path


def people_of(asked: dict[str, Any], beside: Callable[[str], Path], bad: Bad) -> list[Person]:
    """Read the `people` of a manifest.

    Args:
        asked: `{"synthetic": FIRST, "count": N}`, `{"photos": FOLDER}` or `{"celeba": FOLDER, "count": N, "seed": S}`.
        beside: Returns the path of a folder that the manifest names.
        bad: Takes a mistake, as its path in `people` and a text.

    Returns:
        The people; none if there was a mistake.
    """
    kinds = {"synthetic": {"count"}, "photos": {"count"}, "celeba": {"count", "seed"}}
    kind = sorted(kinds.keys() & asked.keys())
    if len(kind) != 1:
        bad((), f"expected one of {', '.join(kinds)}, got {', '.join(kind) or 'none'}")
        return []
    for key in sorted(asked.keys() - kinds[kind[0]] - set(kind)):
        bad((key,), f"unknown key for people of kind {kind[0]}. There are: {', '.join(sorted(kinds[kind[0]]))}")
    count = asked.get("count")
    if count is not None and (type(count) is not int or count < 1):
        bad(("count",), f"expected 1 or more, got {count!r}")
        return []
    value = asked[kind[0]]
    if kind[0] == "synthetic":
        from ..miniature.networks import HELD_OUT  # takes seconds, and workers do not need it

        if type(value) is not int or value < HELD_OUT:
            bad(
                ("synthetic",), f"expected a person's number of {HELD_OUT} or more, whom the miniature never saw; got {value!r}"
            )
            return []
        return [Person(f"synthetic-{value + i}", synthetic=value + i) for i in range(count or 1)]
    if not isinstance(value, str):
        bad((kind[0],), f"expected a folder, got {value!r}")
        return []
    if os.path.expandvars(value).startswith("$"):
        bad((kind[0],), f"the environment variable in {value} is not set. It names the folder")
        return []
    folder = beside(value)
    if not folder.is_dir():
        bad((kind[0],), f"there is no folder {folder}")
        return []
    if kind[0] == "photos":
        found = [Person(path.stem, photo=path) for path in sorted(folder.iterdir()) if path.suffix.lower() in PHOTOS]
        if len(found) < (count or 1):
            bad(("photos",), f"expected {count or 1} photos or more in {folder}, found {len(found)}")
        return found[:count]
    return _celeba(folder, count or 100, asked.get("seed", 0), bad)


def _celeba(folder: Path, count: int, seed: Any, bad: Bad) -> list[Person]:
    """Choose people of CelebA's test split: see `chosen`."""
    files = {name: folder / name for name in ("list_eval_partition.txt", "identity_CelebA.txt")}
    for path in files.values():
        if not path.is_file():
            bad(("celeba",), f"there is no {path.name} in {folder}. CelebA has it beside its photos")
    photos = next((folder / name for name in _CELEBA_FOLDERS if (folder / name).is_dir()), None)
    if photos is None:
        bad(("celeba",), f"there is no folder {' or '.join(_CELEBA_FOLDERS)} in {folder}")
    if photos is None or not all(path.is_file() for path in files.values()):
        return []
    splits, identities = (
        dict(line.split()[:2] for line in path.read_text(encoding="utf-8").splitlines() if len(line.split()) >= 2)
        for path in files.values()
    )
    of_test = {name: identities[name] for name, split in splits.items() if split == str(TEST_SPLIT) and name in identities}
    found = chosen(of_test, count, seed)
    if len(found) < count:
        bad(("count",), f"expected at most {len(found)}, as many people as the test split has; got {count}")
    missing = [name for name in found.values() if not (photos / name).is_file()]
    if missing:
        bad(("celeba",), f"{len(missing)} of the chosen photos are missing in {photos}: {', '.join(missing[:3])}")
        return []
    return [Person(f"celeba-{identity}", photo=photos / name) for identity, name in found.items()]


def chosen(photos: dict[str, str], count: int, seed: int) -> dict[str, str]:
    """Choose people and a photo of each.

    The people are those with the lowest SHA-256 of `SEED/person/IDENTITY`, in this order; the photo of each is the one with
    the lowest SHA-256 of `SEED/photo/FILE`. So more people with the same seed contain the fewer.

    Args:
        photos: The identity of each photo.
        count: How many people.
        seed: Another seed chooses others.

    Returns:
        The photo of each chosen identity.
    """

    def rank(kind: str, name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{kind}/{name}".encode()).digest()

    by_person: dict[str, list[str]] = {}
    for photo, identity in photos.items():
        by_person.setdefault(identity, []).append(photo)
    people = sorted(by_person, key=lambda identity: rank("person", identity))[:count]
    return {identity: min(by_person[identity], key=lambda photo: rank("photo", photo)) for identity in people}
