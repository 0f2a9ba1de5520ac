"""Access to the samples of a prepared training set, in an endless shuffled order.

Nothing here keeps a state. A sample depends only on the seed and on its position in the order, not on the number of processes
or workers. A run therefore resumes exactly where it stopped, even with another number of processes.
"""

import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadFile, BadInput, quote
from ..files.boundary import reading
from ..files.npy import read_array
from ..flame.builtin import builtin_head
from ..flame.io import heads_from_json
from ..flame.model import HeadModel, HeadParams
from ..flame.render import render_head
from .shards import (
    DATASET,
    FORMAT,
    VERSION,
    Place,
    read_index,
    read_json,
    read_member,
    read_places,
    shard_name,
    shard_number,
)

_AGAIN = "Copy the whole folder of the training set, or prepare it again."
BUILT_IN_KIND = "builtin"
"""Kind of the built-in head model."""


class Position(NamedTuple):
    """A position in the endless order."""

    epoch: int
    """How many times each sample has been used before."""
    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  hides the method of tuples
    """Index of the sample in the training set."""


TrainingSample = TypedDict(
    "TrainingSample",
    {
        "image": Tensor,
        "hint": Tensor,
        "alpha": Tensor,
        "global": Tensor,
        "local": Tensor,
        "caption": str,
        "key": str,
        "reference": str,
    },
)
"""A sample of a training set, see `TrainingSet.__getitem__`."""


class Positions:
    """The endless order of one process, for a DataLoader's `sampler`: each epoch visits every sample once, in another order.

    Args:
        length: Number of samples.
        seed: Seed of the order.
        rank: Number of this process, from 0.
        world: Number of processes that share each epoch.
        start: Number of samples that all processes together have already used: the position at which a resumed run continues.

    Raises:
        BadInput: The training set has no samples.
    """

    def __init__(self, length: int, seed: int = 0, rank: int = 0, world: int = 1, start: int = 0):
        if length < 1:
            raise BadInput("The training set has no samples. Its report.md lists the rejected photos and the reasons.")
        self.length, self.seed, self.rank, self.world, self.start = length, seed, rank, world, start

    def __iter__(self) -> Iterator[Position]:
        place = self.start + self.rank
        shuffled: tuple[int, np.ndarray] | None = None  # epoch, and the order of its samples
        while True:
            epoch, offset = divmod(place, self.length)
            if shuffled is None or shuffled[0] != epoch:
                shuffled = epoch, np.random.default_rng((self.seed, epoch)).permutation(self.length)
            yield Position(epoch, int(shuffled[1][offset]))
            place += self.world


