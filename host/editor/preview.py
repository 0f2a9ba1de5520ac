"""Edit Head's live preview: what the node was last given, and pictures of that with other numbers.

Conventions: pictures show the whole photo that a head was fitted to, or else the frame's middle square.
"""

import io
import secrets
import threading
import zlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ...errors import CapFaceError
from ...flame.builtin import builtin_head
from ...flame.editing import FROM_PHOTO, KEEP, edit_head, place_head
from ...flame.fitting import light_from_photo, reduce_photo
from ...flame.io import heads_from_json
from ...flame.model import HeadModel, HeadParams
from ...flame.render import overlay, render_head
from .. import head_models, user_files

SIDES = (256, 512)
"""Pixels along a picture's long side: while something moves, and at rest."""
MOST_GIVEN = 32
"""How many nodes' inputs are kept at once."""
MOST_HEADS = 256
"""How many heads of a batch can be looked at."""
MOST_PHOTOS = 16
"""How many photos of a batch are kept, about 1.5 MB each; the heads behind them are shown without theirs."""
LEAST_SIDE = 16
OPACITY = 0.8
JPEG_QUALITY = 88


@dataclass(frozen=True, eq=False)
class Given:
    """One head that Edit Head edits, and the photo that it was fitted to."""

    model: HeadModel
    head: HeadParams
    photo: Tensor | None = None
    """`[1, 3, h, w]` as small as the light is read from it."""
    backdrop: Tensor | None = None
    """`[3, h, w]` uint8, as large as it is shown."""

    @classmethod
    def each(cls, model: HeadModel, heads: HeadParams, photos: Tensor | None = None) -> tuple["Given", ...]:
        """Keep of a node's inputs what previews need, head by head.

        Args:
            model: The head model.
            heads: B heads.
            photos: `[B or 1, 3, H, W]` in 0..1.
        """
        kept = [] if photos is None else [_keep(photo, heads.light) for photo in photos[:MOST_PHOTOS].split(1)]
        if photos is not None and len(photos) == 1:
            kept *= heads.batch
        kept += [(None, None)] * heads.batch
        return tuple(cls(model, heads[i], *kept[i]) for i in range(min(heads.batch, MOST_HEADS)))

    @cached_property
    def photo_light(self) -> Tensor:
        """The photo's light, `[1, 9, 3]`; it is the same whatever the widgets say."""
        return light_from_photo(self.model, self.head, self.photo)

    @cached_property
    def small_backdrop(self) -> Tensor:
        """The backdrop as it is shown while something moves, `[3, h, w]` in 0..1."""
        return _resized(self.backdrop, _frame(self, SIDES[0]))


def _keep(photo: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
    """A photo `[1, 3, H, W]` as `Given` holds it: for the light, in that light's type and place, and to be shown."""
    factor = min(1.0, SIDES[-1] / max(photo.shape[2:]))
    size = tuple(max(LEAST_SIDE, round(side * factor)) for side in photo.shape[2:])
    backdrop = interpolate(photo.float(), size=size, mode="bilinear", antialias=True)[0]
    return reduce_photo(photo.to(light)), (backdrop.clamp(0, 1) * 255).round().byte().cpu()


def _resized(backdrop: Tensor, size: tuple[int, int]) -> Tensor:
    """`[3, H, W]` uint8 as `[3, h, w]` in 0..1."""
    return interpolate(backdrop[None].float() / 255, size=size, mode="bilinear", antialias=True)[0]


class Shelf:
    """The inputs of the nodes that ran last, each under a token that nobody can guess.

    A slot (which node of which workflow in whose browser) has one place, and the shelf has few.
    """

    def __init__(self, most: int = MOST_GIVEN):
        self._most = most
        self._places: OrderedDict[Hashable, tuple[str, tuple[Given, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, slot: Hashable, given: tuple[Given, ...]) -> str:
        """Keep a node's inputs in place of its earlier ones; returns their token."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._places[slot] = (token, given)
            self._places.move_to_end(slot)
            while len(self._places) > self._most:
                self._places.popitem(last=False)
        return token

    def get(self, token: str) -> tuple[Given, ...] | None:
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


def before_run(model_name: str, head_file: str | None) -> tuple[Given, ...]:
    """Return what a node would edit that has not run yet, as far as that is known.

    Args:
        model_name: As Load Head Model offers it; the built-in head stands for one that cannot be loaded.
        head_file: As Load Head offers it, or None; the neutral head stands for one that cannot be read.
    """
    try:
        model = _model(model_name, head_models.fingerprint(model_name))
    except CapFaceError:
        model = builtin_head()
    if head_file is None:
        return _neutral(model)
    try:
        return _saved(model, head_file, user_files.fingerprint(head_file, ".json"))
    except CapFaceError:
        return _neutral(model)


@lru_cache(maxsize=1)
def _model(name: str, _fingerprint: str) -> HeadModel:
    return head_models.load_head(name)


@lru_cache(maxsize=4)
def _saved(model: HeadModel, name: str, _fingerprint: str) -> tuple[Given, ...]:
    return Given.each(model, heads_from_json(user_files.find(name, ".json").read_bytes(), name).params)


@lru_cache(maxsize=1)
def _neutral(model: HeadModel) -> tuple[Given, ...]:
    return Given.each(model, HeadParams.neutral())


def picture(given: Given, values: dict, side: int, over_photo: bool = False, close_up: bool = False) -> Tensor:
    """Draw an edited head.

    Args:
        given: What to edit.
        values: Edit Head's widgets by name.
        side: One of SIDES.
        over_photo: Whether to lay the head over its photo, where there is one.
        close_up: Whether to look at the head from near by, wherever it is in the frame; without its photo then.

    Returns:
        `[H, W, 4]` uint8: red, green, blue, and 0 around a head that lies over no photo, else 255.

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
    shown, alpha = maps.lambertian[0], maps.alpha[0]
    if over_photo and not close_up and given.backdrop is not None:
        photo = given.small_backdrop if side == SIDES[0] else _resized(given.backdrop, (height, width))
        shown, alpha = overlay(photo[None], maps, OPACITY)[0], torch.ones_like(alpha)
    pixels = torch.cat([shown, alpha]).clamp(0, 1) * 255
    return pixels.round().byte().movedim(0, -1).cpu().contiguous()


def to_file(pixels: Tensor) -> tuple[bytes, str]:
    """Return a picture's file and its media type: a JPEG where it is opaque, or else a PNG."""
    image, file = Image.fromarray(pixels.numpy()), io.BytesIO()
    if pixels[..., 3].min() == 255:
        image.convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY)
        return file.getvalue(), "image/jpeg"
    image.save(file, "PNG", compress_level=1)
    return file.getvalue(), "image/png"


def deflate(pixels: Tensor) -> bytes:
    """Return a picture's bytes, row by row, as HTTP's content encoding "deflate" has them: the fastest to pack and to show."""
    return zlib.compress(pixels.numpy(), 1)


def _frame(given: Given, side: int) -> tuple[int, int]:
    """Height and width of a picture whose long side is `side`."""
    if given.backdrop is None:
        return side, side
    height, width = given.backdrop.shape[1:]
    factor = side / max(height, width)
    return max(LEAST_SIDE, round(height * factor)), max(LEAST_SIDE, round(width * factor))
