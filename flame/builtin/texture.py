"""The procedural texture of the built-in head: an average and a basis of named components.

Conventions: RGB in 0..1, albedo without light; the layout is that of `uv.py`. Everything is painted as a function of the
position on the head, so it lies where the mesh has lips, brows and lids. One unit of a component is one standard deviation.
"""

import numpy as np

from ...shapes import Bool, Float
from . import uv
from .anthropometry import Measures
from .curves import Grid, bell, blob, smoothstep
from .lines import brow_line, lid_lines, lip_thickness
from .mesh import Mesh
from .sections import JAW_ROW, MOUTH_COL, MOUTH_ROW

SIZE = 384
_SKIN = np.array([0.765, 0.590, 0.500])
_HAIR = np.array([0.250, 0.185, 0.145])
_LIPS = np.array([0.695, 0.400, 0.375])

# name: the mask that it acts on, and the RGB that one unit adds there
_COMPONENTS: dict[str, tuple[str, tuple[float, float, float]]] = {
    "skin_tone": ("flesh", (-0.120, -0.125, -0.120)),
    "skin_warmth": ("flesh", (0.012, -0.004, -0.028)),
    "redness": ("blush", (0.024, -0.022, -0.019)),
    "lip_red": ("lips", (0.018, -0.035, -0.026)),
    "lip_dark": ("lips", (-0.060, -0.050, -0.042)),
    "brow_dark": ("brows", (-0.065, -0.060, -0.055)),
    "hair_dark": ("hair", (-0.075, -0.068, -0.060)),
    "hair_warm": ("hair", (0.045, 0.014, -0.022)),
    "bald": ("crown", (0.090, 0.068, 0.056)),
    "iris_blue": ("iris", (-0.055, 0.018, 0.085)),
    "iris_light": ("iris", (0.075, 0.075, 0.055)),
    "stubble": ("beard", (-0.065, -0.053, -0.043)),
    "freckles": ("freckles", (-0.050, -0.055, -0.048)),
    "eye_shadow": ("lids", (-0.045, -0.048, -0.038)),
    "under_eye": ("bags", (-0.038, -0.042, -0.024)),
}
TEXTURE_NAMES = tuple(_COMPONENTS)


