"""Depth and normals of heads, coloured as the ControlNets of other models were trained on them.

Conventions: `Surface` has head space's axes, x right, y up, z towards the viewer. A depth picture is brighter where the surface
is nearer, inverse depth, scaled so that each picture spans 0..1: what MiDaS and Depth Anything give, and what ControlNets for
depth expect. Normals `n` become colours `(n + 1) / 2` after a change of axes (`NORMALS`). The background of normals is a wall
that faces the viewer, except in Arc2Face's, where it is grey.

Sources: the preprocessors of comfyui_controlnet_aux for depth and MiDaS's normals; for Bae's, the description of ControlNet
1.1's model ("blue is front, red is left, green is top", the axes of ScanNet); Arc2Face's demo and its copy of EMOCA.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import BadInput
from ...shapes import Float
from ..model import HeadModel, HeadParams
from ..render import place_mesh, rasterize

NEAREST, FARTHEST = 0.05, 100.0
"""Distances from the camera to the nearest point of a head, in metres, that depth accepts."""


@dataclass(frozen=True, eq=False)
class Surface:
    """What a picture of heads shows at each pixel. The background is 0."""

    normal: Float[Tensor, "B 3 H W"]
    """Interpolated normals in head space, not normalised."""
    height: Float[Tensor, "B 1 H W"]
    """z in metres: larger is nearer to the viewer."""
    alpha: Float[Tensor, "B 1 H W"]
    """1 on the head, 0 elsewhere."""


@dataclass(frozen=True)
class NormalColors:
    """How a model's control encodes normals as colours."""

    axes: tuple[int, int, int]
    """The axis of red, green and blue: 1 right, 2 up, 3 towards the viewer; negative for the opposite direction."""
    unit: bool = True
    """Whether normals have length 1."""
    background: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """The background's normal, in head space."""


NORMALS = {
    "normal BAE": NormalColors((-1, 2, 3)),
    "normal OpenGL": NormalColors((1, 2, 3)),
    "normal MiDaS": NormalColors((3, 2, -1)),
    "normal Arc2Face": NormalColors((1, 2, 3), unit=False, background=(0.0, 0.0, 0.0)),
}
"""The encodings by kind of control image."""


def head_surface(model: HeadModel, params: HeadParams, height: int, width: int) -> Surface:
    """Render normals and depth of heads. UVs and texture are not needed.

    Args:
        model: The head model.
        params: B heads on the model's device.
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.

    Raises:
        BadInput: As `place_mesh`.
    """
    projected, normals = place_mesh(model, params, height, width)
    face, barycentric = rasterize(projected, model.faces, height, width)
    # depth in frame units is -s z
    z = -projected[..., 2:] / params.camera[:, :1, None]
    attributes = torch.cat([normals, z], dim=2)
    maps = attributes.new_zeros(params.batch, height * width, 4)
    for frame in range(params.batch):
        pixels = (face[frame].view(-1) >= 0).nonzero().squeeze(1)
        corners = attributes[frame][model.faces[face[frame].view(-1)[pixels]]]
        maps[frame, pixels] = (corners * barycentric[frame].view(-1, 3)[pixels, :, None]).sum(1)
    maps = maps.movedim(2, 1).unflatten(2, (height, width))
    return Surface(maps[:, :3], maps[:, 3:], (face >= 0)[:, None].float())


def depth_picture(surface: Surface, distance: float) -> Float[Tensor, "B 3 H W"]:
    """Make a depth picture as MiDaS and Depth Anything make it: inverse depth, each picture scaled to 0..1, near is bright.

    The background is infinitely far, so it is 0 where it shows. With d the distance from the camera to the nearest point of the
    head and h how far a point lies behind that, its brightness is d / (d + h): a small d gives the face much relief.

    Args:
        surface: B heads.
        distance: d in metres.

    Raises:
        BadInput: The distance is not from `NEAREST` to `FARTHEST`.
    """
    if not NEAREST <= distance <= FARTHEST:
        raise BadInput(f"Expected a camera distance from {NEAREST:g} to {FARTHEST:g} metres, got {distance:g}.")
    inside = surface.alpha > 0
    nearest = torch.where(inside, surface.height, -torch.inf).flatten(1).amax(1)[:, None, None, None]
    inverse = torch.where(inside, 1 / (distance + nearest - surface.height), 0.0)
    low, high = inverse.flatten(1).aminmax(dim=1)
    low, high = low[:, None, None, None], high[:, None, None, None]
    return ((inverse - low) / (high - low).clamp(min=1e-12)).expand(-1, 3, -1, -1)


def normal_picture(surface: Surface, colors: NormalColors) -> Float[Tensor, "B 3 H W"]:
    """Encode the normals of heads as colours in 0..1."""
    normal = surface.normal
    if colors.unit:
        normal = torch.nn.functional.normalize(normal, dim=1, eps=1e-6)
    background = normal.new_tensor(colors.background)[:, None, None]
    normal = torch.where(surface.alpha > 0, normal, background)
    axes = [abs(axis) - 1 for axis in colors.axes]
    signs = normal.new_tensor([1.0 if axis > 0 else -1.0 for axis in colors.axes])[:, None, None]
    return (normal[:, axes] * signs + 1) / 2
