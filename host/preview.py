"""Edit Head's live preview: what the node was last given, and pictures of that with other numbers.

Conventions: pictures show the whole photo that a head was fitted to, or else the frame's middle square.
"""

import io
import secrets
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import CapFaceError
from ..flame.builtin import builtin_head
from ..flame.edit import place_head
from ..flame.edits import edit_head
from ..flame.head import HeadModel
from ..flame.lighting import FROM_PHOTO, KEEP, light_from_photo, reduce_photo
from ..flame.params import HeadParams
from ..flame.preview import overlay
from ..flame.render import render_head
from ..flame.storage import heads_from_json
from . import files, heads

SIDES = (256, 512)
"""Pixels along a picture's long side: while something moves, and at rest."""
MOST_GIVEN = 32
"""How many nodes' inputs are kept at once."""
LEAST_SIDE = 16
OPACITY = 0.8
JPEG_QUALITY = 88


@dataclass(frozen=True, eq=False)
class Given:
    """What Edit Head edits: the first head, and the photo that it was fitted to."""

    model: HeadModel
    head: HeadParams
    photo: Tensor | None = None
    """`[1, 3, h, w]` as small as the light is read from it."""
    backdrop: Tensor | None = None
    """`[3, h, w]` uint8, as large as it is shown."""

    @classmethod
    def of(cls, model: HeadModel, head: HeadParams, photo: Tensor | None = None) -> "Given":
        """Keep of a node's inputs what a preview needs.

        Args:
            model: The head model.
            head: B heads.
            photo: `[B or 1, 3, H, W]` in 0..1.
        """
        if photo is None:
            return cls(model, head[0])
        factor = min(1.0, SIDES[-1] / max(photo.shape[2:]))
        size = [max(LEAST_SIDE, round(side * factor)) for side in photo.shape[2:]]
        backdrop = interpolate(photo[:1].float(), size=size, mode="bilinear", antialias=True)[0]
        backdrop = (backdrop.clamp(0, 1) * 255).round().byte().cpu()
        return cls(model, head[0], reduce_photo(photo[:1].to(head.light)), backdrop)

    @cached_property
    def photo_light(self) -> Tensor:
        """The photo's light, `[1, 9, 3]`; it is the same whatever the widgets say."""
        return light_from_photo(self.model, self.head, self.photo)


class Shelf:
    """The inputs of the nodes that ran last, each under a token that nobody can guess.

    A slot (which node of which workflow in whose browser) has one place, and the shelf has few.
    """

    def __init__(self, most: int = MOST_GIVEN):
        self._most = most
        self._places: OrderedDict[Hashable, tuple[str, Given]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, slot: Hashable, given: Given) -> str:
        """Keep a node's inputs in place of its earlier ones; returns their token."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._places[slot] = (token, given)
            self._places.move_to_end(slot)
            while len(self._places) > self._most:
                self._places.popitem(last=False)
        return token

    def get(self, token: str) -> Given | None:
        """Return what a token stands for, or None where it is no longer kept."""
        with self._lock:
            for slot, (own, given) in self._places.items():
                if secrets.compare_digest(own, token):
                    self._places.move_to_end(slot)
                    return given
        return None

    def __len__(self) -> int:
        return len(self._places)


shelf = Shelf()
"""What Edit Head was last given in this process."""


def before_run(model_name: str, head_file: str | None) -> Given:
    """Return what a node would edit that has not run yet, as far as that is known.

    Args:
        model_name: As Load Head Model offers it; the built-in head stands for one that cannot be loaded.
        head_file: As Load Head offers it, or None; the neutral head stands for one that cannot be read.
    """
    try:
        model = _model(model_name, heads.fingerprint(model_name))
    except CapFaceError:
        model = builtin_head()
    try:
        head = HeadParams.neutral() if head_file is None else _head(head_file, files.fingerprint(head_file, ".json"))
    except CapFaceError:
        head = HeadParams.neutral()
    return Given(model, head)


@lru_cache(maxsize=1)
def _model(name: str, _fingerprint: str) -> HeadModel:
    return heads.load_head(name)


@lru_cache(maxsize=4)
def _head(name: str, _fingerprint: str) -> HeadParams:
    return heads_from_json(files.find(name, ".json").read_bytes(), name).params[0]


def picture(given: Given, values: dict, side: int, over_photo: bool = False, close_up: bool = False) -> tuple[bytes, str]:
    """Draw an edited head.

    Args:
        given: What to edit.
        values: Edit Head's widgets by name.
        side: One of SIDES.
        over_photo: Whether to lay the head over its photo, where there is one.
        close_up: Whether to look at the head from near by, wherever it is in the frame; without its photo then.

    Returns:
        A file and its media type: a JPEG over the photo, or else a PNG that is transparent around the head.

    Raises:
        BadInput: as `edit_head`.
    """
    light = None
    if values.get("light") == FROM_PHOTO:
        if given.photo is None:
            values = values | {"light": KEEP}
        else:
            light = given.photo_light
    edited = edit_head(given.model, given.head, given.photo, light, **values)
    if close_up:
        edited = place_head(given.model, edited, mode="absolute")
    height, width = (side, side) if close_up else _frame(given, side)
    maps = render_head(given.model, edited, height, width)
    file = io.BytesIO()
    if over_photo and not close_up and given.backdrop is not None:
        photo = interpolate(given.backdrop[None].float() / 255, size=(height, width), mode="bilinear", antialias=True)
        _image(overlay(photo, maps, OPACITY)[0]).save(file, "JPEG", quality=JPEG_QUALITY)
        return file.getvalue(), "image/jpeg"
    _image(torch.cat([maps.lambertian[0], maps.alpha[0]])).save(file, "PNG", compress_level=1)
    return file.getvalue(), "image/png"


def _frame(given: Given, side: int) -> tuple[int, int]:
    """Height and width of a picture whose long side is `side`."""
    if given.backdrop is None:
        return side, side
    height, width = given.backdrop.shape[1:]
    factor = side / max(height, width)
    return max(LEAST_SIDE, round(height * factor)), max(LEAST_SIDE, round(width * factor))


def _image(channels: Tensor) -> Image.Image:
    """`[3 or 4, H, W]` in 0..1 as an image."""
    pixels = (channels.clamp(0, 1) * 255).round().byte().movedim(0, -1).cpu().contiguous()
    return Image.fromarray(pixels.numpy())
