"""The weak-perspective camera: from head space to the frame, and from the frame to an image.

Conventions: head space has x right, y up, z towards the viewer, metres. Frame units: origin at the frame's centre, one unit is
half its short side, u right, v down. Image NDC: -1 to 1 over the width and over the height, y down. Pixel coordinates are
continuous: pixel (i, j) covers [j, j + 1) × [i, i + 1) and its centre is (j + ½, i + ½). Depth grows away from the viewer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float

DECA_CROP = 224
"""Side length in pixels of the crop that DECA's camera refers to."""


@dataclass(frozen=True)
class Window:
    """A rectangle of the frame, in fractions of its width and height. It may extend beyond the frame.

    Attributes:
        left: Left edge, as a fraction of the frame's width.
        top: Top edge, as a fraction of the frame's height.
        right: Right edge, as a fraction of the frame's width.
        bottom: Bottom edge, as a fraction of the frame's height.
        aspect: Width of the frame over its height if the window is shown stretched; None if its pixels are square.

    Raises:
        BadInput: The rectangle is empty.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0
    aspect: float | None = None

    def __post_init__(self):
        if not (self.right > self.left and self.bottom > self.top):
            raise BadInput(f"Expected a window with right > left and bottom > top, got {self}.")

    def frame_size(self, height: float, width: float) -> tuple[float, float]:
        """Return (height, width) of the whole frame if this window has `height` × `width` pixels; only their ratio matters."""
        rows = height / (self.bottom - self.top)
        return rows, width / (self.right - self.left) if self.aspect is None else rows * self.aspect

    def within(self, outer: "Window") -> "Window":
        """Return the same area as a window of the frame. This window is relative to `outer`, which is relative to the frame."""
        width, height = outer.right - outer.left, outer.bottom - outer.top
        return Window(
            outer.left + self.left * width,
            outer.top + self.top * height,
            outer.left + self.right * width,
            outer.top + self.bottom * height,
            outer.aspect or self.aspect,
        )

    def inverse(self) -> "Window":
        """Return the whole frame as a window relative to this one."""
        width, height = self.right - self.left, self.bottom - self.top
        return Window(-self.left / width, -self.top / height, (1 - self.left) / width, (1 - self.top) / height)


WHOLE = Window()
"""The whole frame."""


def project(points: Float[Tensor, "B N 3"], camera: Float[Tensor, "B 3"]) -> Float[Tensor, "B N 3"]:
    """Project points with the weak-perspective camera.

    Args:
        points: Points in head space, in metres.
        camera: (s, tx, ty) in frame units.

    Returns:
        u, v and depth in frame units. Only the order of depths is meaningful.
    """
    s, tx, ty = (part[:, None] for part in camera.unbind(1))
    # u = s·x + tx,  v = -s·y + ty
    return torch.stack([s * points[..., 0] + tx, ty - s * points[..., 1], -s * points[..., 2]], dim=-1)


def half_side(height: float, width: float) -> float:
    """Return the length of one frame unit in pixels."""
    return min(height, width) / 2


def frame_to_ndc(points: Float[Tensor, "*batch D"], height: float, width: float) -> Float[Tensor, "*batch D"]:
    """Convert frame units to image NDC. D is 2 or 3; a third column, the depth, is left unchanged."""
    factor = points.new_ones(points.shape[-1])
    factor[0] = min(height, width) / width
    factor[1] = min(height, width) / height
    return points * factor


def ndc_in_window(points: Float[Tensor, "*batch D"], window: Window) -> Float[Tensor, "*batch D"]:
    """Convert image NDC of the frame to image NDC of a window. D is 2 or 3; a third column, the depth, is left unchanged."""
    if window == WHOLE:
        return points
    scale, shift = points.new_ones(points.shape[-1]), points.new_zeros(points.shape[-1])
    for axis, (low, high) in enumerate(((window.left, window.right), (window.top, window.bottom))):
        # fraction = (ndc + 1) / 2;  ndc' = 2 · (fraction - low) / (high - low) - 1
        scale[axis] = 1 / (high - low)
        shift[axis] = (1 - 2 * low) / (high - low) - 1
    return points * scale + shift


def frame_to_pixels(points: Float[Tensor, "*batch 2"], height: float, width: float) -> Float[Tensor, "*batch 2"]:
    """Convert frame units to pixel coordinates (x, y)."""
    return points * half_side(height, width) + points.new_tensor([width / 2, height / 2])


def pixels_to_frame(points: Float[Tensor, "*batch 2"], height: float, width: float) -> Float[Tensor, "*batch 2"]:
    """Convert pixel coordinates (x, y) to frame units."""
    return (points - points.new_tensor([width / 2, height / 2])) / half_side(height, width)


def detected_to_frame(points: Float[Tensor, "*batch 2"], height: float, width: float) -> Float[Tensor, "*batch 2"]:
    """Convert points from a detector, whose integer coordinates are pixel centres, to frame units."""
    return pixels_to_frame(points + 0.5, height, width)


def deca_camera(
    camera: Float[Tensor, "B 3"], crop_transform: Float[Tensor, "B 3 3"], height: int, width: int
) -> Float[Tensor, "B 3"]:
    """Combine DECA's camera and crop into one camera in frame units.

    DECA places a vertex at `s·(x + tx)`, `-s·(y + ty)` in its crop's NDC.

    Args:
        camera: (s, tx, ty) from DECA's encoder.
        crop_transform: Maps image pixels to pixels of the 224 × 224 crop by a scale and a shift.
        height: Height of the whole image in pixels.
        width: Width of the whole image in pixels.

    Returns:
        (s, tx, ty) in frame units.

    Raises:
        BadInput: A shape is wrong, or the crop is rotated, mirrored or stretched, which a weak-perspective camera cannot
            express.
    """
    if camera.shape[-1] != 3 or tuple(crop_transform.shape[-2:]) != (3, 3):
        raise BadInput(f"Expected [B, 3] and [B, 3, 3], got {list(camera.shape)} and {list(crop_transform.shape)}.")
    zoom = crop_transform[:, 0, 0]
    skew = torch.stack([crop_transform[:, 0, 1], crop_transform[:, 1, 0], crop_transform[:, 1, 1] - zoom])
    if (zoom <= 0).any() or (skew.abs() > 1e-4 * zoom).any():
        raise BadInput(
            "DECA's crop: expected an upright square (a positive scale and a shift), got "
            f"{crop_transform[:, :2, :2].tolist()}. Crop without rotating the photo."
        )
    s, tx, ty = camera.unbind(1)
    # crop pixel = 112·ndc + 112;  image pixel = (crop pixel - shift) / zoom
    middle = DECA_CROP / 2
    origin = torch.stack([middle * (s * tx + 1), middle * (1 - s * ty)], dim=1)
    origin = pixels_to_frame((origin - crop_transform[:, :2, 2]) / zoom[:, None], height, width)
    return torch.cat([(middle * s / zoom / half_side(height, width))[:, None], origin], dim=1)
