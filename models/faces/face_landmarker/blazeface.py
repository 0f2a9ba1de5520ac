"""BlazeFace for short range, which finds faces that fill at least about a tenth of a picture.

For each of 896 anchors on two grids it gives a score, a box and six points. Boxes that overlap are averaged.

Source: Bazarevsky et al., *BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs* (2019), sections 3 and 4, and the
graph of MediaPipe's `face_detector.tflite`. The keys are those of ComfyUI's file.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ....shapes import Float
from ...build import Device, Dtype, Operations
from .layers import depthwise, filtered, pad_same, shortcut

DETECTOR_SIZE = 128
"""Side of the input in pixels, also the unit of the regressed offsets."""
KEYPOINTS = ("left eye", "right eye", "nose", "mouth", "left ear", "right ear")
"""In the order of the network; left and right are the image's, as in `detection`."""
ANCHORS = ((16, 2), (8, 6))
"""Side of each grid, and anchors in each of its cells."""
VALUES = 4 + 2 * len(KEYPOINTS)
OVERLAP = 0.3
"""Intersection over union above which two boxes are one face."""
LARGEST_LOGIT = 100.0
WIDTHS = (24, 28, 32, 36, 42, 48, 56, 64, 72, 80, 88, 96, 96, 96, 96, 96)
"""Output channels of the blocks."""
HALVING = (2, 5, 11)
"""Blocks with stride 2. The finer grid is taken before the last of them."""


class Block(torch.nn.Module):
    """`relu(shortcut(x) + pointwise(depthwise(x)))` (BlazeFace, figure 1, left)."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, device: Device, dtype: Dtype, operations: Operations):
        super().__init__()
        self.outputs, self.stride = outputs, stride
        self.depthwise = depthwise(inputs, stride, device=device, dtype=dtype, operations=operations)
        self.pointwise = operations.Conv2d(inputs, outputs, 1, device=device, dtype=dtype)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Map `[B, inputs, H, W]` to `[B, outputs, H / stride, W / stride]`."""
        y = self.pointwise(filtered(self.depthwise, x, self.stride))
        return F.relu(shortcut(x, self.outputs, self.stride) + y)


class BlazeFace(torch.nn.Module):
    """The detector's network.

    Args:
        device: Device of the parameters.
        dtype: Type of the parameters.
        operations: Namespace of `Conv2d`.
    """

    def __init__(self, *, device: Device = None, dtype: Dtype = None, operations: Operations = torch.nn):
        super().__init__()
        build = {"device": device, "dtype": dtype}
        self.stem = operations.Conv2d(3, WIDTHS[0], 5, 2, **build)
        self.blocks = torch.nn.ModuleList(
            Block(inputs, outputs, 2 if number in HALVING else 1, operations=operations, **build)
            for number, (inputs, outputs) in enumerate(zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False))
        )
        (_, fine), (_, coarse) = ANCHORS
        self.cls_16 = operations.Conv2d(WIDTHS[HALVING[-1] - 1], fine, 1, **build)
        self.cls_8 = operations.Conv2d(WIDTHS[-1], coarse, 1, **build)
        self.reg_16 = operations.Conv2d(WIDTHS[HALVING[-1] - 1], fine * VALUES, 1, **build)
        self.reg_8 = operations.Conv2d(WIDTHS[-1], coarse * VALUES, 1, **build)

    def forward(self, images: Float[Tensor, "B 3 128 128"]) -> tuple[Float[Tensor, "B 896 16"], Float[Tensor, "B 896"]]:
        """Compute the raw values of all anchors.

        Args:
            images: `[B, 3, 128, 128]`, RGB in -1..1; -1 outside the picture.

        Returns:
            `[B, 896, 16]`: the centre's offset from the anchor, width, height and the six points' offsets, each (x, y), in
            pixels of the input; and `[B, 896]`: scores as logits.
        """
        x = F.relu(self.stem(pad_same(images, 5)))
        for block in self.blocks[: HALVING[-1]]:
            x = block(x)
        fine = x
        for block in self.blocks[HALVING[-1] :]:
            x = block(x)
        values = [_rows(self.reg_16(fine), VALUES), _rows(self.reg_8(x), VALUES)]
        logits = [_rows(self.cls_16(fine), 1), _rows(self.cls_8(x), 1)]
        return torch.cat(values, dim=1), torch.cat(logits, dim=1)[..., 0]


def _rows(x: Float[Tensor, "B C H W"], width: int) -> Float[Tensor, "B N {width}"]:
    """List a grid's anchors row by row, and those of a cell one after the other."""
    return x.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, width))


def anchors() -> Float[Tensor, "896 2"]:
    """Return the anchors' centres `[896, 2]` in pixels of the input, counted from its corner."""
    centres: list[Tensor] = []
    for side, count in ANCHORS:
        line = (torch.arange(side) + 0.5) * (DETECTOR_SIZE / side)
        y, x = torch.meshgrid(line, line, indexing="ij")
        centres.append(torch.stack([x, y], dim=-1).flatten(0, 1).repeat_interleave(count, dim=0))
    return torch.cat(centres)


def decode(
    values: Float[Tensor, "B 896 16"], logits: Float[Tensor, "B 896"]
) -> tuple[Float[Tensor, "B 896 8 2"], Float[Tensor, "B 896"]]:
    """Convert the network's raw values to points and scores.

    Args:
        values: `[B, 896, 16]`, from `BlazeFace`.
        logits: `[B, 896]`, from `BlazeFace`.

    Returns:
        `[B, 896, 8, 2]`: the box's corners (left, top) and (right, bottom), and the six points, in pixels of the input, counted
        from its corner; and `[B, 896]`: scores in 0..1.
    """
    places = values.unflatten(-1, (8, 2))
    at = anchors().to(values)[:, None]
    centre, size = places[..., :1, :] + at, places[..., 1:2, :]
    points = torch.cat([centre - size / 2, centre + size / 2, places[..., 2:, :] + at], dim=-2)
    return points, logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).sigmoid()


def merge(points: Float[Tensor, "N 8 2"], scores: Float[Tensor, " N"]) -> tuple[Float[Tensor, "M 8 2"], Float[Tensor, " M"]]:
    """Average overlapping detections, weighted by their scores (BlazeFace, section 4.2, instead of dropping all but the best).

    Args:
        points: `[N, 8, 2]`: the corners of the box and six points.
        scores: `[N]`, in 0..1.

    Returns:
        `[M, 8, 2]` and `[M]`, the best first; a face has the score of its best detection.
    """
    order = scores.argsort(descending=True)
    points, scores = points[order], scores[order]
    low, high = points[:, 0], points[:, 1]
    size = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0)
    area = (high - low).clamp(min=0).prod(-1)
    common = size.prod(-1)
    same = common > OVERLAP * (area[:, None] + area - common)
    left = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    faces: list[Tensor] = []
    best: list[Tensor] = []
    for i in range(len(scores)):
        if not left[i]:
            continue
        group = same[i] & left
        group[i] = True
        weights = scores[group]
        faces.append((points[group] * weights[:, None, None]).sum(0) / weights.sum())
        best.append(scores[i])
        left &= ~group
    return (torch.stack(faces), torch.stack(best)) if faces else (points, scores)
