"""Control images whose pixels are coordinates of the frame.

Packs that sample a picture in parts cut a control's image as they cut the picture: into tiles, crops or rolled strips, at other
sizes. CapFace's control has no image, since it draws the head at the size it is asked for. It offers this one instead: whatever
is done to it, each pixel still says which place of the frame it shows, so that the part can be drawn afresh.

Conventions: float32 `[B, 3, H, W]` in 0..1. The channels are the shares of the frame's width and height at the pixel's centre
(x right, y down), and (frame number + 1) / B, which is 0 for pixels that somebody has padded.
"""

import hashlib
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from ..flame.camera import WHOLE, Window
from ..flame.condition import HeadCondition, HintImages, cut, sample

SIDES = (1920, 960, 480, 240)
"""Sides of an image for a frame of unknown size. Tile borders of the usual frame sizes fall on whole pixels of the first."""
MOST_PIXELS = 6_000_000
"""Pixels of all frames' images together, from which a smaller side is taken."""

_SAME = 2e-3
"""How far numbers of frames may be apart that are the same: half precision."""
_WHOLE = 1e-2
"""How far from whole numbers numbers of pixels may be: single precision."""
_SQUARE = 4e-3
"""How far the sides of a pixel may be apart that is taken for square: less than rounding to multiples of 8 makes."""


def coordinate_image(frames: int, size: tuple[int, int] | None = None) -> Tensor:
    """Make the image.

    Args:
        frames: Number of frames B.
        size: (H, W) in pixels where the frame's size is known.

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
    """Return the side of an image for a frame of unknown size."""
    return next((side for side in SIDES if frames * side**2 <= MOST_PIXELS), SIDES[-1])


@dataclass(frozen=True, eq=False)
class Places:
    """A part of the frame that is no rectangle, such as a tile that goes on at the other side of the picture."""

    x: Tensor
    """`[h, w]`, shares of the frame's width, on the CPU."""
    y: Tensor
    """`[h, w]`, shares of its height."""
    inside: Tensor
    """bool `[h, w]`; False where pixels were padded."""

    def __post_init__(self):
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.x, self.y, self.inside):
            digest.update(part.contiguous().numpy().tobytes())
        object.__setattr__(self, "_key", digest.digest())

    def __eq__(self, other):
        return isinstance(other, Places) and self._key == other._key

    def __hash__(self):
        return hash(self._key)

    def within(self, outer: Window) -> "Places":
        """Return these places of `outer` as places of the frame that `outer` is a window of."""
        x = outer.left + self.x * (outer.right - outer.left)
        y = outer.top + self.y * (outer.bottom - outer.top)
        return Places(x, y, self.inside)

    def look_up(self, images: Tensor) -> Tensor:
        """Sample images of the frame `[B, C, H, W]` at these places: `[B, C, h, w]`, 0 where pixels were padded."""
        found = sample(images, self.x[None].to(images.device), self.y[None].to(images.device))
        return found * self.inside.to(found.device)

    def frame_size(self) -> tuple[int, int]:
        """Rows and columns that the whole frame has at this part's scale, as multiples of 8."""
        down = self.y.diff(dim=0)[self.inside[1:] & self.inside[:-1]]
        right = self.x.diff(dim=1)[self.inside[:, 1:] & self.inside[:, :-1]]
        rows, columns = (max(8, 8 * round(1 / _usual_step(steps) / 8)) for steps in (down, right))
        return rows, columns


View = Window | Places
"""What part of the frame a latent shows."""


def _usual_step(steps: Tensor) -> float:
    """The mean of steps without the few jumps among them."""
    sizes = steps.abs()
    moving = sizes[sizes > 0]
    if not len(moving):
        return 1 / SIDES[0]
    return max(sizes[sizes <= 4 * moving.median()].mean().item(), 1e-5)


def hint_of(condition: HeadCondition | HintImages, view: View, height: int, width: int) -> Tensor:
    """Draw a part of the frame: float32 `[B, 9, height, width]`."""
    if view == WHOLE:
        return condition.hint(height, width)
    if isinstance(view, Window):
        return condition.hint_in(view, height, width)
    return view.look_up(condition.hint(*view.frame_size()))


