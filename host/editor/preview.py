"""Edit Head's live preview: the inputs of the node's last run, and pictures of them with other widget values.

Conventions: A picture shows the whole photo that the head was fitted to, or else the frame, by default its central square.
"""

import io
import logging
import secrets
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ...flame.builtin import builtin_head
from ...flame.editing import EYE_RADIUS, FROM_PHOTO, KEEP, edit_head, eye_centres, head_angles, head_centre, place_head
from ...flame.fitting import light_from_photo, reduce_photo
from ...flame.io import read_heads
from ...flame.model import NEUTRAL_SCALE, HeadModel, HeadParams
from ...flame.render import overlay, render_head
from ...photos.pictures import read_picture
from .. import head_models, user_files

SIDES = (256, 512, 1024)
"""Pixels along a picture's long side: during a gesture, at rest, and at rest in a window of its own."""
BACKDROP_SIDE = 512
"""Pixels along the long side of a photo behind the head."""
MAX_NODES = 32
"""Number of nodes whose inputs are cached."""
MAX_HEADS = 256
"""Number of heads of a batch that can be shown."""
MAX_PHOTOS = 16
"""Number of photos of a batch that are cached, about 1.5 MB each. Heads beyond them are shown without a photo."""
MAX_BYTES = 512_000_000
"""Memory of the cached inputs, with the head models that they keep alive. The last inputs are kept whatever their size."""
MAX_FILE_BYTES = 8_000_000
"""Size of a file of heads that is read before the node has run. A hundred heads have about half a megabyte."""
MIN_SIDE = 16
"""Least height and width of a picture, in pixels."""
OPACITY = 0.8
"""Opacity of a head over its photo, by default."""
JPEG_QUALITY = 88

log = logging.getLogger("capface")

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class EditorInputs:
    """One head that Edit Head edits, and the photo that it was fitted to."""

    model: HeadModel
    head: HeadParams
    photo: Tensor | None = None
    """`[1, 3, h, w]`, reduced to the size from which the light is estimated."""
    backdrop: Tensor | None = None
    """`[3, h, w]` uint8, at the size of the larger pictures."""

    @classmethod
    def split(cls, model: HeadModel, heads: HeadParams, photos: Tensor | None = None) -> tuple["EditorInputs", ...]:
        """Split a node's inputs into single heads, reduced to the data that previews need.

        Args:
            model: The head model.
            heads: B heads.
            photos: `[B or 1, 3, H, W]` in 0..1.
        """
        reduced = [] if photos is None else [_reduce(photo, heads.light) for photo in photos[:MAX_PHOTOS].split(1)]
        if photos is not None and len(photos) == 1:
            reduced *= heads.batch
        reduced += [(None, None)] * heads.batch
        return tuple(cls(model, heads[i], *reduced[i]) for i in range(min(heads.batch, MAX_HEADS)))

    @cached_property
    def photo_light(self) -> Tensor:
        """The photo's light, `[1, 9, 3]`. It does not depend on the widgets."""
        assert self.photo is not None
        return light_from_photo(self.model, self.head, self.photo)

    @cached_property
    def base(self) -> tuple[float, ...]:
        """The head's own angles, as in `Preview.base`."""
        return tuple(head_angles(self.head).values())

    @cached_property
    def small_backdrop(self) -> Tensor:
        """The backdrop at the size of the smaller pictures, `[3, h, w]` in 0..1."""
        assert self.backdrop is not None
        return _resize(self.backdrop, _picture_size(self, SIDES[0]))


