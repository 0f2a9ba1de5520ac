"""Measure how well each method fits heads to photos, from one profile view to the other.

Each method receives the landmarks of known heads of the built-in model, or renderings of the heads. The resulting rotation and
landmarks are compared with the known ones.

    python tasks.py bench fit [--deca models/deca/deca_model.tar --flame models/flame/generic_model.pkl] [--heads 8]

DECA needs its own weights, and FLAME's files to interpret its codes. Its rows use FLAME heads, rendered with skin.
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
    """Sample heads of one yaw, with random person, expression, jaw, pitch within 15°, roll within 25°, size and position."""

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
    """Return the 68 landmarks in frame units, `[B, 68, 2]`."""
    return project(model.landmarks(heads), heads.camera)[..., :2]


def errors(model, fitted, heads):
    """Return the mean rotation error in degrees, and the mean distance of the 68 landmarks in % of the face's size."""
    relative = axis_angle_to_matrix(fitted.rotation).mT @ axis_angle_to_matrix(heads.rotation)
    degrees = matrix_to_axis_angle(relative).norm(dim=1).rad2deg()
    height = model.landmarks(HeadParams.neutral())[0, :, 1]
    size = heads.camera[:, 0] * (height.max() - height.min())
    distance = (seen_points(model, fitted) - seen_points(model, heads)).norm(dim=-1).mean(1)
    return degrees.mean().item(), 100 * (distance / size).mean().item()


def from_exact_points(model, heads, generator):
    """Fit to all 68 exact points."""
    return fit_landmarks(model, seen_points(model, heads)).params


def from_noisy_points(model, heads, generator):
    """Fit to points with noise of 2 % of the face's size, a third of them missing."""
    points = seen_points(model, heads)
    height = model.landmarks(HeadParams.neutral())[0, :, 1]
    size = (heads.camera[:, 0] * (height.max() - height.min()))[:, None, None]
    points = points + NOISE * size * torch.randn(points.shape, generator=generator)
    weights = (torch.rand(points.shape[:2], generator=generator) > MISSING).float()
    return fit_landmarks(model, points, weights).params


def from_five_points(model, heads, generator):
    """Fit to the five points of a face detector."""
    return fit_landmarks(model, five_point_weights() @ seen_points(model, heads)).params


class Deca:
    """DECA's codes of rendered heads."""

    def __init__(self, path):
        self.network = load_deca(path)

    @torch.inference_mode()
    def __call__(self, model, heads, generator):
        """Fit with DECA alone, on renderings cropped around the true landmarks."""
        photos = render_head(model, heads, SIDE, SIDE).lambertian.clamp(0, 1)
        transforms = deca_transform(*deca_square(frame_to_pixels(seen_points(model, heads), SIDE, SIDE) - 0.5))
        code = split_code(self.network(deca_crop(photos, transforms)))
        parts = {name: getattr(code, name) for name in ("shape", "texture", "expression", "rotation", "jaw", "light")}
        return heads.replace(**parts, camera=deca_camera(code.camera, transforms, SIDE, SIDE))

    def refined(self, model, heads, generator):
        """Fit with DECA, then refine with all 68 landmarks."""
        return fit_landmarks(model, seen_points(model, heads), start=self(model, heads, generator)).params


def table(title, model, methods, count):
    """Print the errors of several methods on the same heads."""
    print(f"\n{title}: {count} heads a yaw, rotation error in degrees / landmarks in % of the face's size")
    print(f"{'yaw':>32}" + "".join(f"{yaw:>12}" for yaw in YAWS) + f"{'CPU ms a face':>16}")
    for name, method in methods.items():
        cells, seconds = [], []
        for yaw in YAWS:
            generator = torch.Generator().manual_seed(yaw + 1000)
            heads = known_heads(count, yaw, generator)
            start = time.process_time()  # wall time would include other work on the machine
            fitted = method(model, heads, generator)
            seconds.append((time.process_time() - start) / count)
            degrees, percent = errors(model, fitted, heads)
            cells.append(f"{degrees:5.1f} /{percent:5.2f}")
        print(f"{name:>32}" + "".join(f"{cell:>12}" for cell in cells) + f"{1000 * math.fsum(seconds) / len(seconds):>16.0f}")


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--deca", type=Path, help="deca_model.tar")
    parser.add_argument(
        "--flame", type=Path, help="generic_model.pkl with its companion files, or a converted safetensors file"
    )
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
        print("\nDECA is not measured, because its weights and FLAME's files are missing. Name them with --deca and --flame.")
        return
    deca = Deca(settings.deca)
    table("FLAME", load_flame(settings.flame), {**points, "DECA": deca, "DECA refined": deca.refined}, settings.heads)


if __name__ == "__main__":
    main()
