"""What fitting a head to landmarks costs and how far off it is, on one CPU thread.

    python benchmarks/fit.py

Heads of known shape, expression, jaw and pose (yaw −75° to 75°, pitch ±15°, roll ±25°) are projected, disturbed and fitted.
Landmark errors are mean distances as shares of the face's size (the height of its 68 landmarks).
"""

import importlib.util
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent

spec = importlib.util.spec_from_file_location("capface", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
pack = importlib.util.module_from_spec(spec)
sys.modules["capface"] = pack
spec.loader.exec_module(pack)

from capface.flame import HeadModel, HeadParams, fit_landmarks  # noqa: E402
from capface.flame.builtin import builtin_head  # noqa: E402
from capface.flame.camera import project  # noqa: E402
from capface.flame.landmarks import five_point_weights  # noqa: E402
from capface.flame.rotation import axis_angle_to_matrix, matrix_to_axis_angle  # noqa: E402

YAWS = torch.arange(-75.0, 76.0, 15.0).repeat(3)


def known_heads(deviation: float, random: torch.Generator) -> HeadParams:
    """Heads at every yaw, their coefficients `deviation` standard deviations wide."""
    B = len(YAWS)
    angles = torch.rand(2, B, generator=random) * 2 - 1
    about = ((1, YAWS), (0, 15 * angles[0]), (2, 25 * angles[1]))
    Y, P, R = (axis_angle_to_matrix(torch.eye(3)[axis] * angle.deg2rad()[:, None]) for axis, angle in about)
    return HeadParams.neutral(B).replace(
        rotation=matrix_to_axis_angle(R @ Y @ P),
        shape=deviation * torch.randn(B, 100, generator=random),
        expression=deviation * torch.randn(B, 50, generator=random),
        jaw=0.2 * torch.rand(B, 1, generator=random) * torch.eye(3)[0],
    )


def report(model: HeadModel, points: int, deviation: float, noise: float, missing: float) -> None:
    """Prints one row of the table."""
    random = torch.Generator().manual_seed(0)
    heads = known_heads(deviation, random)
    truth = project(model.landmarks(heads), heads.camera)[..., :2]
    y = model.landmarks(HeadParams.neutral())[0, :, 1]
    size = heads.camera[0, 0] * (y.max() - y.min())
    seen = truth if points == 68 else five_point_weights() @ truth
    seen = seen + noise * size * torch.randn(seen.shape, generator=random)
    weights = (torch.rand(seen.shape[:2], generator=random) >= missing).float()
    start = time.perf_counter()
    fit = fit_landmarks(model, seen, weights)
    each = (time.perf_counter() - start) / len(truth) * 1000
    relative = axis_angle_to_matrix(fit.params.rotation).mT @ axis_angle_to_matrix(heads.rotation)
    angle = matrix_to_axis_angle(relative).norm(dim=1).rad2deg()
    landmarks = (project(model.landmarks(fit.params), fit.params.camera)[..., :2] - truth).norm(dim=-1).mean(1) / size
    print(
        f"{points:6d} {deviation:9.1f} {noise:7.1%} {missing:8.0%} {angle.mean():10.2f} {angle.max():7.2f} "
        f"{landmarks.mean():14.2%} {landmarks.max():7.2%} {each:8.0f}"
    )


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    model = builtin_head()
    print("points deviation   noise  missing  rotation°     max      landmarks     max  ms/face")
    for row in ((68, 0.5, 0.0, 0.0), (68, 1.0, 0.0, 0.0), (68, 0.5, 0.01, 0.0), (68, 0.5, 0.02, 1 / 3)):
        report(model, *row)
    for row in ((5, 0.0, 0.0, 0.0), (5, 0.5, 0.01, 0.0), (5, 1.0, 0.01, 0.0)):
        report(model, *row)


if __name__ == "__main__":
    main()
