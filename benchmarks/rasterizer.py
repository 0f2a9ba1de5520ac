"""Measure the cost of drawing a head on one CPU thread, relative to a matrix product in the same run.

    python tasks.py bench rasterizer

A bumpy sphere of 10,000 faces covers most of a 512 × 512 frame. Times are the best of several runs, to reduce the influence of
other work on the machine. The ratios hold on other machines, the milliseconds do not.
"""

import time

import torch

from capface.flame import HeadModel, HeadParams, rasterize, render_head
from capface.flame.model.camera import frame_to_ndc, project

SIZE = 512
RUNS = 15


def bumpy_sphere(rings: int = 51, sectors: int = 100) -> HeadModel:
    """Return a head-sized sphere of `2 · sectors · (rings - 1)` faces as a head model without moving parts."""
    polar = torch.linspace(0, torch.pi, rings + 1)[:, None].expand(-1, sectors)
    around = (torch.arange(sectors) * (2 * torch.pi / sectors)).expand(rings + 1, -1)
    radius = 0.16 + 0.004 * torch.sin(9 * polar) * torch.sin(7 * around)
    x, y, z = polar.sin() * around.sin(), polar.cos(), polar.sin() * around.cos()
    vertices = (torch.stack([x, y, z], dim=-1) * radius[..., None]).flatten(0, 1)
    ring, sector = torch.meshgrid(torch.arange(rings), torch.arange(sectors), indexing="ij")
    a, b = ring * sectors + sector, ring * sectors + (sector + 1) % sectors
    lower, upper = torch.stack([a, a + sectors, b + sectors], -1), torch.stack([a, b + sectors, b], -1)
    faces = torch.cat([lower[:-1].flatten(0, 1), upper[1:].flatten(0, 1)])
    V = len(vertices)
    return HeadModel.from_arrays(
        v_template=vertices,
        faces=faces,
        shapedirs=torch.zeros(V, 3, 1),
        n_shape=1,
        J_regressor=torch.full((5, V), 1 / V),
        parents=[-1, 0, 1, 1, 1],
        weights=torch.eye(5)[0].expand(V, 5),
        uv=torch.stack([around / (2 * torch.pi), 1 - polar / torch.pi], -1).flatten(0, 1),
        albedo_uv=torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0)),
    )


def best(work) -> float:
    """Return the milliseconds of the fastest of several runs."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) * 1000


def main() -> None:
    """Print the three times and their ratios."""
    torch.set_num_threads(1)
    matrix = torch.randn(768, 768, generator=torch.Generator().manual_seed(0))
    model, head = bumpy_sphere(), HeadParams.neutral()
    vertices = frame_to_ndc(project(model.vertices(head), head.camera), SIZE, SIZE)
    covered = (rasterize(vertices, model.faces, SIZE, SIZE).face >= 0).float().mean().item()

    product = best(lambda: matrix @ matrix)
    drawing = best(lambda: rasterize(vertices, model.faces, SIZE, SIZE))
    maps = best(lambda: render_head(model, head, SIZE, SIZE))
    print(f"{len(model.faces)} faces over {covered:.0%} of {SIZE} × {SIZE} pixels, torch {torch.__version__}, one thread")
    print(f"matrix product 768³   {product:7.2f} ms")
    print(f"rasterize             {drawing:7.2f} ms   {drawing / product:5.2f} products")
    print(f"render_head           {maps:7.2f} ms   {maps / product:5.2f} products")


if __name__ == "__main__":
    main()
