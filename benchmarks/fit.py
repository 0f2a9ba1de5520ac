"""How well heads are fitted to photos, method by method, from one profile to the other.

Known heads of the built-in model are seen by a perfect camera: their landmarks, or renderings of them, go in, and the rotation
and the landmarks that come out are compared with the known ones.

    python tasks.py bench fit [--deca models/deca/deca_model.tar --flame models/flame/generic_model.pkl] [--heads 8]

DECA needs its own weights, and FLAME's files to say what its codes mean; its rows are of FLAME's heads, rendered with skin.
"""

import argparse
import math
import time
from pathlib import Path

import torch

from capface.flame import HeadParams, fit_landmarks, load_flame, render_head
from capface.flame.builtin import builtin_head
from capface.flame.model.camera import deca_camera, frame_to_pixels, project
from capface.flame.model.landmarks import five_point_weights
from capface.flame.model.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from capface.models.faces.crops import deca_crop, deca_square, deca_transform
from capface.models.faces.deca import load_deca, split_code

YAWS = (-75, -60, -45, -30, -15, 0, 15, 30, 45, 60, 75)
NOISE, MISSING = 0.02, 1 / 3
SIDE = 512


def known_heads(count, yaw, generator):
    """Heads of one yaw and otherwise random: person, expression, jaw, pitch within 15°, roll within 25°, size and place."""

    def between(low, high, *size):
        return low + (high - low) * torch.rand(count, *size, generator=generator)

    turns = ((1, torch.full((count,), float(yaw))), (0, between(-15, 15)), (2, between(-25, 25)))
    Y, P, R = (axis_angle_to_matrix(torch.eye(3)[axis] * angle.deg2rad()[:, None]) for axis, angle in turns)
    neutral = HeadParams.neutral(count)
    return neutral.replace(
        rotation=matrix_to_axis_angle(R @ Y @ P),
        shape=0.5 * torch.randn(count, 100, generator=generator),
        expression=0.5 * torch.randn(count, 50, generator=generator),
        jaw=between(0, 0.2, 1) * torch.eye(3)[0],
        camera=torch.cat([between(3, 6, 1), between(-0.2, 0.2, 2)], dim=1),
    )


def seen_points(model, heads):
    """The 68 landmarks in frame units, `[B, 68, 2]`."""
    return project(model.landmarks(heads), heads.camera)[..., :2]


def errors(model, fitted, heads):
    """Mean rotation error in degrees, and mean distance of the 68 landmarks in % of the face's size."""
    relative = axis_angle_to_matrix(fitted.rotation).mT @ axis_angle_to_matrix(heads.rotation)
    degrees = matrix_to_axis_angle(relative).norm(dim=1).rad2deg()
    height = model.landmarks(HeadParams.neutral())[0, :, 1]
    size = heads.camera[:, 0] * (height.max() - height.min())
    distance = (seen_points(model, fitted) - seen_points(model, heads)).norm(dim=-1).mean(1)
    return degrees.mean().item(), 100 * (distance / size).mean().item()


def from_exact_points(model, heads, generator):
    """The landmark fit from all 68 points as they are."""
    return fit_landmarks(model, seen_points(model, heads)).params


def from_noisy_points(model, heads, generator):
    """From points with noise of 2 % of the face's size, a third of them missing."""
    points = seen_points(model, heads)
    height = model.landmarks(HeadParams.neutral())[0, :, 1]
    size = (heads.camera[:, 0] * (height.max() - height.min()))[:, None, None]
    points = points + NOISE * size * torch.randn(points.shape, generator=generator)
    weights = (torch.rand(points.shape[:2], generator=generator) > MISSING).float()
    return fit_landmarks(model, points, weights).params


def from_five_points(model, heads, generator):
    """From the five points of a face detector."""
    return fit_landmarks(model, five_point_weights() @ seen_points(model, heads)).params


class Deca:
    """DECA's code of rendered heads."""

    def __init__(self, path):
        self.network = load_deca(path)

    @torch.inference_mode()
    def __call__(self, model, heads, generator):
        """DECA alone: its code of renderings that are cut around the true landmarks."""
        photos = render_head(model, heads, SIDE, SIDE).lambertian.clamp(0, 1)
        transforms = deca_transform(*deca_square(frame_to_pixels(seen_points(model, heads), SIDE, SIDE) - 0.5))
        code = split_code(self.network(deca_crop(photos, transforms)))
        parts = {name: getattr(code, name) for name in ("shape", "texture", "expression", "rotation", "jaw", "light")}
        return heads.replace(**parts, camera=deca_camera(code.camera, transforms, SIDE, SIDE))

    def refined(self, model, heads, generator):
        """DECA, then the landmark fit from it, with all 68 points."""
        return fit_landmarks(model, seen_points(model, heads), start=self(model, heads, generator)).params


def table(title, model, methods, count):
    """Print the errors of some methods on the same heads."""
    print(f"\n{title}: {count} heads a yaw, rotation error in degrees / landmarks in % of the face's size")
    print(f"{'yaw':>32}" + "".join(f"{yaw:>12}" for yaw in YAWS) + f"{'CPU ms a face':>16}")
    for name, method in methods.items():
        cells, seconds = [], []
        for yaw in YAWS:
            generator = torch.Generator().manual_seed(yaw + 1000)
            heads = known_heads(count, yaw, generator)
            start = time.process_time()  # wall time counts other work on the machine
            fitted = method(model, heads, generator)
            seconds.append((time.process_time() - start) / count)
            degrees, percent = errors(model, fitted, heads)
            cells.append(f"{degrees:5.1f} /{percent:5.2f}")
        print(f"{name:>32}" + "".join(f"{cell:>12}" for cell in cells) + f"{1000 * math.fsum(seconds) / len(seconds):>16.0f}")


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--deca", type=Path, help="deca_model.tar")
    parser.add_argument("--flame", type=Path, help="generic_model.pkl with its companions, or a safetensors file of it")
    parser.add_argument("--heads", type=int, default=8, help="heads a yaw")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    points = {
        "68 exact points": from_exact_points,
        f"68 points, {NOISE:.0%} noise, a third missing": from_noisy_points,
        "5 points": from_five_points,
    }
    print(f"torch {torch.__version__}, one thread")
    table("Built-in head", builtin_head(), points, settings.heads)
    if settings.deca is None or settings.flame is None:
        print("\nDECA is not measured: its weights and FLAME's files are not there. Give them by --deca and --flame.")
        return
    deca = Deca(settings.deca)
    table("FLAME", load_flame(settings.flame), {**points, "DECA": deca, "DECA refined": deca.refined}, settings.heads)


if __name__ == "__main__":
    main()
