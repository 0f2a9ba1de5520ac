"""Record the input of each control for each row of latents, and compute its error.

A stock ControlNet precedes CapFace in the same chain. Its control image is a map of the frame (red: fraction of the width,
green: fraction of the height, blue: index of the frame). The part that a pack passes to it therefore shows the latents'
position. CapFace's head for the same latents is compared with this part of the whole frame's head.
"""

import torch
import torch.nn.functional as F


def frame_map(frames, height, width):
    """Make a control image `[frames, height, width, 3]` in which each pixel holds its position and its frame."""
    x = (torch.arange(width) + 0.5) / width
    y = (torch.arange(height) + 0.5) / height
    t = (torch.arange(frames) + 1) / frames
    parts = torch.broadcast_tensors(x[None, None, :], y[None, :, None], t[:, None, None])
    return torch.stack(parts, dim=-1).contiguous()


class Spy:
    """Records the control images and the heads for latents; a context manager."""

    def __init__(self, stock, network):
        self.stock, self.network = stock.control_model, network
        self.maps, self.heads, self.encoded = [], [], []  # (x, map), (x, hint), (guided, hint), one row each

    def __enter__(self):
        stock_forward = self.stock.forward
        forward, encode_hint = self.network.forward, self.network.encode_hint

        def stock_spy(x, hint, *args, **kwargs):
            for row, part in zip(x, hint.expand(len(x), -1, -1, -1), strict=True):
                self.maps.append((row.float().clone(), part.float().clone()))
            return stock_forward(x, hint, *args, **kwargs)

        def encode_spy(hint):
            guided, mask = encode_hint(hint)
            self.encoded += [(g.clone(), h.float().clone()) for g, h in zip(guided, hint, strict=True)]
            return guided, mask

        def forward_spy(x, timesteps, guided, context):
            for row, g in zip(x, guided.expand(len(x), -1, -1, -1), strict=True):
                self.heads.append((row.float().clone(), self._hint_of(g)))
            return forward(x, timesteps, guided, context)

        self.stock.forward, self.network.forward, self.network.encode_hint = stock_spy, forward_spy, encode_spy
        return self

    def __exit__(self, *_):
        del self.stock.forward, self.network.forward, self.network.encode_hint

    def _hint_of(self, guided):
        found = [hint for g, hint in reversed(self.encoded) if g.shape == guided.shape and torch.equal(g, guided)]
        if not found:
            raise AssertionError("the network was given a head that it had not encoded")
        return found[0]

    def head_for(self, x):
        """Return the head (hint) that was used with latents x, which were evaluated in this run."""
        alike = [(float((other - x).abs().max()), hint) for other, hint in self.heads if other.shape == x.shape]
        if not alike:
            raise AssertionError(f"CapFace was not asked about latents of {tuple(x.shape)}")
        distance, hint = min(alike, key=lambda pair: pair[0])
        if distance > 1e-3:
            raise AssertionError(f"CapFace saw other latents than the ControlNet before it ({distance:.3f} off)")
        return hint

    def errors(self, frame):
        """Return the relative error of the head of each row of latents."""
        return [frame.error(self.head_for(x), frame.part(part)) for x, part in self.maps]


class Frame:
    """The whole frame's heads, which can be cut into the same parts as other packs cut the frame."""

    def __init__(self, head, height, width, detail=1024):
        """Take heads and the frame that they are in.

        Args:
            head: The condition, for one or more frames.
            height: Height of the frame in pixels.
            width: Width of the frame in pixels.
            detail: Pixels of the longer side of the rendering from which parts at other scales are made.
        """
        self.head, self.height, self.width = head, height, width
        self.hint = head.hint(height, width).clone()
        self.times = max(1, round(detail / max(height, width)))
        self._fine = None
        self.typical = float(self.hint.square().mean().sqrt())

    def map(self):
        """Make the control image of `frame_map`."""
        return frame_map(len(self.hint), self.height, self.width)

    def part(self, part):
        """Return the hint `[9, h, w]` at the position of a piece `[3, h, w]` of the map."""
        frame = round(float(part[2].median()) * len(self.hint)) - 1
        xs, ys = part[0].mean(0) * self.width - 0.5, part[1].mean(1) * self.height - 0.5
        columns, rows = xs.round().long(), ys.round().long()
        exact = max((xs - columns).abs().max(), (ys - rows).abs().max()) < 0.02
        if exact and same_scale(columns) and same_scale(rows):
            return self.hint[frame][:, rows[:, None], columns[None, :]]
        return self.window(line(xs, self.width), line(ys, self.height), len(xs), len(ys), frame)

    def window(self, across, down, width, height, frame=0):
        """Return the hint of a window of the frame, (start, end) as fractions of its sides, at width × height pixels."""
        if self._fine is None:
            self._fine = self.head.hint(self.times * self.height, self.times * self.width).clone()
        xs = (torch.arange(width) + 0.5) / width * (across[1] - across[0]) + across[0]
        ys = (torch.arange(height) + 0.5) / height * (down[1] - down[0]) + down[0]
        grid = torch.stack(torch.broadcast_tensors(2 * xs[None, :] - 1, 2 * ys[:, None] - 1), dim=-1)[None].float()
        return F.grid_sample(self._fine[frame][None], grid, mode="bilinear", align_corners=False)[0]

    def error(self, got, wanted):
        """Return |got - wanted| / |wanted|. The denominator is at least a tenth of the frame's average."""
        if got.shape != wanted.shape:
            raise AssertionError(f"a head of {tuple(got.shape)} for a part of {tuple(wanted.shape)}")
        return float((got - wanted).norm()) / max(float(wanted.norm()), 0.1 * self.typical * wanted.numel() ** 0.5)


def same_scale(positions):
    """Return whether a picture's rows or columns are not scaled; they may wrap around its edge."""
    jumps = positions.diff()
    return bool((jumps[jumps != 1] < 0).all()) and int((jumps != 1).sum()) <= 1


def line(positions, size):
    """Return start and end of a part cut at whole pixels, as fractions of the frame, from its positions rounded to pixels."""
    i = torch.arange(len(positions), dtype=torch.float64)
    positions = positions.double() + 0.5
    step = ((i - i.mean()) * (positions - positions.mean())).sum() / (i - i.mean()).square().sum()
    start = positions.mean() - step * i.mean() - step / 2
    return round(float(start)) / size, round(float(start + step * len(positions))) / size