def part_of(images: Tensor, view: View, height: int, width: int) -> Tensor:
    """Cut a part out of images of the frame: `[B, C, height, width]`, or the images as they are for all of it."""
    if view == WHOLE:
        return images
    return cut(images, view, height, width) if isinstance(view, Window) else view.look_up(images)


def read_image(image: Tensor, frames: int, frame_size: tuple[int, int] | None) -> list[tuple[View, int] | None]:
    """Read what parts of the frame an image shows that was made of coordinates.

    Args:
        image: `[R, 3, h, w]` of any float type, on any device.
        frames: Number of frames B.
        frame_size: (H, W) in pixels where the frame's size is known: tiles that are shown stretched are drawn stretched.

    Returns:
        For each of the R rows, the part and the number of its frame; None for a row that was not made of coordinates.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        return [None] * len(image)
    grain_y, grain_x = (1 / side for side in frame_size or (side_for(frames),) * 2)
    x, y, number = image.float().unbind(1)
    along_x, along_y = x.mean(-2), y.mean(-1)
    flat = torch.maximum(
        (x - along_x[:, None]).abs().flatten(1).amax(1), (y - along_y[..., None]).abs().flatten(1).amax(1)
    ).tolist()
    padded = (number <= _SAME).flatten(1).any(1).tolist()
    shares = number.flatten(1).amax(1)
    # Nobody's picture has a channel of one value, and nothing else but padding.
    strange = ((number - shares[:, None, None]).abs() > _SAME) & (number.abs() > _SAME)
    ours = ~strange.flatten(1).any(1) & (shares > 0)
    shares, ours = shares.tolist(), ours.tolist()
    along_x, along_y = along_x.double().cpu(), along_y.double().cpu()
    read = []
    for row, share in enumerate(shares):
        if not ours[row]:
            read.append(None)
            continue
        (left, right, off_x), (top, bottom, off_y) = _line(along_x[row], grain_x), _line(along_y[row], grain_y)
        step_x, step_y = (right - left) / x.shape[-1], (bottom - top) / x.shape[-2]
        exact = flat[row] <= max(grain_x, grain_y) and off_x <= max(step_x, grain_x) and off_y <= max(step_y, grain_y)
        if exact and not padded[row] and step_x > 0 and step_y > 0:
            edges = (left, top, right - 1, bottom - 1)
            whole = all(abs(edge) < step / 4 for edge, step in zip(edges, (step_x, step_y) * 2, strict=True))
            view = WHOLE if whole else Window(left, top, right, bottom)
            if frame_size is not None:
                view = _stretched(view, frame_size[1] / frame_size[0], *x.shape[-2:])
        else:
            view = Places(x[row].cpu(), y[row].cpu(), number[row].cpu() > _SAME)
        read.append((view, max(0, round(share * frames) - 1)))
    return read


def _stretched(window: Window, aspect: float, height: int, width: int) -> Window:
    """A window of a frame of this aspect, which pixels that are not square may show."""
    rows, columns = window.frame_size(height, width)
    return window if abs(columns / rows / aspect - 1) < _SQUARE else replace(window, aspect=aspect)


def _line(values: Tensor, grain: float) -> tuple[float, float, float]:
    """Fit a line through values at pixel centres: its values at the first and last edge, and the largest distance from it.

    Values that were picked from an image, not mixed, are off by up to half its pixel, all in one direction where pixels are
    picked evenly. So it is tried whether a cut at whole pixels of that image explains them all.
    """
    n = len(values)
    t = (torch.arange(n, dtype=values.dtype) + 0.5) / n
    centred = t - 0.5
    slope = (centred * values).sum() / (centred**2).sum()
    first = values.mean() - 0.5 * slope
    picked = values / grain - 0.5
    if (picked - picked.round()).abs().max() < _WHOLE:
        ends = [((edge / grain).floor(), (edge / grain).ceil()) for edge in (first, first + slope)]
        for begin, end in product(*ends):
            if torch.equal((begin + t * (end - begin) + _WHOLE / 100).floor(), picked.round()):
                first, slope = begin * grain, (end - begin) * grain
                break
    return first.item(), (first + slope).item(), (values - first - slope * t).abs().max().item()
