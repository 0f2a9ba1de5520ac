"""A prepared training set as samples: any of them at any time, in an order that a number says.

Nothing here has a state. What is drawn depends on the seed and on the position in the endless order alone, not on how many
processes or workers read it, so that a run resumes exactly where it stopped, even on another number of processes.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadFile, BadInput
from ..flame.builtin import builtin_head
from ..flame.io import heads_from_json
from ..flame.model import HeadModel, HeadParams
from ..flame.render import render_head
from .shards import DATASET, FORMAT, VERSION, Place, read_index, read_json, read_member

BUILT_IN = "builtin"


class Position(NamedTuple):
    """A place in the endless order."""

    epoch: int
    """How often every sample has been drawn before."""
    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  hides the method of tuples
    """Number of the sample in the set."""


class Positions:
    """The endless order of one process, for a DataLoader's `sampler`: every epoch draws each sample once, anew shuffled.

    Args:
        length: How many samples there are.
        seed: Of the order.
        rank: Number of this process.
        world: How many processes share each epoch.
        start: How many samples all processes together have had: where a resumed run goes on.

    Raises:
        BadInput: There are no samples.
    """

    def __init__(self, length: int, seed: int = 0, rank: int = 0, world: int = 1, start: int = 0):
        if length < 1:
            raise BadInput("The training set has no samples. See its report.md for what was rejected and why.")
        self.length, self.seed, self.rank, self.world, self.start = length, seed, rank, world, start

    def __iter__(self) -> Iterator[Position]:
        place, shuffled = self.start + self.rank, None
        while True:
            epoch, offset = divmod(place, self.length)
            if shuffled is None or shuffled[0] != epoch:
                shuffled = epoch, np.random.default_rng((self.seed, epoch)).permutation(self.length)
            yield Position(epoch, int(shuffled[1][offset]))
            place += self.world


class TrainingSet(torch.utils.data.Dataset):
    """The samples of a prepared folder; dictionaries of CPU tensors.

    A sample holds

        image    float32 [3, S, S] in -1..1
        hint     float32 [9, S, S]: normal, albedo, Lambertian of its head, rendered as it is asked for
        alpha    float32 [1, S, S]: 1 on that head, 0 elsewhere; the target of the mask loss
        global   float32 [512], FaceNet's embedding of the reference
        local    float32 [257, 1024], CLIP's tokens of the reference
        caption  str
        key, reference  str: the sample's, and that of the one whose features these are

    Nothing is mirrored: a face is not symmetric, and neither is its light.

    Args:
        folder: What `prepare` made.
        size: S, side of picture and maps in pixels.
        head_model: What the heads are drawn with; the built-in head where they are its own.
        other_reference: Probability from 0 to 1 that the features come from another photo of the same person, where there is
            one. The paper takes them from the picture itself (0).
        seed: Of the choice of references.

    Raises:
        MissingFile, BadFile: The folder is no finished training set.
        BadInput: Another head model than the one that the heads were fitted with, or a number out of range.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        size: int = 512,
        head_model: HeadModel | None = None,
        other_reference: float = 0.0,
        seed: int = 0,
    ):
        if size < 1 or not 0 <= other_reference <= 1:
            raise BadInput(f"Expected a size from 1 and a probability in 0..1, got {size} and {other_reference}.")
        self.folder, self.size, self.other_reference, self.seed = Path(folder), size, other_reference, seed
        self.about = read_json(self.folder / DATASET)
        if self.about.get("format") != FORMAT or self.about.get("version") != VERSION:
            raise BadFile(f"{self.folder / DATASET} is no training set of version {VERSION}. Prepare the photos again.")
        kind = self.about["head_model"]["kind"]
        if head_model is None and kind == BUILT_IN:
            head_model = builtin_head()
        if head_model is None or head_model.kind != kind:
            got = "none" if head_model is None else f"one of kind {head_model.kind}"
            raise BadInput(f"These heads were fitted with a head model of kind {kind}, got {got}: give that one.")
        self.head_model = head_model
        self.shards, self.places = [], []
        for shard in self.about["shards"]:
            index = read_index(self.folder, int(shard["file"].partition(".")[0]))
            if index is None or len(index["samples"]) != shard["samples"]:
                raise BadFile(f"The index beside {shard['file']} in {self.folder} is missing or of another shard. Copy it too.")
            self.places += [Place(**place) for place in index["samples"]]
            self.shards += [shard["file"]] * shard["samples"]
        self.people: dict[str, list[int]] = {}
        for i, place in enumerate(self.places):
            self.people.setdefault(place.identity, []).append(i)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, position: Position | int) -> dict[str, Tensor | str]:
        """The sample at a position; a plain number is that of a sample in the first epoch."""
        position = Position(0, position) if isinstance(position, int) else position
        about = json.loads(self.read(position.index, "json"))
        place, reference = self.places[position.index], self.reference(position)
        maps = render_head(self.head_model, self._head(about["head"], place), self.size, self.size)
        return {
            "image": self._image(position.index),
            "hint": maps.hint()[0],
            "alpha": maps.alpha[0],
            "global": self._array(reference, "global.npy"),
            "local": self._array(reference, "local.npy"),
            "caption": about["caption"],
            "key": place.key,
            "reference": self.places[reference].key,
        }

    def reference(self, position: Position) -> int:
        """Number of the sample whose features stand for the person at a position."""
        others = [i for i in self.people[self.places[position.index].identity] if i != position.index]
        chance = np.random.default_rng((self.seed, *position))
        if others and chance.random() < self.other_reference:
            return int(chance.choice(others))
        return position.index

    def read(self, index: int, ending: str) -> bytes:
        """One of a sample's files, see `shards`."""
        return read_member(self.folder, self.shards[index], self.places[index].members[ending])

    def _head(self, head: dict, place: Place) -> HeadParams:
        return heads_from_json(json.dumps(head), f"{place.key}.json").params

    def _image(self, index: int) -> Tensor:
        with Image.open(io.BytesIO(self.read(index, "jpg"))) as picture:
            image = torch.from_numpy(np.array(picture.convert("RGB"))).movedim(-1, 0).float()
        if image.shape[-2:] != (self.size, self.size):
            image = F.interpolate(image[None], (self.size, self.size), mode="bilinear", antialias=True)[0]
        return (image / 127.5 - 1).clamp(-1, 1)

    def _array(self, index: int, ending: str) -> Tensor:
        return torch.from_numpy(np.load(io.BytesIO(self.read(index, ending)))).float()