def paint(
    mesh: Mesh, half: Float[np.ndarray, "H 3"]
) -> tuple[Float[np.ndarray, "3 size size"], Float[np.ndarray, "C 3 size size"]]:
    """Paint the average texture and the basis, in the order of TEXTURE_NAMES; size is SIZE."""
    mean = np.zeros((SIZE, SIZE, 3), np.float32)
    masks = {name: np.zeros((SIZE, SIZE), np.float32) for name, _ in _COMPONENTS.values()}
    place, row = (array.astype(np.float32) for array in uv.skin_positions(mesh, half, SIZE))
    for side, columns in ((1, slice(SIZE // 2, None)), (-1, slice(SIZE // 2 - 1, None, -1))):
        colour, found = _paint_skin(mesh, half, place, row, side)
        mean[: len(place), columns] = colour
        for name, mask in found.items():
            masks[name][: len(place), columns] = mask
    _paint_islands(mean, masks)
    basis = np.stack([masks[name] * np.array(by, np.float32)[:, None, None] for name, by in _COMPONENTS.values()])
    return mean.transpose(2, 0, 1).clip(0, 1), basis


def _waves(place: Float[np.ndarray, "R C 3"], length: float, seed: int) -> Grid:
    """Return smooth noise of about unit variance over the head; `length` is its wavelength in metres."""
    random = np.random.Generator(np.random.PCG64(seed))
    directions = random.standard_normal((10, 3), np.float32)
    directions *= 2 * np.pi / length / np.linalg.norm(directions, axis=1, keepdims=True)
    directions *= random.uniform(0.7, 1.4, (10, 1)).astype(np.float32)
    phases = random.uniform(0, 2 * np.pi, 10).astype(np.float32)
    return np.sin(place @ directions.T + phases).sum(-1) / np.float32(np.sqrt(5))


def _mix(colour: Float[np.ndarray, "R C 3"], other: Float[np.ndarray, "*_ 3"], amount: Grid) -> Float[np.ndarray, "R C 3"]:
    return colour + amount[..., None] * (other - colour)


def _paint_skin(
    mesh: Mesh, half: Float[np.ndarray, "H 3"], place: Float[np.ndarray, "R C 3"], row: Float[np.ndarray, "R 1"], side: int
) -> tuple[Float[np.ndarray, "R C 3"], dict[str, Grid]]:
    """Paint colour and masks of one half of the strip."""
    m = Measures()
    x, y, z = place[..., 0], place[..., 1], place[..., 2]
    own = place * np.array([side, 1, 1])
    front = smoothstep(z, -0.02, 0.015)
    slit = half[mesh.upper[MOUTH_ROW, :MOUTH_COL]]
    coarse, middle, fine = _waves(own, 0.050, 1), _waves(own, 0.012, 2), _waves(own, 0.0035, 3)

    lip_line = np.interp(x, slit[:, 0], slit[:, 1])
    up, down = lip_thickness(m, x)
    above = smoothstep((y - lip_line) - up, 0.0005, -0.0005) * (y >= lip_line)
    below = smoothstep((lip_line - y) - down, 0.0006, -0.0006) * (y < lip_line)
    lips = front * (above + below) * smoothstep(x, m.mouth_width * 1.03, m.mouth_width * 0.96)
    line, lid_up, lid_down = lid_lines(m, x, (0, 0))
    over, under = y - (line + lid_up), (line + lid_down) - y
    in_eye = smoothstep(np.abs(x - m.eye_x), m.eye_width * 0.53, m.eye_width * 0.47) * front
    lash = in_eye * np.maximum(
        smoothstep(over, 0.0011, 0.0003) * (y > line), 0.55 * smoothstep(under, 0.0008, 0.0002) * (y < line)
    )
    lids = front * blob(x, y, m.eye_x, m.eye_y + 0.0085, 0.0135, 0.0045)
    bags = front * blob(x, y, m.eye_x - 0.003, m.eye_y - 0.0110, 0.0110, 0.0040)
    cheeks = blob(x, y, 0.040, -0.006, 0.015, 0.013)
    nose = blob(x, y, 0.0, -0.011, 0.013, 0.008)
    blush = front * np.maximum(np.maximum(cheeks, nose), 0.7 * blob(x, y, 0.0, -0.073, 0.016, 0.009)) * (1 + 0.15 * middle)
    brows = front * _brows(m, x, y, side)
    hair = _hair(own, x, y, z)
    beard = front * _beard(m, x, y, z, lip_line, up, down) * (1 + 0.25 * fine) * (1 - lips)
    freckles = front * _freckles(own) * (1 - lips)

    colour = _SKIN * (1 + 0.014 * coarse + 0.006 * middle + 0.004 * fine)[..., None]
    colour = colour + blush[..., None] * np.array([0.035, -0.045, -0.040])
    colour = _mix(colour, np.array([0.68, 0.47, 0.42]), 0.40 * lids)
    colour = _mix(colour, np.array([0.64, 0.47, 0.42]), 0.30 * bags)
    # places that little light reaches: the inner orbit, the nostrils, the corners of the mouth, below the lip and the jaw
    dark = 0.20 * front * blob(x, y, 0.0160, 0.0330, 0.0045, 0.0055)
    dark = dark + 0.85 * front * blob(x, y, 0.0072, -0.0178, 0.0030, 0.0016)
    dark = dark + 0.18 * front * blob(x, y, m.nose_width + 0.0015, -0.0140, 0.0022, 0.0050)
    dark = dark + 0.12 * front * blob(x, y, m.mouth_width * 1.03, slit[-1, 1], 0.0020, 0.0016)
    dark = dark + 0.10 * front * blob(x, y, 0.0, -0.0560, 0.0140, 0.0030)
    dark = dark + 0.10 * smoothstep(row, JAW_ROW - 1, JAW_ROW + 3)
    colour = colour * (1 - dark[..., None] * np.array([0.85, 1.0, 1.0]))
    colour = colour - (0.035 * beard)[..., None] * np.array([1.0, 0.8, 0.6])
    colour = _mix(colour, _LIPS * (1 + 0.02 * fine[..., None]), 0.85 * lips)
    colour = _mix(colour, np.array([0.30, 0.13, 0.12]), 0.75 * front * bell(y, lip_line, 0.0007) * (x < m.mouth_width))
    colour = _mix(colour, _HAIR * (1 + 0.06 * fine[..., None]), 0.55 * hair)
    colour = _mix(colour, np.array([0.215, 0.155, 0.125]), 0.82 * brows)
    colour = _mix(colour, np.array([0.12, 0.085, 0.075]), 0.90 * lash)
    flesh = (1 - 0.7 * hair) * (1 - brows) * (1 - lash) * (1 - 0.6 * lips)
    return colour, {
        "flesh": flesh, "blush": blush, "lips": lips, "brows": brows, "hair": hair,
        "crown": hair * smoothstep(y, 0.060, 0.110), "beard": beard,
        "freckles": freckles, "lids": lids, "bags": bags, "iris": np.zeros_like(x),
    }  # fmt: skip


def _brows(m: Measures, x: Grid, y: Grid, side: int) -> Grid:
    """Return the density of brows made of single hairs, 0 to 1."""
    out = np.zeros_like(x)
    region = (x > 0.004) & (x < 0.056) & (np.abs(y - brow_line(m, x)) < 0.011)
    px, py = x[region], y[region]
    random = np.random.Generator(np.random.PCG64(10 + side))
    count = 240
    t = random.uniform(0, 1, count)
    root_x = 0.0095 + 0.0395 * t
    thick = 0.0036 * (1 - 0.62 * smoothstep(t, 0.45, 1.0)) * (0.70 + 0.30 * smoothstep(t, 0.0, 0.15))
    root_y = brow_line(m, root_x) + random.uniform(-1, 0.75, count) * thick
    # hairs stand up at the nose and lie down outwards
    angle = np.radians(np.interp(t, [0, 0.15, 0.5, 1], [78, 50, 22, -28])) + random.normal(0, 0.16, count)
    length = random.uniform(0.0032, 0.0056, count)
    u = (px - 0.0095) / 0.0395
    body = 0.0036 * (1 - 0.62 * smoothstep(u, 0.45, 1.0)) * smoothstep(u, -0.08, 0.15) * smoothstep(u, 1.12, 0.9) + 1e-6
    density = 0.50 * smoothstep(np.abs(py - brow_line(m, px)) / body, 1.25, 0.3)
    for hx, hy, a, reach, strength in zip(root_x, root_y, angle, length, random.uniform(0.45, 0.85, count), strict=True):
        along = (px - hx) * np.cos(a) + (py - hy) * np.sin(a)
        across = (py - hy) * np.cos(a) - (px - hx) * np.sin(a)
        hair = smoothstep(np.abs(across), 0.00055, 0.0001) * smoothstep(
            np.abs(along - reach / 2), reach / 2, reach / 2 - 0.0008
        )
        density = 1 - (1 - density) * (1 - strength * hair)
    out[region] = density
    return out


def hairline(z: np.ndarray) -> np.ndarray:
    """Return the height of the hairline at each depth, from the nape (back) to the forehead (front), on the average head."""
    return np.interp(
        z,
        [-0.110, -0.080, -0.060, -0.045, -0.030, -0.022, -0.012, 0.010, 0.030, 0.050, 0.060],
        [-0.072, -0.066, -0.030, 0.020, 0.005, 0.010, 0.052, 0.066, 0.089, 0.094, 0.097],
    )


def _hair(own: Float[np.ndarray, "R C 3"], x: Grid, y: Grid, z: Grid) -> Grid:
    """Return the density of short hair on the scalp, 0 to 1: hairline, temples, sideburns, around the ear and nape."""
    ragged = 0.0014 * _waves(own, 0.012, 4) + 0.0010 * _waves(own, 0.005, 5)
    line = hairline(z)
    line = line - 0.004 * bell(x, 0, 0.012) * (z > 0.03)
    return smoothstep(y - line + ragged, -0.007, 0.009) * (0.93 + 0.07 * np.clip(_waves(own, 0.0026, 6), -1, 1))


def _beard(m: Measures, x: Grid, y: Grid, z: Grid, lip_line: Grid, up: Grid, down: Grid) -> Grid:
    """Return the density of a beard, 0 to 1: moustache, chin, jaw and the cheek below a line from the mouth to the ear."""
    edge = np.interp(z, [-0.03, 0.00, 0.03, 0.05, 0.062], [0.000, -0.018, -0.028, -0.026, -0.022])
    low = smoothstep(y, edge, edge - 0.010) * smoothstep(y, -0.105, -0.088)
    lip = bell(x, 0, 0.010) * bell(y, lip_line - down - 0.003, 0.002)
    return low * (1 - 0.4 * lip) * smoothstep(z, -0.030, -0.012)


def _freckles(own: Float[np.ndarray, "R C 3"]) -> Grid:
    spots = smoothstep(_waves(own, 0.0045, 7) + 0.6 * _waves(own, 0.0070, 8), 1.25, 2.0)
    x, y = np.abs(own[..., 0]), own[..., 1]
    return spots * np.maximum(blob(x, y, 0.030, -0.001, 0.020, 0.013), blob(x, y, 0, 0.004, 0.012, 0.014))


def _paint_islands(mean: Float[np.ndarray, "R C 3"], masks: dict[str, Grid]) -> None:
    """Paint the eyeball, ear, lid rims, teeth and inside of the mouth into `mean` and `masks`."""
    u, v = uv.island_coordinates(SIZE)
    low = v < uv.STRIP - 1.5 / SIZE
    eye_u, eye_v = (u - uv.EYE_CENTRE[0]) / uv.DISC, (v - uv.EYE_CENTRE[1]) / uv.DISC
    ear_u, ear_v = (u - uv.EAR_CENTRE[0]) / uv.DISC, (v - uv.EAR_CENTRE[1]) / uv.DISC

    def fill(where: Bool[np.ndarray, "R C"], colour: Float[np.ndarray, "R C 3"]) -> None:
        mean[where] = colour[where]

    area = low & (u < 0.22)
    angle, turn = np.degrees(uv.eye_angle(np.hypot(eye_u, eye_v))), np.arctan2(eye_v, eye_u)
    sclera = _mix(
        np.broadcast_to(np.array([0.84, 0.81, 0.78]), (*u.shape, 3)), np.array([0.74, 0.60, 0.56]), smoothstep(angle, 40, 80)
    )
    fibres = 0.5 + 0.5 * np.sin(23 * turn + 2.5 * np.sin(5 * turn)) * np.sin(41 * turn + 1.3)
    shade = (0.70 + 0.45 * fibres) * (1.15 - 0.35 * smoothstep(angle, 18, 29))
    iris = np.array([0.33, 0.21, 0.12]) * shade[..., None]
    iris = _mix(iris, np.array([0.10, 0.07, 0.05]), smoothstep(angle, 25.0, 29.0))
    in_iris = smoothstep(angle, 30.5, 28.5)
    in_pupil = smoothstep(angle, 12.5, 10.5)
    ball = _mix(_mix(sclera, iris, in_iris), np.array([0.02, 0.018, 0.016]), in_pupil)
    fill(area, ball)
    masks["iris"][area] = (in_iris * (1 - in_pupil) * (1 - 0.6 * smoothstep(angle, 25, 29)))[area]

    area = low & (u >= 0.22) & (u < 0.44)
    radius = np.hypot(ear_u, ear_v)
    ear = np.broadcast_to(_SKIN + np.array([0.005, -0.038, -0.034]), (*u.shape, 3))
    ear = _mix(ear, np.array([0.56, 0.34, 0.29]), smoothstep(radius, 0.50, 0.15) * smoothstep(ear_v, -0.55, -0.30))
    ear = _mix(ear, np.array([0.22, 0.11, 0.09]), 0.9 * smoothstep(np.hypot(ear_u + 0.10, ear_v), 0.14, 0.04))
    ear = _mix(ear, np.array([0.62, 0.42, 0.36]), 0.5 * bell(radius, 0.50, 0.07) * (ear_u > -0.2))
    fill(area, ear)
    masks["flesh"][area] = 1.0
    masks["blush"][area] = 0.6

    area = low & (u >= 0.44) & (u < 0.53)
    along = (u - uv.RIM_BOX[0]) / (uv.RIM_BOX[2] - uv.RIM_BOX[0])
    inner, outer = smoothstep(np.abs(along - 0.5), 0.36, 0.44), smoothstep(np.abs(along - 0.526), 0.14, 0.06)
    down = (uv.RIM_BOX[3] - v) / (uv.RIM_BOX[3] - uv.RIM_BOX[1])
    rim = np.broadcast_to(np.array([0.73, 0.54, 0.48]), (*u.shape, 3))
    rim = _mix(rim, np.array([0.74, 0.50, 0.46]), inner * smoothstep(down, 0.05, 0.20))
    fill(area, _mix(rim, np.array([0.74, 0.63, 0.59]), outer * smoothstep(down, 0.10, 0.25)))
    masks["flesh"][area] = 0.6

    area = low & (u >= 0.53) & (u < 0.61)
    along = (u - uv.TEETH_BOX[0]) / (uv.TEETH_BOX[2] - uv.TEETH_BOX[0])
    gap = np.sum([bell(along, at, 0.022) for at in (0.0, 0.37, 0.66, 0.95)], axis=0)
    height = np.abs(2 * (v - uv.TEETH_BOX[1]) / (uv.TEETH_BOX[3] - uv.TEETH_BOX[1]) - 1)
    tooth = np.array([0.74, 0.70, 0.62]) * (1 - 0.45 * gap)[..., None]
    fill(area, _mix(tooth, np.array([0.50, 0.24, 0.23]), smoothstep(height, 0.80, 0.95)))

    area = low & (u >= 0.61)
    across = (v - uv.MOUTH_BOX[1]) / (uv.MOUTH_BOX[3] - uv.MOUTH_BOX[1])
    depth = 1 - np.abs(2 * across - 1)
    mouth = _mix(
        np.broadcast_to(np.array([0.50, 0.24, 0.23]), (*u.shape, 3)),
        np.array([0.085, 0.030, 0.030]),
        smoothstep(depth, 0.02, 0.38),
    )
    fill(area, mouth)
