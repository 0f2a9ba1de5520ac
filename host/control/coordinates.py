"""Control images whose pixels hold frame coordinates.

Packs that sample a picture in parts crop a control image as they crop the picture: into tiles, crops or rolled strips, at other
sizes. CapFace's control has no image, because it renders the head at the requested size. It offers a coordinate image instead.
However a pack transforms it, each pixel still holds its position in the frame, so CapFace can render exactly that part.

Conventions: float32 `[B, 3, H, W]` in 0..1. The first two channels are x (right) and y (down) of the pixel's centre, as
fractions of the frame's width and height. The third is (frame index + 1) / B, and 0 for padded pixels.
"""

import hashlib
from dataclasses import dataclass, field, replace
from itertools import product

import torch
from torch import Tensor

from ...flame.model import WHOLE, Window
from ...flame.render import HeadCondition, crop_to_window, sample

SIDES = (1920, 960, 480, 240)
"""Sides of an image for a frame of unknown size. With the first, tile borders of common frame sizes fall on whole pixels."""
MOST_PIXELS = 6_000_000
"""Maximum number of pixels of all frames' images together. Above it, a smaller side is used."""

_SAME_NUMBER = 2e-3
"""Tolerance for equal frame indices, needed in half precision."""
_WHOLE_PIXEL = 1e-2
"""Tolerance for whole numbers of pixels, needed in single precision."""
_SQUARE_PIXEL = 4e-3
"""Maximum relative difference between the sides of a pixel that counts as square."""


def coordinate_image(frames: int, size: tuple[int, int] | None = None) -> Tensor:
    """Make a coordinate image.

    Args:
        frames: Number of frames B.
        size: The frame's size (H, W) in pixels, if known.

    Returns:
        `[B, 3, H, W]`.
    """
    height, width = size or (side_for(frames),) * 2
    x = (torch.arange(width) + 0.5) / width
    y = (torch.arange(height) + 0.5) / height
    number = torch.arange(1, frames + 1) / frames
    planes = (x.expand(height, -1), y[:, None].expand(-1, width))
    image = torch.empty(frames, 3, height, width)
    image[:, 0], image[:, 1] = planes
    image[:, 2] = number[:, None, None]
    return image


def side_for(frames: int) -> int:
    """Return the side of a coordinate image for a frame of unknown size."""
    return next((side for side in SIDES if frames * side**2 <= MOST_PIXELS), SIDES[-1])


@dataclass(frozen=True, eq=False)
class PixelMap:
    """A part of the frame that is not a rectangle, such as a tile that wraps around the border."""

    x: Tensor
    """`[h, w]`, fractions of the frame's width, on the CPU."""
    y: Tensor
    """`[h, w]`, fractions of the frame's height, on the CPU."""
    inside: Tensor
    """bool `[h, w]`; False for padded pixels."""
    _key: bytes = field(init=False, repr=False)
    """Digest of the three, which decides equality."""

    def __post_init__(self):
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.x, self.y, self.inside):
            digest.update(part.contiguous().numpy().tobytes())
        object.__setattr__(self, "_key", digest.digest())

    def __eq__(self, other):
        return isinstance(other, PixelMap) and self._key == other._key

    def __hash__(self):
        return hash(self._key)

    def within(self, outer: Window) -> "PixelMap":
        """Convert positions within `outer` to positions in the frame of which `outer` is a window."""
        x = outer.left + self.x * (outer.right - outer.left)
        y = outer.top + self.y * (outer.bottom - outer.top)
        return PixelMap(x, y, self.inside)

    def sample_from(self, images: Tensor) -> Tensor:
        """Sample images of the frame `[B, C, H, W]` at these positions: `[B, C, h, w]`, with 0 for padded pixels."""
        found = sample(images, self.x[None].to(images.device), self.y[None].to(images.device))
        return found * self.inside.to(found.device)

    def frame_size(self) -> tuple[int, int]:
        """Return the height and width of the whole frame at this part's scale, as multiples of 8."""
        down = self.y.diff(dim=0)[self.inside[1:] & self.inside[:-1]]
        right = self.x.diff(dim=1)[self.inside[:, 1:] & self.inside[:, :-1]]
        rows, columns = (max(8, 8 * round(1 / _typical_step(steps) / 8)) for steps in (down, right))
        return rows, columns


View = Window | PixelMap
"""The part of the frame that a latent shows."""


def _typical_step(steps: Tensor) -> float:
    """Return the mean step, without the few jumps at seams."""
    sizes = steps.abs()
    moving = sizes[sizes > 0]
    if not len(moving):
        return 1 / SIDES[0]
    return max(sizes[sizes <= 4 * moving.median()].mean().item(), 1e-5)