def _reduce(photo: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
    """Reduce a photo `[1, 3, H, W]` to `EditorInputs.photo`, with the dtype and device of `light`, and `.backdrop`."""
    return reduce_photo(photo.to(light)), _backdrop(photo)


def _backdrop(photo: Tensor) -> Tensor:
    """Reduce a photo `[1, 3, H, W]` to `EditorInputs.backdrop`."""
    factor = min(1.0, BACKDROP_SIDE / max(photo.shape[2:]))
    size = [max(MIN_SIDE, round(side * factor)) for side in photo.shape[2:]]
    backdrop = interpolate(photo.float(), size=size, mode="bilinear", antialias=True)[0]
    return (backdrop.clamp(0, 1) * 255).round().byte().cpu()


def _resize(backdrop: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `[3, H, W]` uint8 to `[3, h, w]` in 0..1."""
    return interpolate(backdrop[None].float() / 255, size=size, mode="bilinear", antialias=True)[0]


class PreviewCache:
    """The inputs of the nodes that ran last, each under an unguessable token.

    A slot identifies a node of a workflow in a browser. Each slot has one entry; the least recently used entries are dropped.

    Args:
        size: Most entries.
        memory: Most bytes. Tensors that several entries share are counted once.
    """

    def __init__(self, size: int = MAX_NODES, memory: int = MAX_BYTES):
        self._size, self._memory = size, memory
        self._bytes: dict[Hashable, dict[int, int]] = {}  # slot: {address of a storage: its bytes}
        self._entries: OrderedDict[Hashable, tuple[str, tuple[EditorInputs, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, slot: Hashable, inputs: tuple[EditorInputs, ...]) -> str:
        """Store a node's inputs in place of its earlier ones, and return their token."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._entries[slot] = (token, inputs)
            self._entries.move_to_end(slot)
            self._bytes[slot] = dict(_storages(inputs))
            while len(self._entries) > self._size or (len(self._entries) > 1 and self.memory > self._memory):
                del self._bytes[self._entries.popitem(last=False)[0]]
        return token

    def get(self, token: str) -> tuple[EditorInputs, ...] | None:
        """Return the inputs that belong to a token, or None if they are no longer stored."""
        with self._lock:
            for slot, (own, inputs) in self._entries.items():
                if secrets.compare_digest(own, token):
                    self._entries.move_to_end(slot)
                    return inputs
        return None

    @property
    def memory(self) -> int:
        """Bytes of all entries."""
        together: dict[int, int] = {}
        for storages in self._bytes.values():
            together |= storages
        return sum(together.values())

    def __len__(self) -> int:
        return len(self._entries)


def _storages(inputs: tuple[EditorInputs, ...]) -> Iterator[tuple[int, int]]:
    """Yield address and bytes of the memory behind each tensor; a photo's smaller picture, which is made later, is included."""
    models = {id(given.model): given.model for given in inputs}.values()
    for part in (*models, *(given.head for given in inputs), *inputs):
        for value in vars(part).values():
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                yield storage.data_ptr(), storage.nbytes()
    for given in {id(given.backdrop): given for given in inputs if given.backdrop is not None}.values():
        yield -id(given.backdrop), 12 * SIDES[0] ** 2


preview_cache = PreviewCache()
"""The inputs of Edit Head's last runs in this process."""


def inputs_before_run(model_name: str, head_file: str | None) -> tuple[EditorInputs, ...]:
    """Return the inputs that a node is expected to get in its first run.

    Args:
        model_name: A choice of Load Head Model. If it cannot be loaded, for whatever reason, the built-in head is used.
        head_file: A choice of Load Head, or None. If it cannot be read, for whatever reason, the neutral head is used.
    """
    model = _try(lambda: _load_model(model_name, head_models.head_model_fingerprint(model_name))) or builtin_head()
    if head_file is None:
        return _neutral(model)
    heads = _try(lambda: _load_heads(model, head_file, user_files.user_file_fingerprint(head_file, ".json")))
    return heads or _neutral(model)


def _try(load: Callable[[], T]) -> T | None:
    """Load something, or return None: the run of the node, not its preview, says what is wrong with a file."""
    try:
        return load()
    except Exception as error:
        log.debug("Edit Head's preview does without a file: %s: %s", type(error).__name__, str(error)[:300])
        return None


def _try_content(load: Callable[[], T]) -> T | None:
    """As `_try`, but let pass what may go well the next time."""
    try:
        return load()
    except (OSError, MemoryError):
        raise
    except Exception as error:
        log.debug("Edit Head's preview does without a broken file: %s: %s", type(error).__name__, str(error)[:300])
        return None


# Both remember that a file is broken. It is read again only when it has changed.


@lru_cache(maxsize=1)
def _load_model(name: str, _fingerprint: str) -> HeadModel | None:
    return _try_content(lambda: head_models.load_head_model(name))


@lru_cache(maxsize=4)
def _load_heads(model: HeadModel, name: str, _fingerprint: str) -> tuple[EditorInputs, ...] | None:
    path = user_files.find_user_file(name, ".json")
    if path.stat().st_size > MAX_FILE_BYTES:
        return None
    return _try_content(lambda: EditorInputs.split(model, read_heads(path, name).params))


@lru_cache(maxsize=1)
def _neutral(model: HeadModel) -> tuple[EditorInputs, ...]:
    return EditorInputs.split(model, HeadParams.neutral())


def with_photo(inputs: EditorInputs, name: str) -> EditorInputs:
    """Add a photo of the input folder to inputs without one, as the picture's background.

    Args:
        inputs: The inputs.
        name: The photo's name, as Load Image lists it. If it cannot be read, for whatever reason, the inputs stay as they are.
    """
    if inputs.backdrop is not None:
        return inputs
    backdrop = _try(lambda: _load_photo(name, user_files.input_picture_fingerprint(name)))
    return inputs if backdrop is None else replace(inputs, backdrop=backdrop)


@lru_cache(maxsize=4)
def _load_photo(name: str, _fingerprint: str) -> Tensor | None:
    path = user_files.find_picture(name, temporary=False)
    return _try_content(lambda: _backdrop(read_picture(path)[None]))


@dataclass(frozen=True)
class Preview:
    """A picture of a head, and where the head is in it."""

    pixels: Tensor
    """`[H, W, 4]` uint8: red, green, blue and alpha. Alpha is 0 around a head without a photo, and 255 elsewhere."""
    places: tuple[float, ...]
    """Head's centre (u, v) and its size relative to the neutral one; centres (u, v) and radius of the eyes. In frame units."""
    base: tuple[float, ...]
    """The input head's own yaw, pitch and roll, those of its neck, and yaw and pitch of its eyes, in degrees."""


def render_preview(
    inputs: EditorInputs,
    values: dict[str, Any],
    side: int,
    over_photo: bool = False,
    close_up: bool = False,
    opacity: float = OPACITY,
    frame: tuple[int, int] = (1, 1),
) -> Preview:
    """Render an edited head.

    Args:
        inputs: The head to edit.
        values: Edit Head's widget values by name.
        side: One of `SIDES`.
        over_photo: Whether to lay the head over its photo, if it has one.
        close_up: Whether to show the head close up, wherever it is in the frame. A close-up shows no photo.
        opacity: Opacity of the head over its photo, in 0..1.
        frame: Width and height of the frame, of which only the ratio matters, for a head without a photo.

    Raises:
        BadInput: As `edit_head`.
    """
    light = None
    if values.get("light") == FROM_PHOTO:
        if inputs.photo is None:
            values = values | {"light": KEEP}
        else:
            light = inputs.photo_light
    edited = edit_head(inputs.model, inputs.head, inputs.photo, light, **values)
    if close_up:
        edited = place_head(inputs.model, edited, mode="absolute")
    height, width = (side, side) if close_up else _picture_size(inputs, side, frame)
    maps = render_head(inputs.model, edited, height, width)
    shown, alpha = maps.lambertian[0], maps.alpha[0]
    if over_photo and not close_up and inputs.backdrop is not None:
        photo = inputs.small_backdrop if side == SIDES[0] else _resize(inputs.backdrop, (height, width))
        shown, alpha = overlay(photo[None], maps, opacity)[0], torch.ones_like(alpha)
    pixels = torch.cat([shown, alpha]).clamp(0, 1) * 255
    pixels = pixels.round().byte().movedim(0, -1).cpu().contiguous()
    return Preview(pixels, _places(inputs.model, edited), inputs.base)


def _places(model: HeadModel, head: HeadParams) -> tuple[float, ...]:
    """Compute `Preview.places`."""
    scale = head.camera[0, 0].item()
    centres = (*head_centre(model, head)[0].tolist(), scale / NEUTRAL_SCALE)
    return (*centres, *eye_centres(model, head)[0].flatten().tolist(), scale * EYE_RADIUS)


def encode_image(pixels: Tensor) -> tuple[bytes, str]:
    """Encode a picture as a JPEG if it is opaque, or else as a PNG; return the file and its media type."""
    image, file = Image.fromarray(pixels.numpy()), io.BytesIO()
    if pixels[..., 3].min() == 255:
        image.convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY)
        return file.getvalue(), "image/jpeg"
    image.save(file, "PNG", compress_level=1)
    return file.getvalue(), "image/png"


def deflate(pixels: Tensor) -> bytes:
    """Compress a picture's raw pixels for HTTP's content encoding "deflate", the fastest format to encode and to show."""
    return zlib.compress(pixels.numpy().data, 1)


def _picture_size(inputs: EditorInputs, side: int, frame: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """Return the height and width of a picture whose long side has `side` pixels."""
    height, width = frame[::-1] if inputs.backdrop is None else inputs.backdrop.shape[1:]
    factor = side / max(height, width)
    return max(MIN_SIDE, round(height * factor)), max(MIN_SIDE, round(width * factor))