class TrainingSet(torch.utils.data.Dataset):
    """The samples of a prepared training set, as dictionaries of CPU tensors.

    A sample holds

        image      float32 `[3, S, S]` in -1..1
        hint       float32 `[9, S, S]`: normal, albedo and Lambertian map of its head, rendered on access
        alpha      float32 `[1, S, S]`: 1 on that head, 0 elsewhere; the target of the mask loss
        global     float32 `[512]`, FaceNet's embedding of the reference
        local      float32 `[257, 1024]`, CLIP's tokens of the reference
        caption    str
        key        str, name of the sample
        reference  str, name of the sample whose identity features these are

    Samples are not mirrored, because faces and their light are not symmetric.

    Args:
        folder: Folder of the training set.
        size: S, side of picture and maps in pixels.
        head_model: Head model that renders the heads; by default the built-in head, if the heads were fitted with it.
        other_reference: Probability from 0 to 1 that the identity features come from another photo of the same person, if
            there is one. The paper takes them from the picture itself (0).
        seed: Seed of the choice of references.

    Raises:
        MissingFile: A file of the training set is missing.
        BadFile: A file of the training set is invalid.
        BadInput: The heads were fitted with another head model, or an argument is out of range.
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
            raise BadFile(f"{self.folder / DATASET} is not a training set of version {VERSION}. Prepare the photos again.")
        about = self.about.get("head_model")
        kind = about.get("kind") if isinstance(about, dict) else None
        shards = self.about.get("shards")
        if not isinstance(kind, str) or not isinstance(shards, list):
            raise BadFile(f"{DATASET} in {self.folder} lacks head_model or shards. Prepare the photos again.")
        if head_model is None and kind == BUILT_IN_KIND:
            head_model = builtin_head()
        if head_model is None or head_model.kind != kind:
            got = "none" if head_model is None else f"one of kind {head_model.kind}"
            raise BadInput(f"These heads were fitted with a head model of kind {quote(kind)}, got {got}.")
        self.head_model = head_model
        self.shards: list[str] = []
        """File of each sample's shard."""
        self.places: list[Place] = []
        known: set[str] = set()
        for shard in shards:
            try:
                number = shard_number(shard.get("file") if isinstance(shard, dict) else shard)
            except BadFile as error:  # a clause
                raise BadFile(f"{DATASET} in {self.folder} is malformed: {error}. Prepare the photos again.") from None
            file, index = shard_name(number), read_index(self.folder, number)
            places = [] if index is None else read_places(self.folder, number, index)
            if index is None or len(places) != shard.get("samples") or file in known:
                raise BadFile(f"The index beside {file} in {self.folder} is missing or of another shard. Copy it too.")
            known.add(file)
            self.places += places
            self.shards += [file] * len(places)
        self.people: dict[str, list[int]] = {}
        """Indices of each person's samples."""
        for i, place in enumerate(self.places):
            self.people.setdefault(place.identity, []).append(i)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, position: Position | int) -> TrainingSample:
        """Return the sample at a position; an int is the index of a sample in the first epoch."""
        position = Position(0, position) if isinstance(position, int) else position
        place, reference = self.places[position.index], self.reference(position)
        with reading(f"{place.key}.json", "a description of a photo", _AGAIN):
            about = json.loads(self.read(position.index, "json"))
            caption, head = str(about["caption"]), self._head(about["head"], place)
        maps = render_head(self.head_model, head, self.size, self.size)
        return {
            "image": self._image(position.index),
            "hint": maps.hint()[0],
            "alpha": maps.alpha[0],
            "global": self._array(reference, "global.npy"),
            "local": self._array(reference, "local.npy"),
            "caption": caption,
            "key": place.key,
            "reference": self.places[reference].key,
        }

    def reference(self, position: Position) -> int:
        """Return the index of the sample whose identity features are used at a position."""
        others = [i for i in self.people[self.places[position.index].identity] if i != position.index]
        random = np.random.default_rng((self.seed, *position))
        if others and random.random() < self.other_reference:
            return int(random.choice(others))
        return position.index

    def read(self, index: int, ending: str) -> bytes:
        """Read one file of a sample.

        Args:
            index: Index of the sample.
            ending: Name of the file after the sample's key, see `shards`.
        """
        place = self.places[index]
        if ending not in place.members:
            raise BadFile(f"The sample {quote(place.key)} of {self.shards[index]} lacks {ending}. {_AGAIN}")
        return read_member(self.folder, self.shards[index], place.members[ending])

    def _head(self, head: dict[str, Any], place: Place) -> HeadParams:
        return heads_from_json(json.dumps(head), f"{place.key}.json").params

    def _image(self, index: int) -> Tensor:
        data = self.read(index, "jpg")
        with reading(f"{self.places[index].key}.jpg", "a picture", _AGAIN), warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as picture:
                image = torch.from_numpy(np.array(picture.convert("RGB"))).movedim(-1, 0).float()
        if image.shape[-2:] != (self.size, self.size):
            image = F.interpolate(image[None], (self.size, self.size), mode="bilinear", antialias=True)[0]
        return (image / 127.5 - 1).clamp(-1, 1)

    def _array(self, index: int, ending: str) -> Tensor:
        data = self.read(index, ending)
        name = f"{self.places[index].key}.{ending}"
        with reading(name, "an array of features", _AGAIN):
            try:
                array = torch.from_numpy(read_array(io.BytesIO(data), len(data)).astype(np.float32))
            except BadFile as error:  # a clause
                raise BadFile(f"{quote(name)} cannot be read: {error}. {_AGAIN}") from None
        if not torch.isfinite(array).all():
            raise BadFile(f"{quote(name)} holds NaN or infinite numbers. {_AGAIN}")
        return array