def render_view(condition: HeadCondition, view: View, height: int, width: int) -> Tensor:
    """Render a part of the frame: float32 `[B, 9, height, width]`."""
    if view == WHOLE:
        return condition.hint(height, width)
    if isinstance(view, Window):
        return condition.hint_in(view, height, width)
    return view.sample_from(condition.hint(*view.frame_size()))


def crop_view(images: Tensor, view: View, height: int, width: int) -> Tensor:
    """Crop images of the frame to a view: `[B, C, height, width]`. The whole frame returns them unchanged."""
    if view == WHOLE:
        return images
    return crop_to_window(images, view, height, width) if isinstance(view, Window) else view.sample_from(images)


def read_coordinates(image: Tensor, frames: int, frame_size: tuple[int, int] | None) -> list[tuple[View, int] | None]:
    """Recover the views from a transformed coordinate image.

    Args:
        image: `[R, 3, h, w]` of any float type, on any device.
        frames: Number of frames B.
        frame_size: The frame's size (H, W) in pixels, if known. It makes it possible to detect stretched tiles.

    Returns:
        For each of the R rows, the view and the frame index. None for a row that is not a coordinate image.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        return [None] * len(image)
    grain_y, grain_x = (1 / side for side in frame_size or (side_for(frames),) * 2)
    x, y, number = image.float().unbind(1)
    along_x, along_y = x.mean(-2), y.mean(-1)
    flat = torch.maximum(
        (x - along_x[:, None]).abs().flatten(1).amax(1), (y - along_y[..., None]).abs().flatten(1).amax(1)
    ).tolist()
    padded = (number <= _SAME_NUMBER).flatten(1).any(1).tolist()
    fractions = number.flatten(1).amax(1)
    # In a coordinate image, the third channel holds one value, apart from padding.
    strange = ((number - fractions[:, None, None]).abs() > _SAME_NUMBER) & (number.abs() > _SAME_NUMBER)
    ours = ~strange.flatten(1).any(1) & (fractions > 0)
    fractions, ours = fractions.tolist(), ours.tolist()
    along_x, along_y = along_x.double().cpu(), along_y.double().cpu()
    read = []
    for row, fraction in enumerate(fractions):
        if not ours[row]:
            read.append(None)
            continue
        (left, right, off_x), (top, bottom, off_y) = _fit_line(along_x[row], grain_x), _fit_line(along_y[row], grain_y)
        step_x, step_y = (right - left) / x.shape[-1], (bottom - top) / x.shape[-2]
        exact = flat[row] <= max(grain_x, grain_y) and off_x <= max(step_x, grain_x) and off_y <= max(step_y, grain_y)
        if exact and not padded[row] and step_x > 0 and step_y > 0:
            edges = (left, top, right - 1, bottom - 1)
            whole = all(abs(edge) < step / 4 for edge, step in zip(edges, (step_x, step_y) * 2, strict=True))
            view = WHOLE if whole else Window(left, top, right, bottom)
            if frame_size is not None:
                view = _stretched(view, frame_size[1] / frame_size[0], *x.shape[-2:])
        else:
            view = PixelMap(x[row].cpu(), y[row].cpu(), number[row].cpu() > _SAME_NUMBER)
        read.append((view, max(0, round(fraction * frames) - 1)))
    return read


def _stretched(window: Window, aspect: float, height: int, width: int) -> Window:
    """Return the window, with the frame's aspect if its pixels are not square."""
    rows, columns = window.frame_size(height, width)
    return window if abs(columns / rows / aspect - 1) < _SQUARE_PIXEL else replace(window, aspect=aspect)


def _fit_line(values: Tensor, grain: float) -> tuple[float, float, float]:
    """Fit a line through values at pixel centres.

    Nearest-neighbour sampling shifts values by up to half a source pixel, all by the same amount if the scale is even. If a
    crop at whole source pixels explains every value, its edges replace the fitted line.

    Returns:
        The line's values at the first and the last edge, and the largest distance of a value from it.
    """
    n = len(values)
    t = (torch.arange(n, dtype=values.dtype) + 0.5) / n
    centred = t - 0.5
    slope = (centred * values).sum() / (centred**2).sum()
    first = values.mean() - 0.5 * slope
    picked = values / grain - 0.5
    if (picked - picked.round()).abs().max() < _WHOLE_PIXEL:
        ends = [((edge / grain).floor(), (edge / grain).ceil()) for edge in (first, first + slope)]
        for begin, end in product(*ends):
            if torch.equal((begin + t * (end - begin) + _WHOLE_PIXEL / 100).floor(), picked.round()):
                first, slope = begin * grain, (end - begin) * grain
                break
    return first.item(), (first + slope).item(), (values - first - slope * t).abs().max().item()
